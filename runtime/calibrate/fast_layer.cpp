#include "runtime/calibrate/fast_layer.h"

#include "formats/scheme.h"

namespace llmq::runtime {
namespace {

void set(LinearWeights& linear) {
  linear.multiplies_bf16 =
      linear.scheme == formats::Scheme::kFloat && linear.dtype != formats::DType::kF32;
}

void set(MlpWeights& mlp) {
  for (LinearWeights* linear : {&mlp.gate, &mlp.up, &mlp.down}) set(*linear);
}

}  // namespace

LayerWeights with_bf16_products(const LayerWeights& weights) {
  LayerWeights fast = weights;
  for (LinearWeights* linear :
       {&fast.q, &fast.k, &fast.v, &fast.qkv, &fast.o, &fast.gate, &fast.up, &fast.down}) {
    set(*linear);
  }
  for (MlpWeights& expert : fast.experts) set(expert);
  set(fast.shared_expert);
  return fast;
}

}  // namespace llmq::runtime
