#include "quant/kernels/attention/code_sums.h"

#include "formats/error.h"

namespace llmq::quant {

const CodeSumsKernels& code_sums_kernels(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return kCodeSumsScalar;
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return kCodeSumsAvx2;
    case Isa::kAvx512Vnni:
    case Isa::kAmx:
      return kCodeSumsAvx512Vnni;
  }
  throw formats::Error(formats::ErrorCode::kInternal, "code sums of an unknown instruction set");
}

}  // namespace llmq::quant
