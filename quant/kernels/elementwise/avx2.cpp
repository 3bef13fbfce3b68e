#include "quant/kernels/elementwise/vec_avx2.h"
// elementwise_simd.h is written over the Vec of the header above.
#include "quant/kernels/elementwise/elementwise_simd.h"

namespace llmq::quant {

const ElementwiseKernels kElementwiseAvx2 = simd_kernels(Isa::kAvx2);

}  // namespace llmq::quant
