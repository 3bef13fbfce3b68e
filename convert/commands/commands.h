#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "convert/report/console.h"

namespace llmq::convert {

/// Options that every subcommand has.
struct CommonOptions {
  bool json = false;
  int n_threads = 0;  ///< 0: as many as the process may use
  std::string log_level = "info";
};

/// Does a command's work after its options were parsed; returns the exit code.
using CommandAction = std::function<int(Console&, const CommonOptions&)>;

/// Receives the action of the subcommand that was chosen.
using ChooseAction = std::function<void(CommandAction)>;

// Each function adds one subcommand to the parser; when it is chosen, `choose` is called with its
// action.
void add_quant_command(CLI::App& app, const ChooseAction& choose);
void add_convert_command(CLI::App& app, const ChooseAction& choose);
void add_shard_command(CLI::App& app, const ChooseAction& choose);
void add_merge_command(CLI::App& app, const ChooseAction& choose);
void add_sparse_compress_command(CLI::App& app, const ChooseAction& choose);
void add_plan_command(CLI::App& app, const ChooseAction& choose);
void add_verify_command(CLI::App& app, const ChooseAction& choose);
void add_inspect_command(CLI::App& app, const ChooseAction& choose);
void add_run_command(CLI::App& app, const ChooseAction& choose);
void add_bench_command(CLI::App& app, const ChooseAction& choose);
void add_eval_command(CLI::App& app, const ChooseAction& choose);
void add_info_command(CLI::App& app, const ChooseAction& choose);

/// Adds an option that takes true, false, 1 or 0, or stands alone for true.
CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& value,
                        const std::string& help);

/// The same for a value that stays absent where the option is not given.
CLI::Option* add_switch(CLI::App& app, const std::string& name, std::optional<bool>& value,
                        const std::string& help);

}  // namespace llmq::convert
