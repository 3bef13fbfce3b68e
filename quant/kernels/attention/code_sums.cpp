#include "quant/kernels/attention/code_sums.h"

#include "quant/kernels/choose_kernels.h"

namespace llmq::quant {

const CodeSumsKernels& code_sums_kernels(Isa isa) {
  return choose_kernels(isa, kCodeSumsScalar, kCodeSumsAvx2, kCodeSumsAvx512Vnni);
}

}  // namespace llmq::quant
