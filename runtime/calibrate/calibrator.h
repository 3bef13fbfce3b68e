#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "formats/architecture.h"
#include "quant/kernels/thread_team.h"
#include "quant/observer/range_observer.h"
#include "runtime/attention/kv_cache.h"
#include "runtime/model/decoder.h"
#include "runtime/model/layer_weights.h"

namespace llmq::runtime {

/// Linears of one layer that read the same activations.
struct ObservedGroup {
  formats::FusedGroup group = formats::FusedGroup::kNone;
  int64_t expert = -1;  ///< -1 outside experts

  // NOLINTNEXTLINE(modernize-use-nullptr): the 0 that an ordering is compared with is no pointer.
  auto operator<=>(const ObservedGroup&) const = default;
};

/// What the linears of each fused group of a layer read, experts each for themselves; an expert
/// that no token was routed to has no entry. n of an entry, divided by the inputs of its linears,
/// is the number of tokens.
using GroupStatistics = std::map<ObservedGroup, quant::RangeStatistics>;

struct CalibratorOptions {
  bool with_histogram = false;  ///< collect histograms beside extremes
  /// Called with the number of tokens that a layer has just read, so that progress can be shown and
  /// a long run given up by throwing. May be empty.
  std::function<void(int64_t n_tokens)> on_tokens;
};

/// Runs a float model on samples, a decoder layer at a time over all of them, and gathers what the
/// linears of each layer read. Memory holds the hidden states of all tokens (float32), the keys and
/// values of the samples in work, and scratch for kRowsPerBatch tokens; weights stay in the mapped
/// file.
///
/// The statistics depend on the weights and on the samples in their order, and on nothing else:
/// not on threads or instruction set. Not thread-safe; work is divided over the team.
class Calibrator {
 public:
  /// Tokens that go through a layer at once, whichever samples they belong to.
  static constexpr int64_t kRowsPerBatch = 512;

  /// `samples` are token ids, each sample a text of its own. Throws Error{kBadInput} for a model
  /// that cannot be run (see WeightLoader) and for ids outside its vocabulary.
  Calibrator(const WeightSource& source, std::vector<std::vector<int32_t>> samples,
             CalibratorOptions options, quant::ThreadTeam& team);

  /// The layer that advance() runs next; n_layers when all have been run.
  [[nodiscard]] int64_t next_layer() const { return next_layer_; }

  /// Runs the next layer over all samples and returns what its linears read. Throws
  /// Error{kBadInput} naming layer and group when an activation is NaN or infinite,
  /// Error{kInternal} when no layer is left.
  GroupStatistics advance();

  /// What the head reads, once every layer has been run: hidden states after the final norm. Errors
  /// as advance().
  GroupStatistics head();

 private:
  void embed();
  /// Calls run(first_row, n_rows) for the batches of a pass over all tokens.
  template <typename Run>
  void for_each_batch(const Run& run);
  void set_segments(int64_t first_row, int64_t n_rows);
  [[nodiscard]] quant::MatrixF32 rows(int64_t first_row, int64_t n_rows);

  const formats::ModelConfig& config_;
  std::vector<std::vector<int32_t>> samples_;
  CalibratorOptions options_;
  quant::ThreadTeam& team_;
  WeightLoader loader_;
  OuterWeights outer_;
  DecoderRunner runner_;
  std::vector<int64_t> sample_begins_;  // [n_samples + 1], rows of hidden_
  std::vector<KvCache> caches_;         // [n_samples], of the layer being run
  std::vector<BatchSegment> segments_;
  std::vector<float> hidden_;  // [n_tokens, hidden_size]
  int64_t next_layer_ = 0;
};

}  // namespace llmq::runtime
