#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "formats/model_config.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/huge_vector.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/attention.h"
#include "runtime/attention/rope.h"
#include "runtime/model/layer_observer.h"
#include "runtime/model/layer_weights.h"
#include "runtime/model/linear_rows.h"
#include "runtime/model/moe.h"

namespace llmq::runtime {

/// Which layer to run.
struct LayerIndex {
  int64_t model_layer = 0;  ///< decides whether attention has a window
  int64_t cache_layer = 0;  ///< where the KV caches keep it; 0 in caches of a single layer
};

/// Executes decoder layers on batches of rows: RMSNorm → q, k, v → head norms → RoPE → attention →
/// o → residual; RMSNorm → SwiGLU (arXiv 2002.05202) or a mixture of experts → residual. A layer's
/// weights are a view, so that it runs from a mapped file or from weights a quantizer is working
/// on. Everything is float32 between linears; results have the independence that Attention
/// promises. Not thread-safe; work is divided over the team.
class DecoderRunner {
 public:
  /// `config` and `team` must outlive the runner. Throws as rope_frequencies.
  DecoderRunner(const formats::ModelConfig& config, quant::ThreadTeam& team);

  /// Heads that only make the ranks' parts equally large: what attention gives for them is set to
  /// zero, so that it counts in no maximum over inputs of o.
  void set_padded_heads(std::vector<int64_t> heads) { padded_heads_ = std::move(heads); }

  /// Prepares for running layers on a batch: positions, rotation tables, room in the caches and in
  /// the scratch matrices. Rows not covered by a segment may not exist. `segments` must stay valid
  /// until the batch is done. Throws Error{kMemory} when the caches cannot grow.
  void begin(std::span<const BatchSegment> segments);

  /// Runs one layer in place on `hidden` [n_rows, hidden_size] of the batch begun last; stores the
  /// keys and values of its rows. Layers of a batch may be run in any order and repeatedly.
  void run_layer(const LayerWeights& weights, LayerIndex index, const quant::MatrixF32& hidden,
                 const LayerObserver& observer = {});

  /// Rows of the batch begun last.
  [[nodiscard]] int64_t n_rows() const { return n_rows_; }

 private:
  void attend(const LayerWeights& weights, LayerIndex index, const quant::MatrixF32& hidden,
              const LayerObserver& observer);
  void feed_forward(const LayerWeights& weights, const quant::MatrixF32& hidden,
                    const LayerObserver& observer);
  void clear_padded_heads(const quant::MatrixF32& mixed);
  void project_qkv(const LayerWeights& weights, LinearRows& normed);
  void rotate_and_store(const LayerWeights& weights, int64_t cache_layer);
  quant::MatrixF32 scratch(quant::HugeVector<float>& buffer, int64_t n_cols) const;

  const formats::ModelConfig& config_;
  quant::ThreadTeam& team_;
  RopeTable rope_;
  Attention attention_;
  std::vector<int64_t> padded_heads_;
  std::span<const BatchSegment> segments_;
  int64_t n_rows_ = 0;
  std::vector<int64_t> positions_;  // [n_rows]
  std::vector<PhaseRun> runs_;
  quant::HugeVector<float> normed_;   // [n_rows, hidden]; also what o and down give
  quant::HugeVector<float> q_;        // [n_rows, n_heads·head_dim]
  quant::HugeVector<float> k_;        // [n_rows, n_kv_heads·head_dim]
  quant::HugeVector<float> v_;        // [n_rows, n_kv_heads·head_dim]
  quant::HugeVector<float> mixed_;    // [n_rows, n_heads·head_dim]
  quant::HugeVector<float> gate_;     // [n_rows, intermediate]
  quant::HugeVector<float> up_;       // [n_rows, intermediate]
  quant::HugeVector<float> qkv_;      // [n_rows, (n_heads + 2·n_kv_heads)·head_dim], where fused
  quant::HugeVector<float> experts_;  // [n_rows, hidden], where a layer has experts
  MoeRunner moe_;
};

/// RMSNorm of every row of x into y (same extents; y may be x), epsilon as given.
void rms_norm(const NormWeights& norm, double epsilon, const quant::ConstMatrixF32& x,
              const quant::MatrixF32& y, quant::ThreadTeam& team);

}  // namespace llmq::runtime
