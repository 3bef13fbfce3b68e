#include <fmt/format.h>

#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/report/summary.h"
#include "convert/verify/conformance.h"
#include "formats/error.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq verify Qwen2.5-7B-w8a16\n"
    "  llmq verify Qwen2.5-7B-w8a16 --source Qwen2.5-7B-Instruct\n"
    "Exit code 0 when every rule holds, 6 when one is broken.";

int run_verify(const std::string& folder, const std::string& source, Console& console,
               const CommonOptions& common) {
  quant::ThreadTeam team(thread_count(common));
  const auto source_path =
      source.empty() ? std::nullopt : std::optional<std::filesystem::path>(source);
  const formats::Json conformance = conformance_json(check_conformance(folder, source_path, team));
  console.result(conformance, conformance_text(conformance));
  if (conformance["ok"].get<bool>()) return 0;
  for (const formats::Json& rule : conformance["rules"]) {
    if (rule["ok"].get<bool>()) continue;
    console.warn(
        fmt::format("{}: {}", rule["name"].get<std::string>(), rule["detail"].get<std::string>()));
  }
  return static_cast<int>(formats::ErrorCode::kGate);
}

}  // namespace

void add_verify_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command =
      app.add_subcommand("verify", "Check a folder against what serving engines ask of it");
  auto folder = std::make_shared<std::string>();
  auto source = std::make_shared<std::string>();
  command->add_option("DIR", *folder, "Folder to check")->required();
  command->add_option("--source", *source,
                      "Float folder that it was made from: compare the values as well");
  command->footer(kFooter);
  command->callback([folder, source, choose] {
    choose([folder, source](Console& console, const CommonOptions& common) {
      return run_verify(*folder, *source, console, common);
    });
  });
}

}  // namespace llmq::convert
