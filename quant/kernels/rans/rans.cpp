#include "quant/kernels/rans/rans.h"

#include <string>

#include "formats/error.h"
#include "quant/kernels/cpu.h"

namespace llmq::quant {

const RansKernels& rans_kernels(Isa isa) {
  if (!isa_supported(isa)) {
    throw formats::usage_error("this machine does not support the instruction set " +
                               std::string(isa_name(isa)));
  }
  switch (isa) {
    case Isa::kAmx:
    case Isa::kAvx512Vnni:
      return detail::kRansAvx512;
    case Isa::kAvxVnni:
    case Isa::kAvx2:
      return detail::kRansAvx2;
    case Isa::kScalar:
      break;
  }
  return detail::kRansScalar;
}

}  // namespace llmq::quant
