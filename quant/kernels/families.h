#pragma once

#include <span>
#include <string_view>

#include "quant/kernels/isa.h"

namespace llmq::quant {

/// A folder of quant/kernels, for reports of what runs where.
struct KernelFamily {
  std::string_view name;     ///< the folder's, "gemm_w8a8"
  std::string_view purpose;  ///< in a few words
  /// The instruction set of the implementation that runs when `isa` is active.
  Isa (*implementation)(Isa isa) = nullptr;
};

/// Every family, matrix products first.
std::span<const KernelFamily> kernel_families();

/// The family of that name. Throws Error{kInternal} when there is none.
const KernelFamily& kernel_family(std::string_view name);

}  // namespace llmq::quant
