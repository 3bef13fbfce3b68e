#include "quant/kernels/elementwise/elementwise.h"

#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/cpu.h"

namespace llmq::quant {

const ElementwiseKernels& elementwise_kernels(Isa isa) {
  return choose_kernels(isa, kElementwiseScalar, kElementwiseAvx2, kElementwiseAvx512);
}

const ElementwiseKernels& elementwise_kernels() {
  return elementwise_kernels(active_isa());
}

}  // namespace llmq::quant
