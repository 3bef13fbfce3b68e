#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "runtime/model/model.h"

namespace llmq::runtime {

/// How far the residual stream after a layer is from the reference's.
struct LayerError {
  int64_t layer = 0;  ///< 0-based
  /// sqrt(mean over tokens of ‖model − reference‖² / ‖reference‖²): every token counts alike, so
  /// that the huge states of the first token of a text do not hide the others.
  double relative_rms = 0.0;
};

/// A model against a reference, over the same scored tokens.
struct ReferenceScore {
  double mean_nll = 0.0;        ///< of the reference
  double kl = 0.0;              ///< mean KL(reference ‖ model) in nats
  double kl_p99 = 0.0;          ///< 99th percentile: the ⌈0.99·n⌉-th smallest
  double top1_agreement = 0.0;  ///< share of tokens where both have the same most likely one
  /// Empty when the models differ in layers or hidden size.
  std::vector<LayerError> layers;
};

struct TextScore {
  int64_t n_pieces = 0;   ///< that had something to score
  int64_t n_tokens = 0;   ///< scored
  double mean_nll = 0.0;  ///< nats per scored token; 0 where none was scored
  std::optional<ReferenceScore> reference;

  /// exp(mean_nll)
  [[nodiscard]] double perplexity() const;
};

/// Scores pieces of text one after the other: negative log-likelihood of every token but a piece's
/// first, and the distance from a reference model that reads the same pieces.
///
/// Models run a few hundred tokens at a time and logits a few rows at a time, so memory does not
/// grow with the pieces (with a reference, 8 bytes a token stay for the percentile). Sums are
/// float64 and follow the order of the tokens: the result has the same bits for every thread count
/// and chunk. Not thread-safe; the models must outlive it and run nothing else meanwhile.
class TextScorer {
 public:
  /// Called now and then within a piece, so that a long one can be given up by throwing.
  using Tick = std::function<void()>;

  /// `reference` may be null. Throws Error{kBadInput} when the vocabularies differ in size.
  explicit TextScorer(Model& model, Model* reference = nullptr, Tick tick = {});

  /// Scores ids[1..]; fewer than two ids score nothing. Throws Error{kBadInput} for ids outside the
  /// vocabulary, a piece longer than the models' positions, and logits that are not finite.
  void add(std::span<const int32_t> ids);

  [[nodiscard]] TextScore score() const;

 private:
  /// What is known of one scored token.
  struct TokenScore {
    double nll = 0.0;
    double reference_nll = 0.0;
    double kl = 0.0;
    bool same_top = false;
  };
  /// Final hidden states [n_rows, hidden_size] of the tokens that were fed last.
  struct Fed {
    Model* model = nullptr;
    std::vector<float> hidden;
    std::vector<float> logits;
  };

  void feed(Fed& fed, Sequence& sequence, std::span<const int32_t> tokens,
            const StageObserver& observer);
  void observe_reference(int64_t stage, const quant::ConstMatrixF32& hidden,
                         std::span<const RowOrigin> rows);
  void observe_model(int64_t stage, const quant::ConstMatrixF32& hidden,
                     std::span<const RowOrigin> rows);
  void score_rows(std::span<const int32_t> targets);
  [[nodiscard]] TokenScore score_token(int64_t row, int32_t target) const;
  static quant::ConstMatrixF32 compute_logits(Fed& fed, int64_t first_row, int64_t n_rows);

  Fed model_;
  std::optional<Fed> reference_;
  Tick tick_;
  int64_t step_ = 0;  // tokens fed at once
  bool compares_layers_ = false;

  std::vector<float> reference_layers_;  // [n_layers, step_, hidden_size]
  std::vector<double> row_ratios_;
  std::vector<TokenScore> row_scores_;

  int64_t n_pieces_ = 0;
  int64_t n_tokens_ = 0;
  int64_t n_same_top_ = 0;
  double nll_sum_ = 0.0;
  double reference_nll_sum_ = 0.0;
  std::vector<double> kls_;         // one per scored token
  std::vector<double> ratio_sums_;  // [n_layers]
};

}  // namespace llmq::runtime
