#include "convert/commands/explain.h"

#include <fmt/format.h>

#include <cstdlib>

#include "convert/report/console.h"
#include "convert/report/memory.h"
#include "convert/report/table.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/families.h"
#include "runtime/model/linear_use.h"

namespace llmq::convert {
namespace {

formats::Json group_json(const runtime::LinearGroup& group) {
  return {{"role", formats::role_name(group.role)},
          {"count", group.count},
          {"shape", {group.n_out, group.n_in}},
          {"scheme", formats::scheme_row(group.scheme).tag},
          {"dtype", formats::dtype_name(group.dtype)},
          {"group_size", group.group_size},
          {"kernel", group.kernel.family},
          {"instruction_set", quant::isa_name(group.kernel.isa)},
          {"bytes_per_pass", group.read_bytes}};
}

const char* attention_arithmetic(formats::DType kv_dtype, bool is_fa) {
  if (is_fa) return "FAQuant: integer products";
  return kv_dtype == formats::DType::kI8 ? "16-bit integers by int8 keys and values"
                                         : "float32 products";
}

std::string forced_text(const formats::Json& document) {
  return document["is_forced"].get<bool>() ? "forced by LLMQ_ISA" : "the best here";
}

}  // namespace

formats::Json kernels_json() {
  const char* forced = std::getenv("LLMQ_ISA");
  formats::Json families = formats::Json::array();
  for (const quant::KernelFamily& family : quant::kernel_families()) {
    families.push_back(
        {{"name", family.name},
         {"purpose", family.purpose},
         {"instruction_set", quant::isa_name(family.implementation(quant::active_isa()))}});
  }
  return {{"active_instruction_set", quant::isa_name(quant::active_isa())},
          {"is_forced", forced != nullptr && *forced != '\0'},
          {"kernels", families}};
}

std::string kernels_text(const formats::Json& document) {
  Table table({"kernels", "run with", "for"});
  for (const formats::Json& family : document["kernels"]) {
    table.add({family["name"].get<std::string>(), family["instruction_set"].get<std::string>(),
               family["purpose"].get<std::string>()});
  }
  return table.text();
}

formats::Json explain_json(const runtime::Model& model) {
  formats::Json document = kernels_json();
  document["threads"] = model.n_threads();
  formats::Json linears = formats::Json::array();
  for (const runtime::LinearGroup& group : runtime::linear_groups(model, quant::active_isa()))
    linears.push_back(group_json(group));
  document["linears"] = linears;
  runtime::Sequence sequence = model.new_sequence();
  const runtime::KvLayout& layout = sequence.cache().layout();
  const bool has_codes = layout.dtype == formats::DType::kI8;
  const quant::KernelFamily& family = quant::kernel_family(has_codes ? "attention" : "elementwise");
  document["attention"] = {
      {"arithmetic", attention_arithmetic(layout.dtype, !model.layer(0).fa.empty())},
      {"instruction_set", quant::isa_name(family.implementation(quant::active_isa()))},
      {"kv_dtype", formats::dtype_name(layout.dtype)},
      {"page_tokens", layout.page_size},
      {"kv_bytes_per_token", layout.page_size_bytes() / static_cast<uint64_t>(layout.page_size)}};
  const runtime::ModelCosts costs(model);
  document["weight_bytes_per_token"] = costs.weight_bytes(1);
  document["private_bytes"] = memory_now().private_bytes;
  document["mapped_bytes"] = memory_now().mapped_bytes;
  return document;
}

std::string explain_text(const formats::Json& document) {
  std::string text =
      fmt::format("{} threads, instruction set {} ({})\n", document["threads"].get<int>(),
                  document["active_instruction_set"].get<std::string>(), forced_text(document));
  Table table({"linear", "count", "shape", "scheme", "stored", "group", "kernel", "set"});
  for (const formats::Json& linear : document["linears"]) {
    const auto group_size = linear["group_size"].get<int64_t>();
    table.add({linear["role"].get<std::string>(), linear["count"].dump(), linear["shape"].dump(),
               linear["scheme"].get<std::string>(), linear["dtype"].get<std::string>(),
               group_size > 0 ? std::to_string(group_size) : "",
               linear["kernel"].get<std::string>(), linear["instruction_set"].get<std::string>()});
  }
  text += table.text();
  const formats::Json& attention = document["attention"];
  text += fmt::format("attention: {} with {}; KV cache {}, {} a token\n",
                      attention["arithmetic"].get<std::string>(),
                      attention["instruction_set"].get<std::string>(),
                      attention["kv_dtype"].get<std::string>(),
                      bytes_text(attention["kv_bytes_per_token"].get<uint64_t>()));
  text += fmt::format(
      "a token reads {} of weights; memory {} private, {} of the files mapped\n",
      bytes_text(static_cast<uint64_t>(document["weight_bytes_per_token"].get<double>())),
      bytes_text(document["private_bytes"].get<uint64_t>()),
      bytes_text(document["mapped_bytes"].get<uint64_t>()));
  return text;
}

}  // namespace llmq::convert
