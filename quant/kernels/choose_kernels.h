#pragma once

#include <string>

#include "formats/error.h"
#include "quant/kernels/cpu.h"

namespace llmq::quant {

/// The implementation that serves `isa` where there are three: each serves the wider sets up to the
/// next one. Whether this machine supports `isa` is not asked.
template <typename Kernels>
const Kernels& choose_kernels(Isa isa, const Kernels& scalar, const Kernels& avx2,
                              const Kernels& avx512) {
  if (isa >= Isa::kAvx512Vnni) return avx512;
  return isa >= Isa::kAvx2 ? avx2 : scalar;
}

/// The same; throws Error{kUsage} where this machine does not support `isa`.
template <typename Kernels>
const Kernels& choose_supported_kernels(Isa isa, const Kernels& scalar, const Kernels& avx2,
                                        const Kernels& avx512) {
  if (!isa_supported(isa)) {
    throw formats::usage_error("this machine does not support the instruction set " +
                               std::string(isa_name(isa)));
  }
  return choose_kernels(isa, scalar, avx2, avx512);
}

}  // namespace llmq::quant
