#include <string>

#include "formats/dtype.h"
#include "formats/error.h"
#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {

const RoundingKernels& rounding_kernels(Isa isa) {
  return choose_supported_kernels(isa, detail::kScalarRounding, detail::kAvx2Rounding,
                                  detail::kAvx512Rounding);
}

const RoundingKernels& rounding_kernels() {
  static const RoundingKernels& active = rounding_kernels(active_isa());
  return active;
}

size_t float_type_index(formats::DType dtype) {
  switch (dtype) {
    case formats::DType::kBF16:
      return static_cast<size_t>(FloatType::kBf16);
    case formats::DType::kF16:
      return static_cast<size_t>(FloatType::kFp16);
    case formats::DType::kF32:
      return static_cast<size_t>(FloatType::kFp32);
    default:
      throw formats::bad_input("a tensor of " + std::string(formats::dtype_name(dtype)) +
                               " holds no float weights; expected BF16, F16 or F32");
  }
}

}  // namespace llmq::quant
