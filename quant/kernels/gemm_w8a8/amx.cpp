#include <cstdint>

#include "quant/kernels/gemm_w8a8/sums_avx512.h"
// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/tile_multiply.h"

namespace llmq::quant {
namespace {

struct UnshiftedSums : SumsAvx512 {
  static constexpr bool kShift = false;
};

// Fewer rows leave tiles half empty, while VNNI keeps up with the memory that brings the weights.
constexpr int64_t kMinRows = 16;

}  // namespace

const Int8Kernels kGemmW8A8Amx =
    tile_kernels<HardwareTiles, UnshiftedSums>(kMinRows, &kGemmW8A8Avx512Vnni);

}  // namespace llmq::quant
