#include "quant/kernels/elementwise/vec_avx512.h"
// elementwise_simd.h is written over the Vec of the header above.
#include "quant/kernels/elementwise/elementwise_simd.h"

namespace llmq::quant {

const ElementwiseKernels kElementwiseAvx512 = simd_kernels(Isa::kAvx512Vnni);

}  // namespace llmq::quant
