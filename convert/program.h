#pragma once

#include "convert/commands/commands.h"

namespace llmq::convert {

/// Does a command's work; shows what it throws and turns it into an exit code.
int run_action(const CommandAction& action, Console& console, const CommonOptions& options);

/// The program `llmq`: parses the command line, runs the subcommand, reports errors. Returns the
/// exit code (0 done, 2 usage, 3 bad input, 4 I/O, 5 memory, 6 gate failed, 70 bug, 130
/// interrupted).
int run_program(int argc, const char* const* argv);

}  // namespace llmq::convert
