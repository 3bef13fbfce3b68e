#include "convert/pipeline/plan.h"

#include <fmt/format.h>

#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/report/table.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Example:\n"
    "  llmq plan -src Qwen2.5-7B-Instruct -type qwen_w8a16";

formats::Json plan_json(const FolderPlan& plan, int n_threads) {
  formats::Json document;
  document["recipe"] = recipe_json(plan.recipe);
  document["model_type"] = plan.config.model_type;
  document["dtype"] = formats::torch_dtype_name(plan.ledger.model_dtype);
  document["source_bytes"] = plan.ledger.source_bytes();
  document["output_bytes"] = OutputLayout(plan.ledger, plan.naming).size_bytes();
  document["peak_memory_bytes"] = expected_peak_memory_bytes(plan, n_threads);
  document["expected_seconds"] = expected_seconds(plan, n_threads);
  document["legal_tp"] = legal_tp_sizes(plan);
  document["warnings"] = plan_warnings(plan);
  document["tensors"] = ledger_json(plan.ledger);
  return document;
}

std::string plan_text(const formats::Json& document) {
  Table table({"tensor", "dtype", "shape", "bytes", "fate", "scheme", "bytes written", "why"});
  for (const formats::Json& tensor : document["tensors"]) {
    table.add({tensor["name"], tensor["dtype"], tensor["shape"].dump(),
               fmt::to_string(tensor["size_bytes"].get<uint64_t>()), tensor["fate"],
               tensor["scheme"], fmt::to_string(tensor["output_bytes"].get<uint64_t>()),
               tensor.value("reason", "")});
  }
  std::string text = table.text();
  text +=
      fmt::format("\n{} tensors, {} read, {} written, about {} of memory, about {}\n",
                  document["tensors"].size(), bytes_text(document["source_bytes"]),
                  bytes_text(document["output_bytes"]), bytes_text(document["peak_memory_bytes"]),
                  seconds_text(document["expected_seconds"]));
  text += fmt::format("tensor-parallel sizes that divide this model: {}\n",
                      document["legal_tp"].dump());
  for (const formats::Json& warning : document["warnings"])
    text += "warning: " + warning.get<std::string>() + "\n";
  return text;
}

int run_plan(const FolderOptions& options, bool print_recipe, Console& console,
             const CommonOptions& common) {
  FolderJob job = folder_job(options, common);
  job.recipe = chosen_recipe(options);
  if (print_recipe) {
    const formats::Json document = recipe_json(*job.recipe);
    console.result(document, document.dump(2) + "\n");
    return 0;
  }
  if (options.source.empty())
    throw formats::usage_error("give -src FOLDER (only --print-recipe works without)");
  const formats::Json document = plan_json(make_folder_plan(job), job.n_threads);
  console.result(document, plan_text(document));
  return 0;
}

}  // namespace

void add_plan_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command =
      app.add_subcommand("plan", "Show every tensor's fate and size before anything is done");
  auto options = std::make_shared<FolderOptions>();
  auto print_recipe = std::make_shared<bool>(false);
  command->add_option("--src,--model-path", options->source, "Folder of the float model");
  add_recipe_options(*command, *options);
  add_layout_options(*command, *options);
  command->add_flag("--print-recipe", *print_recipe,
                    "Print the recipe as a file that --recipe reads");
  command->footer(kFooter);
  command->callback([options, print_recipe, choose] {
    choose([options, print_recipe](Console& console, const CommonOptions& common) {
      return run_plan(*options, *print_recipe, console, common);
    });
  });
}

}  // namespace llmq::convert
