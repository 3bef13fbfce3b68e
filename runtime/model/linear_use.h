#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/architecture.h"
#include "formats/model_config.h"
#include "quant/kernels/isa.h"
#include "runtime/model/layer_weights.h"
#include "runtime/model/model.h"

namespace llmq::runtime {

/// A linear of a model and how often tokens use it.
struct LinearUse {
  formats::Role role = formats::Role::kQ;
  const LinearWeights* linear = nullptr;
  /// Share of tokens that pass it: 1, or experts per token / experts.
  double token_share = 1.0;
};

/// Every linear of a layer in the order of execution.
std::vector<LinearUse> linear_uses(const LayerWeights& layer, const formats::ModelConfig& config);

/// Which kernel runs a linear.
struct LinearKernel {
  std::string_view family;  ///< as quant::kernel_families() names it
  quant::Isa isa = quant::Isa::kScalar;
};

/// The kernel that apply_linear runs for `linear` when `isa` is active. Throws Error{kInternal} for
/// a scheme that is not executed.
LinearKernel linear_kernel(const LinearWeights& linear, quant::Isa isa);

/// Bytes of a linear that a pass over it must read: weights by the bits of its scheme, and its
/// scales, offsets and biases as they are held.
double linear_read_bytes(const LinearWeights& linear);

/// Linears of a model that are run alike.
struct LinearGroup {
  formats::Role role = formats::Role::kQ;
  formats::Scheme scheme = formats::Scheme::kFloat;
  formats::DType dtype = formats::DType::kF32;  ///< of the stored weight
  int64_t group_size = 0;
  LinearKernel kernel;
  int64_t n_out = 0;
  int64_t n_in = 0;
  int64_t count = 0;      ///< linears of this kind
  double read_bytes = 0;  ///< linear_read_bytes of all of them
};

/// The linears of the whole model by role, scheme and shape, in the order of execution, the head
/// last.
std::vector<LinearGroup> linear_groups(const Model& model, quant::Isa isa);

/// Operations (a multiplication and an addition are two) and bytes that executing a model takes at
/// least, from the shapes of its linears and caches.
class ModelCosts {
 public:
  explicit ModelCosts(const Model& model);

  /// Of linears, by the numbers they multiply in.
  struct Operations {
    double int8 = 0;  ///< int8 weights by int8 activations
    double bf16 = 0;  ///< 16-bit float weights, and integer weights by float activations
    double f32 = 0;   ///< float32 weights
    [[nodiscard]] double total() const { return int8 + bf16 + f32; }
  };

  /// Of the linears of all layers, per token.
  [[nodiscard]] const Operations& layers() const { return layers_; }
  /// Of the head, per row of logits.
  [[nodiscard]] const Operations& head() const { return head_; }

  /// q·k and p·v of one token at `position` in all layers.
  [[nodiscard]] double attention_operations(int64_t position) const;

  /// Bytes of weights that a step of `batch_size` tokens reads, each matrix once. Of experts the
  /// number that so many tokens are expected to touch, were they routed at random.
  [[nodiscard]] double weight_bytes(int64_t batch_size) const;

  /// Bytes of keys and values that one token at `position` reads in all layers.
  [[nodiscard]] double kv_bytes(int64_t position) const;

 private:
  [[nodiscard]] double visible_keys(int64_t position) const;

  Operations layers_;
  Operations head_;
  double dense_bytes_ = 0;
  double expert_bytes_ = 0;
  double expert_share_ = 0;
  std::vector<int64_t> windows_;   // per layer, 0: all
  double operations_per_key_ = 0;  // of one layer
  double kv_bytes_per_key_ = 0;    // of one layer
};

}  // namespace llmq::runtime
