#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "runtime/evaluate/retrieval.h"
#include "runtime/evaluate/task.h"
#include "runtime/evaluate/text_score.h"

namespace llmq::convert {

/// A limit that was given on the command line.
struct EvalGate {
  std::string option;  ///< "--max-kl"
  double value = 0.0;  ///< measured
  double limit = 0.0;
  bool is_least = false;  ///< the value must reach the limit, else it may not pass it

  [[nodiscard]] bool holds() const { return is_least ? value >= limit : value <= limit; }
  /// "--max-kl: 0.02 is above 0.01", without a full stop.
  [[nodiscard]] std::string sentence() const;
};

/// All that `llmq eval` measured; what was not asked for is absent.
struct EvalReport {
  std::string model_path;
  std::string reference_path;  ///< empty: none
  std::string phase;           ///< that every token was run in; empty: as it was fed
  std::string text_path;
  int64_t context = 0;  ///< tokens of a window or piece of the text
  std::optional<runtime::TextScore> text;
  std::optional<std::vector<runtime::RetrievalCell>> passkey;
  std::optional<std::vector<runtime::RetrievalCell>> key_value;
  std::string task_path;
  std::optional<runtime::TaskScore> task;
  std::vector<EvalGate> gates;
};

/// Share of all texts of a grid that were answered right; `cells` holds at least one.
double overall_accuracy(const std::vector<runtime::RetrievalCell>& cells);

/// The document of --json: phase where one was asked for; mean_nll, perplexity, n_tokens, n_pieces,
/// context, with a reference kl, kl_p99, top1_agreement, reference_mean_nll and layers [{layer,
/// relative_rms}]; passkey and kv_retrieval [{length, depth, accuracy, n}]; task {accuracy, n,
/// n_shortened}; gates [{option, value, limit, ok}].
formats::Json eval_json(const EvalReport& report);

/// The same as tables for a terminal.
std::string eval_text(const EvalReport& report);

/// The same as one HTML page that loads nothing: styles are inline, the error of each layer is an
/// SVG bar chart.
std::string eval_page(const EvalReport& report);

/// `text` with the characters that mean something in HTML replaced by their entities.
std::string html_escape(std::string_view text);

}  // namespace llmq::convert
