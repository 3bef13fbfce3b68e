#pragma once

#include "runtime/model/layer_weights.h"

namespace llmq::runtime {

/// The layer with its float linears of 16 bits multiplied by quant::gemm_bf16: for calibration that
/// may be faster and need not be the same on every machine. Linears of other schemes and of float32
/// (those that smoothing or a rotation changed, say) are left as they are; so are a router and the
/// switch of a shared expert, which decide rather than transform: a token near the border between
/// two experts should not cross it for a rounding. Views stay those of `weights`.
LayerWeights with_bf16_products(const LayerWeights& weights);

}  // namespace llmq::runtime
