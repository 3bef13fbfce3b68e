#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/model_config.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/huge_vector.h"
#include "quant/kernels/thread_team.h"
#include "runtime/model/layer_observer.h"
#include "runtime/model/layer_weights.h"
#include "runtime/model/swiglu.h"

namespace llmq::runtime {

/// One of the experts that a token is routed to.
struct ExpertChoice {
  int64_t expert = 0;
  float weight = 0.0F;  ///< factor on what the expert gives
};

/// Routes one token as Qwen2-MoE and Qwen3-MoE do: softmax over `logits` of all experts in float32,
/// then the choices.size() largest probabilities into `choices`, in descending order (of equal ones
/// the expert with the lower index first), divided by their sum where `normalizes`
/// (norm_topk_prob). choices.size() must be in [1, logits.size()]. Bits depend on the arguments
/// only. Thread safe.
void route_token(std::span<const float> logits, bool normalizes, std::span<ExpertChoice> choices);

/// Rows that go through a mixture of experts together.
struct MoeBatch {
  quant::ConstMatrixF32 x;         ///< [n, hidden]
  quant::MatrixF32 out;            ///< [n, hidden]
  std::span<const PhaseRun> runs;  ///< phases of the rows, covering them once and in order
};

/// Executes the mixture of experts of a decoder layer. Tokens are grouped by expert, in ascending
/// order within each, so that every expert's linears run once on all its rows. What the experts
/// give is added up per token in the order of its choices, then the shared expert's; so the bits of
/// a token depend on neither the other tokens, nor threads, nor instruction set. Not thread-safe;
/// work is divided over the team.
class MoeRunner {
 public:
  /// `config` and `team` must outlive the runner.
  MoeRunner(const formats::ModelConfig& config, quant::ThreadTeam& team)
      : config_(config), team_(team) {}

  /// out = Σ over chosen experts of weight · expert(x) + sigmoid(x · switch) · shared(x), the last
  /// where the layer has a shared expert. x are the normed rows; out is overwritten and may not
  /// overlap x. `weights` must have experts. The observer sees what each
  /// expert's linears read (an expert without tokens: nothing) and what the shared ones read.
  /// Linears are applied to each row in its phase.
  void run(const LayerWeights& weights, const MoeBatch& batch, const LayerObserver& observer);

 private:
  void route(const LinearWeights& router, const MoeBatch& batch);
  void group_by_expert(const MoeBatch& batch);
  void run_experts(const LayerWeights& weights, const LayerObserver& observer);
  void run_shared(const LayerWeights& weights, const MoeBatch& batch,
                  const LayerObserver& observer);
  void combine(bool has_shared, const quant::MatrixF32& out);
  SwigluTask task_of(const MlpWeights& mlp, int64_t n_rows, std::span<const PhaseRun> runs,
                     const quant::MatrixF32& out);

  const formats::ModelConfig& config_;
  quant::ThreadTeam& team_;
  quant::HugeVector<float> logits_;    // [n, n_experts]
  std::vector<ExpertChoice> choices_;  // [n, n_experts_per_token]
  std::vector<int64_t> begins_;        // [n_experts + 1], slots of each expert
  std::vector<int64_t> rows_;          // [slots], the row that a slot holds
  std::vector<int64_t> slots_;         // [n, n_experts_per_token], the slot of each choice
  std::vector<Phase> phases_;          // [slots], of the rows that they hold
  quant::HugeVector<float> gathered_;  // [slots, hidden]: what experts read, then what they give
  quant::HugeVector<float> gate_;      // of one expert
  quant::HugeVector<float> up_;        // of one expert
  quant::HugeVector<float> shared_;    // [n, hidden]
  quant::HugeVector<float> switches_;  // [n]
};

}  // namespace llmq::runtime
