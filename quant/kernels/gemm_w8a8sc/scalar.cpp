// The specification of the form in memory: what PackedW8A8sc describes, read back.
#include <cstdint>

#include "quant/kernels/gemm_w8a8sc/kernels.h"

namespace llmq::quant {
namespace {

constexpr int kLineCodes = kPanelCols * kGroup;

const int8_t* expand(const ExpandTask& task) {
  const int8_t* escape = task.escapes;
  for (int64_t line = 0; line < task.n_lines; ++line) {
    const int8_t* bytes = task.nibbles + line / 2 * kLineCodes;
    for (int i = 0; i < kLineCodes; ++i) {
      const auto byte = static_cast<unsigned>(static_cast<uint8_t>(bytes[i]));
      const auto nibble = static_cast<int>(line % 2 == 0 ? byte & 15U : byte >> 4U);
      const int code = nibble < 8 ? nibble : nibble - 16;
      task.lines[line * kLineCodes + i] =
          nibble == kEscapeNibble ? *escape++ : static_cast<int8_t>(code);
    }
  }
  return escape;
}

}  // namespace

const ExpandKernels kExpandScalar{.isa = Isa::kScalar, .expand = expand};

}  // namespace llmq::quant
