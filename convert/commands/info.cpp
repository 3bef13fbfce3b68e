#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "convert/commands/commands.h"
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

int run_info(Console& console) {
  const formats::Json document = info_json();
  std::string text = fmt::format("llmq {}\n", LLMQ_VERSION);
  text +=
      fmt::format("instruction sets   {} (in use: {})\n", list_text(document["instruction_sets"]),
                  document["active_instruction_set"].get<std::string>());
  if (!document["amx_refused_because"].is_null()) {
    text += fmt::format("amx                not offered: {}\n",
                        document["amx_refused_because"].get<std::string>());
  }
  text += fmt::format("threads            {}\n", document["threads"].get<int>());
  text += fmt::format("memory             {}\n", bytes_text(document["memory_bytes"]));
  text += fmt::format("types              {}\n", list_text(document["types"]));
  text += fmt::format("model types        {}\n", list_text(document["model_types"]));
  text += fmt::format("header limit       {}\n", bytes_text(document["max_header_bytes"]));
  console.result(document, text);
  return 0;
}

}  // namespace

void add_info_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand("info", "Version, instruction sets, threads, limits");
  command->footer("Example:\n  llmq info --json");
  command->callback([choose] {
    choose([](Console& console, const CommonOptions&) { return run_info(console); });
  });
}

}  // namespace llmq::convert
