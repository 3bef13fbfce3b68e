#include <cmath>
#include <cstring>

#include "formats/float16.h"
#include "quant/kernels/gemm_bf16/driver.h"
#include "quant/kernels/gemm_bf16/round_bf16.h"

namespace llmq::quant {
namespace {

// Tiles neither read nor give subnormals (DAZ and FTZ, whatever MXCSR says).
float flush(float value) {
  return std::fabs(value) < 0x1p-126F ? std::copysign(0.0F, value) : value;
}

float weight_at(const GemmBf16Args& args, int64_t row, int64_t i) {
  uint16_t bits = 0;
  const auto* data = static_cast<const unsigned char*>(args.weights);
  std::memcpy(&bits, data + (row * args.weight_stride + i) * 2, sizeof bits);
  if (args.weight_dtype == formats::DType::kF16)
    bits = formats::float_to_bf16(formats::fp16_to_float(bits));
  return flush(formats::bf16_to_float(bits));
}

// The order of TDPBF16PS (Intel SDM): k is cut into steps of 32, the last being filled up with
// zeros. A step has one chain for the even and one for the odd elements; each starts at +0 and adds
// its products in ascending order of k, one fused multiply-add each. The chains are added, even +
// odd, and what they give is added to the sum, which starts at +0. All of it rounds half to even
// and flushes subnormal results to zeros of their sign.
float sum_of(const GemmBf16Args& args, int64_t row, int64_t col) {
  const float* x = args.x.data + row * args.x.row_stride;
  float sum = 0.0F;
  for (int64_t begin = 0; begin < args.x.n_cols; begin += kBf16StepK) {
    float chains[2] = {0.0F, 0.0F};
    for (int64_t i = begin; i < begin + kBf16StepK; ++i) {
      const bool exists = i < args.x.n_cols;
      const float left = exists ? value_of_bf16(nearest_bf16(x[i])) : 0.0F;
      const float right = exists ? weight_at(args, col, i) : 0.0F;
      chains[i % 2] = flush(std::fma(left, right, chains[i % 2]));
    }
    sum = flush(sum + flush(chains[0] + chains[1]));
  }
  return sum;
}

}  // namespace

void gemm_bf16_specification(const GemmBf16Args& args) {
  check_bf16_operands(args);
  for (int64_t row = 0; row < args.x.n_rows; ++row) {
    for (int64_t col = 0; col < args.y.n_cols; ++col) {
      const float sum = sum_of(args, row, col);
      args.y.data[row * args.y.row_stride + col] =
          args.bias == nullptr ? sum : sum + args.bias[col];
    }
  }
}

}  // namespace llmq::quant
