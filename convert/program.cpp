#include "convert/program.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "convert/arguments.h"
#include "convert/commands/commands.h"
#include "convert/interrupt.h"
#include "convert/report/console.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::ErrorCode;

LogLevel parse_log_level(const std::string& name) {
  if (name == "quiet" || name == "error") return LogLevel::kQuiet;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "debug") return LogLevel::kDebug;
  return LogLevel::kInfo;
}

void add_common_options(CLI::App& command, CommonOptions& options) {
  command.add_flag("--json", options.json,
                   "Write one JSON document to stdout; all else goes to stderr");
  command
      .add_option("--threads", options.n_threads, "Threads (default: all that the process may use)")
      ->check(CLI::Range(1, 1024));
  command.add_option("--log-level", options.log_level, "quiet, warning, info or debug")
      ->check(CLI::IsMember({"quiet", "error", "warning", "info", "debug"}));
}

/// Options of free text get their words back as the user wrote them.
void take_text_marks_off(CLI::App& command) {
  for (CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty() || !takes_free_text(option->get_lnames().front())) continue;
    option->transform([](const std::string& word) {
      return word.starts_with(kTextMark) ? word.substr(1) : word;
    });
  }
}

/// A sentence when the first word is not one of the subcommands.
std::optional<std::string> unknown_subcommand(const CLI::App& app,
                                              const std::vector<std::string>& words) {
  if (words.empty() || words.front().starts_with('-') || !app.get_subcommands().empty())
    return std::nullopt;
  std::string known;
  for (const CLI::App* command : app.get_subcommands({}))
    known += (known.empty() ? "" : ", ") + command->get_name();
  return fmt::format("unknown subcommand \"{}\"; known are {}", words.front(), known);
}

/// Bad usage found by the parser: one sentence instead of the parser's own exit codes.
int report_parse_error(const CLI::App& app, const CLI::ParseError& error,
                       const std::vector<std::string>& words) {
  const bool json = std::find(words.begin(), words.end(), "--json") != words.end();
  if (error.get_exit_code() == 0) {
    app.exit(error);
    return 0;
  }
  Console console(json, LogLevel::kInfo);
  std::string sentence = unknown_subcommand(app, words).value_or(error.what());
  std::replace(sentence.begin(), sentence.end(), '\n', ' ');
  sentence.erase(sentence.find_last_not_of(" .") + 1);
  const auto chosen = app.get_subcommands();
  console.error(ErrorCode::kUsage,
                fmt::format("{}; see llmq {}--help", sentence,
                            chosen.empty() ? "" : chosen.front()->get_name() + " "));
  return static_cast<int>(ErrorCode::kUsage);
}

}  // namespace

int run_action(const CommandAction& action, Console& console, const CommonOptions& options) {
  try {
    return action(console, options);
  } catch (const formats::Error& error) {
    console.error(error.code(), error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    console.error(ErrorCode::kMemory, "out of memory; free some or use a machine with more");
    return static_cast<int>(ErrorCode::kMemory);
  } catch (const std::exception& error) {
    console.error(ErrorCode::kInternal,
                  fmt::format("a bug in llmq, please report it: {}", error.what()));
    return static_cast<int>(ErrorCode::kInternal);
  }
}

int run_program(int argc, const char* const* argv) {
  install_signal_handlers();
  const Arguments arguments = translate_arguments(argc, argv);
  CLI::App app("llmq makes large language models small and proves that they still work", "llmq");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("llmq ") + LLMQ_VERSION);

  CommonOptions options;
  CommandAction action;
  const ChooseAction choose = [&](CommandAction chosen) { action = std::move(chosen); };
  add_quant_command(app, choose);
  add_convert_command(app, choose);
  add_shard_command(app, choose);
  add_merge_command(app, choose);
  add_sparse_compress_command(app, choose);
  add_plan_command(app, choose);
  add_verify_command(app, choose);
  add_inspect_command(app, choose);
  add_run_command(app, choose);
  add_bench_command(app, choose);
  add_eval_command(app, choose);
  add_info_command(app, choose);
  for (CLI::App* command : app.get_subcommands({})) {
    add_common_options(*command, options);
    take_text_marks_off(*command);
  }

  try {
    app.parse(std::vector<std::string>(arguments.words.rbegin(), arguments.words.rend()));
  } catch (const CLI::ParseError& error) {
    return report_parse_error(app, error, arguments.words);
  }
  Console console(options.json, parse_log_level(options.log_level));
  for (const std::string& note : arguments.notes) console.info(note);
  return run_action(action, console, options);
}

namespace {

template <typename Value>
CLI::Option* add_truth(CLI::App& app, const std::string& name, Value& value,
                       const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&value, name](const std::string& text) {
            const std::string word = CLI::detail::to_lower(text);
            if (word != "true" && word != "false" && word != "1" && word != "0") {
              throw CLI::ValidationError(name, "takes True or False, not " + text);
            }
            value = word == "true" || word == "1";
          },
          help)
      ->expected(0, 1)
      ->default_str("true")
      ->type_name("BOOL");
}

}  // namespace

CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& value,
                        const std::string& help) {
  return add_truth(app, name, value, help);
}

CLI::Option* add_switch(CLI::App& app, const std::string& name, std::optional<bool>& value,
                        const std::string& help) {
  return add_truth(app, name, value, help);
}

}  // namespace llmq::convert
