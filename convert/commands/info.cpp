#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <memory>

#include "convert/bench/bench_run.h"
#include "convert/commands/commands.h"
#include "convert/commands/explain.h"
#include "convert/commands/folder_options.h"
#include "convert/recipes/recipe.h"
#include "formats/architecture.h"
#include "formats/safetensors.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {
namespace {

formats::Json info_json() {
  formats::Json sets = formats::Json::array();
  for (const quant::Isa isa : quant::supported_isas()) sets.push_back(quant::isa_name(isa));
  formats::Json types = formats::Json::array();
  for (const Recipe& recipe : builtin_recipes()) types.push_back(recipe.name);
  formats::Json models = formats::Json::array();
  for (const formats::Architecture& architecture : formats::architectures()) {
    for (const std::string_view type : architecture.model_types) models.push_back(type);
  }
  const auto memory_bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                            static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::string_view why_not_amx = quant::why_not_amx();
  return {{"version", LLMQ_VERSION},
          {"instruction_sets", sets},
          {"amx_refused_because",
           why_not_amx.empty() ? formats::Json(nullptr) : formats::Json(why_not_amx)},
          {"active_instruction_set", quant::isa_name(quant::active_isa())},
          {"threads", quant::default_thread_count()},
          {"memory_bytes", memory_bytes},
          {"max_header_bytes", formats::kMaxSafetensorsHeaderBytes},
          {"types", types},
          {"model_types", models}};
}

std::string list_text(const formats::Json& list) {
  std::string text;
  for (const formats::Json& item : list)
    text += (text.empty() ? "" : ", ") + item.get<std::string>();
  return text;
}

int run_info(bool with_limits, Console& console, const CommonOptions& common) {
  formats::Json document = info_json();
  const formats::Json kernels = kernels_json();
  document.update(kernels);
  std::string text = fmt::format("llmq {}\n", LLMQ_VERSION);
  text +=
      fmt::format("instruction sets   {} (in use: {}{})\n", list_text(document["instruction_sets"]),
                  document["active_instruction_set"].get<std::string>(),
                  document["is_forced"].get<bool>() ? ", forced by LLMQ_ISA" : "");
  if (!document["amx_refused_because"].is_null()) {
    text += fmt::format("amx                not offered: {}\n",
                        document["amx_refused_because"].get<std::string>());
  }
  text += fmt::format("threads            {}\n", document["threads"].get<int>());
  text += fmt::format("memory             {}\n", bytes_text(document["memory_bytes"]));
  text += fmt::format("types              {}\n", list_text(document["types"]));
  text += fmt::format("model types        {}\n", list_text(document["model_types"]));
  text += fmt::format("header limit       {}\n", bytes_text(document["max_header_bytes"]));
  text += "\n" + kernels_text(kernels);
  if (with_limits) {
    quant::ThreadTeam team(thread_count(common));
    const quant::MachineLimits limits = quant::measure_limits(team);
    document["limits"] = limits_json(limits);
    text += "\n" + limits_text(limits);
  }
  console.result(document, text);
  return 0;
}

}  // namespace

void add_info_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command =
      app.add_subcommand("info", "Version, instruction sets, kernels, threads, limits");
  auto with_limits = std::make_shared<bool>(false);
  command->add_flag("--limits", *with_limits,
                    "Measure read bandwidth and the peaks of int8, bf16 and fp32 products");
  command->footer("Examples:\n  llmq info --json\n  LLMQ_ISA=avx2 llmq info --limits");
  command->callback([with_limits, choose] {
    choose([with_limits](Console& console, const CommonOptions& common) {
      return run_info(*with_limits, console, common);
    });
  });
}

}  // namespace llmq::convert
