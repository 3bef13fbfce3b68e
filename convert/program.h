#pragma once

namespace llmq::convert {

/// The program `llmq`: parses the command line, runs the subcommand, reports errors. Returns the
/// exit code (0 done, 2 usage, 3 bad input, 4 I/O, 5 memory, 6 gate failed, 70 bug, 130
/// interrupted).
int run_program(int argc, const char* const* argv);

}  // namespace llmq::convert
