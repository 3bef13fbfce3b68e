#include "convert/commands/eval_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::usage_error;

constexpr int64_t kLongest = int64_t{16} << 20;
constexpr int64_t kMost = int64_t{1} << 40;

void add_text_options(CLI::App& command, EvalOptions& options) {
  command.add_option("--text", options.text_path,
                     "Text file: negative log-likelihood and perplexity, in disjoint windows of "
                     "--context tokens, each beginning with BOS where the tokenizer adds one; CRLF "
                     "reads as a line feed");
  command
      .add_option_function<std::string>(
          "--split",
          [&options](const std::string& text) {
            options.separator = text;
            options.has_separator = true;
          },
          "Split the text at this string instead, taken as it is; parts are stripped, encoded "
          "each on its own, and cut at --context tokens")
      ->type_name("STR");
  command
      .add_option("--context", options.context,
                  "Tokens of a window or part, BOS included (default: 2048, or the model's "
                  "positions where they are fewer)")
      ->check(CLI::Range(int64_t{2}, kMost));
  command.add_option("--max-tokens", options.max_tokens, "Score only so many tokens")
      ->check(CLI::Range(int64_t{1}, kMost));
  command.add_option("--reference", options.reference_path,
                     "Float folder: KL, top-1 agreement and the error of each layer on --text");
}

void add_retrieval_options(CLI::App& command, EvalOptions& options) {
  command.add_option("--passkey", options.passkey_lengths,
                     "Find a number in filler: lengths in tokens, for example 512,1k,32k");
  command.add_option("--kv-retrieval", options.key_value_lengths,
                     "Find the value of a key among random pairs: lengths in tokens");
  command.add_option("--depths", options.n_depths, "Places of what is to be found, evenly spaced")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->capture_default_str();
  command.add_option("--seeds", options.n_seeds, "Different texts for each length and depth")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->capture_default_str();
  command.add_option("--task", options.task_path,
                     "JSON lines with question, passage and answer true or false (BoolQ), or "
                     "question and answer ending in \"#### number\" (GSM8K)");
  command.add_option("--max-items", options.max_items, "Use only so many lines of --task")
      ->check(CLI::Range(int64_t{1}, kMost));
  command
      .add_option("--max-new-tokens", options.max_new_tokens,
                  "Tokens that may be generated for an answer that is a number")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
}

void add_gate_options(CLI::App& command, EvalOptions& options) {
  command.add_option("--max-kl", options.max_kl, "Exit code 6 when the mean KL is above this");
  command.add_option("--max-nll", options.max_nll, "Exit code 6 when mean_nll is above this");
  command.add_option("--min-passkey", options.min_passkey,
                     "Exit code 6 when less than this share of all pass keys is found");
  command.add_option("--html", options.html_path, "Write the results as one self-contained page");
}

/// `needed` must be there where `given` is.
void require(bool given, const char* option, bool needed, const char* other) {
  if (given && !needed) throw usage_error(fmt::format("{} needs {}", option, other));
}

void check_limit(const std::optional<double>& limit, const char* option, double largest) {
  if (!limit || (*limit >= 0.0 && *limit <= largest)) return;
  throw usage_error(fmt::format("{} is {}; it must be a number from 0{}", option, *limit,
                                largest == 1.0 ? " to 1" : " on"));
}

int64_t parse_length(std::string_view word, const std::string& option) {
  int64_t value = 0;
  const char* end = word.data() + word.size();
  const auto [rest, error] = std::from_chars(word.data(), end, value);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  const int64_t factor = unit.empty()                 ? 1
                         : unit == "k" || unit == "K" ? int64_t{1} << 10
                         : unit == "m" || unit == "M" ? int64_t{1} << 20
                                                      : 0;
  if (error != std::errc() || factor == 0) {
    throw usage_error(
        fmt::format("{}: \"{}\" is not a length; write a list such as 512,1k,32k", option, word));
  }
  if (value < 1 || value > kLongest / factor) {
    throw usage_error(fmt::format("{}: {} is not between 1 and 16m tokens", option, word));
  }
  return value * factor;
}

}  // namespace

void add_eval_options(CLI::App& command, EvalOptions& options) {
  add_model_options(command, options.model);
  add_text_options(command, options);
  add_retrieval_options(command, options);
  add_gate_options(command, options);
}

void check_eval_options(const EvalOptions& options) {
  const bool has_text = !options.text_path.empty();
  const bool has_passkey = !options.passkey_lengths.empty();
  if (!has_text && !has_passkey && options.key_value_lengths.empty() && options.task_path.empty()) {
    throw usage_error("nothing to evaluate: give --text, --passkey, --kv-retrieval or --task");
  }
  require(!options.reference_path.empty(), "--reference", has_text, "--text to compare on");
  require(options.has_separator, "--split", has_text, "--text");
  require(options.max_tokens > 0, "--max-tokens", has_text, "--text");
  require(options.max_nll.has_value(), "--max-nll", has_text, "--text");
  require(options.max_kl.has_value(), "--max-kl", !options.reference_path.empty(), "--reference");
  require(options.min_passkey.has_value(), "--min-passkey", has_passkey, "--passkey");
  require(options.max_items > 0, "--max-items", !options.task_path.empty(), "--task");
  check_limit(options.max_kl, "--max-kl", HUGE_VAL);
  check_limit(options.max_nll, "--max-nll", HUGE_VAL);
  check_limit(options.min_passkey, "--min-passkey", 1.0);
  if (options.html_path.empty()) return;
  const std::filesystem::path page = options.html_path;
  const std::filesystem::path parent = page.has_parent_path() ? page.parent_path() : ".";
  if (!std::filesystem::is_directory(parent) || std::filesystem::is_directory(page)) {
    throw usage_error(fmt::format("--html {}: not a file in a folder that exists", page.string()));
  }
}

std::vector<int64_t> parse_lengths(const std::string& text, const std::string& option) {
  std::vector<int64_t> lengths;
  if (text.empty()) return lengths;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    lengths.push_back(parse_length(std::string_view(text).substr(begin, end - begin), option));
    begin = end + 1;
  }
  return lengths;
}

}  // namespace llmq::convert
