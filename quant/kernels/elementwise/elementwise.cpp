#include "quant/kernels/elementwise/elementwise.h"

#include "formats/error.h"
#include "quant/kernels/cpu.h"

namespace llmq::quant {

const ElementwiseKernels& elementwise_kernels(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return kElementwiseScalar;
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return kElementwiseAvx2;
    case Isa::kAvx512Vnni:
    case Isa::kAmx:
      return kElementwiseAvx512;
  }
  throw formats::Error(formats::ErrorCode::kInternal,
                       "no elementwise kernels for this instruction set");
}

const ElementwiseKernels& elementwise_kernels() {
  return elementwise_kernels(active_isa());
}

}  // namespace llmq::quant
