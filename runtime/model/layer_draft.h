#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "formats/architecture.h"
#include "runtime/model/layer_weights.h"

namespace llmq::runtime {

/// A linear that can be changed: float32 [n_out, n_in] row-major; bias [n_out] or empty.
struct LinearDraft {
  std::vector<float> weight;
  std::vector<float> bias;
  int64_t n_out = 0;
  int64_t n_in = 0;
};

/// A norm that can be changed: [n] each; bias may be empty.
struct NormDraft {
  std::vector<float> weight;
  std::vector<float> bias;
};

/// A decoder layer of which some weights are owned float32 copies that can be changed. Not
/// thread-safe.
class LayerDraft {
 public:
  LayerDraft() = default;
  /// Nothing is copied yet; `weights` must stay valid.
  explicit LayerDraft(const LayerWeights& weights) : weights_(weights) {}

  /// The copy of a linear (kQ, kK, kV, kQkv, kO, kGate, kUp, kDown), made when it is first asked
  /// for; null where the layer has none of this role.
  LinearDraft* linear(formats::Role role);

  /// The copy of a norm (kInputNorm, kPostAttentionNorm), made when it is first asked for. Throws
  /// Error{kInternal} for another role.
  NormDraft& norm(formats::Role role);

  /// The copies made so far; null for others.
  [[nodiscard]] const LinearDraft* find_linear(formats::Role role) const;
  [[nodiscard]] const NormDraft* find_norm(formats::Role role) const;

  /// The layer as it is executed: copies where they were made, else the weights given. Valid until
  /// a copy is made, resized or destroyed.
  [[nodiscard]] LayerWeights view() const;

 private:
  LayerWeights weights_;
  std::map<formats::Role, LinearDraft> linears_;
  std::map<formats::Role, NormDraft> norms_;
};

}  // namespace llmq::runtime
