#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "formats/float16.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "runtime/calibrate/fast_layer.h"
#include "runtime/model/linear_use.h"

namespace llmq::runtime {
namespace {

using formats::DType;

/// A linear of random weights in `dtype`.
struct OwnedLinear {
  std::vector<std::byte> bytes;
  LinearWeights view;

  explicit OwnedLinear(DType dtype) {
    constexpr int64_t kSide = 24;
    const size_t size = formats::dtype_size_bytes(dtype);
    bytes.resize(size * kSide * kSide);
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < bytes.size(); i += size) {
      const float value = normal(random);
      const uint16_t half =
          dtype == DType::kBF16 ? formats::float_to_bf16(value) : formats::float_to_fp16(value);
      std::memcpy(bytes.data() + i, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half,
                  size);
    }
    view.dtype = dtype;
    view.weight = bytes;
    view.n_out = kSide;
    view.n_in = kSide;
  }

  [[nodiscard]] std::vector<float> apply(const LinearWeights& linear) const {
    std::mt19937 random(8);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(20 * linear.n_in));
    for (float& value : x) value = normal(random);
    std::vector<float> y(static_cast<size_t>(20 * linear.n_out));
    quant::ThreadTeam team(1);
    apply_linear(linear, {x.data(), 20, linear.n_in, linear.n_in},
                 {y.data(), 20, linear.n_out, linear.n_out}, team);
    return y;
  }
};

TEST(FastLayer, LinearsOf16BitsAloneTakeTheOtherKernel) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const OwnedLinear owned(dtype);
    LayerWeights layer;
    layer.o = owned.view;
    layer.router = owned.view;
    layer.experts.resize(2);
    layer.experts[1].down = owned.view;
    const LayerWeights fast = with_bf16_products(layer);
    const bool is_changed = dtype != DType::kF32;
    for (const LinearWeights* linear : {&fast.o, &fast.experts[1].down}) {
      EXPECT_EQ(owned.apply(*linear) != owned.apply(owned.view), is_changed);
      EXPECT_EQ(linear_kernel(*linear, quant::Isa::kAmx).family,
                is_changed ? "gemm_bf16" : "gemm_f32");
    }
    EXPECT_EQ(owned.apply(fast.router), owned.apply(owned.view)) << "routing stays exact";
    EXPECT_EQ(linear_kernel(layer.o, quant::Isa::kAmx).family,
              is_changed ? "gemm_f16" : "gemm_f32");
  }
}

TEST(FastLayer, ALinearHasTheBitsOfTheKernel) {
  const OwnedLinear owned(DType::kBF16);
  LayerWeights layer;
  layer.q = owned.view;
  const std::vector<float> y = owned.apply(with_bf16_products(layer).q);
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  std::vector<float> x(y.size());
  for (float& value : x) value = normal(random);
  std::vector<float> expected(y.size());
  quant::ThreadTeam team(1);
  quant::gemm_bf16({.x = {x.data(), 20, 24, 24},
                    .weights = owned.bytes.data(),
                    .weight_stride = 24,
                    .y = {expected.data(), 20, 24, 24}},
                   team);
  EXPECT_EQ(y, expected);
}

}  // namespace
}  // namespace llmq::runtime
