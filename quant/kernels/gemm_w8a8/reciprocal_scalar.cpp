#include <cmath>
#include <cstdint>

#include "quant/kernels/gemm_w8a8/reciprocal_kernels.h"

namespace llmq::quant {
namespace {

void quantize(const float* x, int64_t n, float reciprocal, float offset, int8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const float rounded = std::rint(x[i] * reciprocal + offset);
    const float at_least = rounded > -128.0F ? rounded : -128.0F;  // also of NaN
    codes[i] = static_cast<int8_t>(at_least < 127.0F ? at_least : 127.0F);
  }
}

}  // namespace

const ReciprocalKernels kReciprocalScalar{.isa = Isa::kScalar, .quantize = quantize};

}  // namespace llmq::quant
