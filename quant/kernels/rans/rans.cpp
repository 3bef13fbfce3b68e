#include "quant/kernels/rans/rans.h"

#include "quant/kernels/choose_kernels.h"

namespace llmq::quant {

const RansKernels& rans_kernels(Isa isa) {
  return choose_supported_kernels(isa, detail::kRansScalar, detail::kRansAvx2, detail::kRansAvx512);
}

}  // namespace llmq::quant
