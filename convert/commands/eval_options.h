#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "convert/commands/model_options.h"

namespace llmq::convert {

/// The command line of `llmq eval`.
struct EvalOptions {
  ModelCommandOptions model;
  std::string reference_path;  ///< empty: none

  std::string text_path;  ///< empty: none
  std::string separator;
  bool has_separator = false;
  int64_t context = 0;     ///< 0: min(2048, the model's positions)
  int64_t max_tokens = 0;  ///< scored tokens; 0: all

  std::string passkey_lengths;    ///< as given; empty: none
  std::string key_value_lengths;  ///< as given; empty: none
  int64_t n_depths = 5;
  int64_t n_seeds = 1;

  std::string task_path;  ///< empty: none
  int64_t max_items = 0;  ///< 0: all
  int64_t max_new_tokens = 256;

  std::optional<double> max_kl;
  std::optional<double> max_nll;
  std::optional<double> min_passkey;
  std::string html_path;  ///< empty: none
};

/// Adds the options to a subcommand.
void add_eval_options(CLI::App& command, EvalOptions& options);

/// Throws Error{kUsage} for options that do not go together, and for an HTML file that could not
/// be written at the end.
void check_eval_options(const EvalOptions& options);

/// "512,1k,32k" as tokens: k is 1024, m is 1024²; none for an empty text. Throws Error{kUsage}
/// naming `option` for what is no such list, and for lengths below 1 or above 16m.
std::vector<int64_t> parse_lengths(const std::string& text, const std::string& option);

}  // namespace llmq::convert
