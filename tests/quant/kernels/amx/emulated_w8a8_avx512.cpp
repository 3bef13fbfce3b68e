#include "quant/kernels/gemm_w8a8/sums_avx512.h"
// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/tile_multiply.h"
#include "tests/quant/kernels/amx/emulated_w8a8_table.h"

namespace llmq::quant {
namespace {

struct UnshiftedSums : SumsAvx512 {
  static constexpr bool kShift = false;
};

}  // namespace

const EmulatedW8A8 kEmulatedW8A8Avx512 = emulated_table<UnshiftedSums>();

}  // namespace llmq::quant
