#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <vector>

#include "quant/kernels/thread_team.h"
#include "runtime/attention/kv_cache.h"
#include "runtime/calibrate/layer_statistics.h"
#include "runtime/model/decoder.h"
#include "runtime/model/layer_weights.h"

namespace llmq::runtime {

struct CalibratorOptions {
  bool with_histogram = false;  ///< collect histograms beside extremes
  /// Keep what the layer run last has read, so that look_back() can run it again: a second copy of
  /// the hidden states.
  bool keeps_inputs = false;
  /// Called with the number of tokens that a layer has just read, so that progress can be shown and
  /// a long run given up by throwing. May be empty.
  std::function<void(int64_t n_tokens)> on_tokens;
  bool with_kv_scales = false;  ///< collect what the scales of an int8 KV cache need
  bool with_fa_scales = false;  ///< collect what the scales of FAQuant need
  bool is_fast = false;         ///< run layers as with_bf16_products makes them
};

/// Runs a float model on samples, a decoder layer at a time over all of them, and gathers what the
/// linears of each layer read. Memory holds the hidden states of all tokens (float32), the keys and
/// values of the samples in work, and scratch for kRowsPerBatch tokens; weights stay in the mapped
/// file.
///
/// The statistics depend on the weights and on the samples in their order, and on nothing else:
/// not on threads or instruction set (with is_fast: on the latter, as quant::gemm_bf16 says, so
/// that two machines may differ). Not thread-safe; work is divided over the team.
class Calibrator {
 public:
  /// Tokens that go through a layer at once, whichever samples they belong to.
  static constexpr int64_t kRowsPerBatch = 512;

  /// `samples` are token ids, each sample a text of its own. Throws Error{kBadInput} for a model
  /// that cannot be run (see WeightLoader), whose KV cache or attention is quantized already, and
  /// for ids outside its vocabulary.
  Calibrator(const WeightSource& source, std::vector<std::vector<int32_t>> samples,
             CalibratorOptions options, quant::ThreadTeam& team);

  /// The layer that advance() runs next; n_layers when all have been run.
  [[nodiscard]] int64_t next_layer() const { return next_layer_; }

  /// Runs the next layer over all samples and returns what its linears read. Throws
  /// Error{kBadInput} naming layer and group when an activation is NaN or infinite,
  /// Error{kInternal} when no layer is left.
  GroupStatistics advance();

  /// Weights of the layer that comes next, as views of the checkpoint. Throws as WeightLoader.
  [[nodiscard]] LayerWeights next_weights() { return loader_.layer(next_layer_); }

  /// Runs the next layer over all samples with these weights, the checkpoint's or others that fit,
  /// and shows it to `observer` batch by batch. Throws Error{kInternal} when no layer is left.
  void run_next(const LayerWeights& weights, const LayerObserver& observer);

  /// Runs the layer that was run last once more from the same inputs with other weights; nothing
  /// changes but what `observer` sees. `change`, where given, is applied to a copy of each batch of
  /// inputs [n, hidden_size] before: a rotation of the residual stream, say, that the weights
  /// follow. Throws Error{kInternal} without keeps_inputs or before the first layer.
  void look_back(const LayerWeights& weights, const LayerObserver& observer,
                 const std::function<void(const quant::MatrixF32& hidden)>& change = {});

  /// Hidden states [n_tokens, hidden_size] behind the layers run so far, sample after sample. Valid
  /// until the next layer is run.
  [[nodiscard]] quant::ConstMatrixF32 hidden() const;

  /// Changes the hidden states in place: for layers whose weights follow a rotation of them.
  void change_hidden(const std::function<void(const quant::MatrixF32& hidden)>& change) {
    change(rows(0, sample_begins_.back()));
  }

  /// Of the layer that advance() ran last; empty before.
  [[nodiscard]] const AttentionStatistics& attention_statistics() const { return attention_; }

  /// What the head reads, once every layer has been run: hidden states after the final norm. Errors
  /// as advance().
  GroupStatistics head();

  /// Shows what the head reads to `observer` (as linear_input of kHead) batch by batch, once every
  /// layer has been run. With `change`, rows are normed without the gain and then changed: what a
  /// head reads whose columns have taken the gain and follow a rotation. Throws Error{kInternal}
  /// before the last layer.
  void show_head(const LayerObserver& observer,
                 const std::function<void(const quant::MatrixF32& hidden)>& change = {});

 private:
  void embed();
  void require_next_layer() const;
  /// Calls run(first_row, n_rows) for the batches of a pass over all tokens.
  template <typename Run>
  void for_each_batch(const Run& run);
  void set_segments(int64_t first_row, int64_t n_rows);
  void run_batch(const LayerWeights& weights, int64_t layer, const quant::MatrixF32& hidden,
                 const LayerObserver& observer, int64_t first_row);
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
  std::vector<float> inputs_;  // [n_tokens, hidden_size] of the layer run last, where kept
  std::vector<float> look_;    // of a batch that is looked back at
  int64_t next_layer_ = 0;
  AttentionStatistics attention_;
};

}  // namespace llmq::runtime
