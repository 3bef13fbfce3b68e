#include <fmt/format.h>

#include <string>

#include "convert/bench/bench_run.h"
#include "convert/report/table.h"

namespace llmq::convert {
namespace {

std::string cell(const formats::Json& value, double factor, int digits) {
  return value.is_null() ? "" : fmt::format("{:.{}f}", factor * value.get<double>(), digits);
}

}  // namespace

formats::Json limits_json(const quant::MachineLimits& limits) {
  formats::Json peaks = formats::Json::array();
  for (const quant::ProductPeak& peak : limits.peaks) {
    peaks.push_back({{"kind", quant::limit_kind_name(peak.kind)},
                     {"instruction_set", quant::isa_name(peak.isa)},
                     {"instruction", peak.instruction},
                     {"gops", peak.gops},
                     {"share_of_architecture", peak.share_of_architecture}});
  }
  return {{"threads", limits.n_threads},
          {"active_instruction_set", quant::isa_name(quant::active_isa())},
          {"read_gb_per_s", limits.read_gb_per_s},
          {"peaks", peaks}};
}

std::string limits_text(const quant::MachineLimits& limits) {
  std::string text = fmt::format("limits of {} threads ({} is used)\n", limits.n_threads,
                                 quant::isa_name(quant::active_isa()));
  Table table({"kind", "set", "instruction", "rate", "share of clock x units"});
  table.add({"read", "", "memory", fmt::format("{:.1f} GB/s", limits.read_gb_per_s), ""});
  for (const quant::ProductPeak& peak : limits.peaks) {
    table.add({std::string(quant::limit_kind_name(peak.kind)),
               std::string(quant::isa_name(peak.isa)), std::string(peak.instruction),
               fmt::format("{:.1f} {}", peak.gops,
                           peak.kind == quant::LimitKind::kInt8 ? "GOPS" : "GFLOPS"),
               fmt::format("{:.0f} %", 100.0 * peak.share_of_architecture)});
  }
  return text + table.text();
}

std::string bench_csv(const formats::Json& rows) {
  std::string text;
  for (const auto& [key, value] : rows.front().items()) {
    if (!value.is_structured()) text += (text.empty() ? "" : ",") + key;
  }
  text += "\n";
  for (const formats::Json& row : rows) {
    std::string line;
    bool is_first = true;
    for (const auto& [key, value] : row.items()) {
      if (value.is_structured()) continue;
      line += (is_first ? "" : ",") + (value.is_null() ? "" : value.dump());
      is_first = false;
    }
    text += line + "\n";
  }
  return text;
}

std::string bench_table(const formats::Json& rows) {
  const formats::Json& first = rows.front();
  std::string text =
      fmt::format("{}, {}, KV {}; {} on {} threads; loaded in {:.2f} s ({:.1f} GB/s)\n",
                  first["model"].get<std::string>(), first["quantize"].get<std::string>(),
                  first["kv"].get<std::string>(), first["instruction_set"].get<std::string>(),
                  first["threads"].get<int>(), first["load_s"].get<double>(),
                  first["load_gb_per_s"].get<double>());
  Table table({"prefill", "decode", "depth", "batch", "first token ms", "prefill tok/s",
               "% of peak", "ms/token", "decode tok/s", "MB/token", "% of bandwidth"});
  for (const formats::Json& row : rows) {
    table.add({row["prefill_tokens"].dump(), row["decode_tokens"].dump(), row["depth"].dump(),
               row["batch_size"].dump(), cell(row["first_token_ms"], 1, 1),
               cell(row["prefill_tokens_per_s"], 1, 1), cell(row["share_of_peak"], 100, 1),
               cell(row["decode_ms_per_token"], 1, 2), cell(row["decode_tokens_per_s"], 1, 2),
               cell(row["decode_bytes_per_token"], 1e-6, 1),
               cell(row["share_of_bandwidth"], 100, 1)});
  }
  return text + table.text();
}

}  // namespace llmq::convert
