#pragma once

#include <cstdint>

#include "quant/kernels/gemm_w8a8/kernels.h"
#include "quant/kernels/isa.h"

/// The plain structs through which gemm_w8a8sc.cpp calls the kernels of one instruction set. Free
/// of library code, because files compiled for one instruction set include it.
namespace llmq::quant {

/// The escapes of a panel are padded to a multiple of as many bytes.
inline constexpr int64_t kEscapesMultiple = 64;
/// The nibble of a code that is among the escapes: −8.
inline constexpr int kEscapeNibble = 8;

/// Lines of a panel to be expanded, from where escapes and nibbles have been read up to.
struct ExpandTask {
  const int8_t* nibbles = nullptr;  ///< aligned to 64 bytes
  const int8_t* escapes = nullptr;  ///< 64 bytes may be read from anywhere a line begins
  int64_t n_lines = 0;              ///< even
  int8_t* lines = nullptr;          ///< [n_lines, 64], aligned to 64 bytes (scalar: to none)
};

/// Makes the lines of PackedInt8.
struct ExpandKernels {
  Isa isa = Isa::kScalar;  ///< of this implementation
  /// Returns where the escapes of the next line begin.
  const int8_t* (*expand)(const ExpandTask& task) = nullptr;
};

/// Some panels by few rows of x, over all of k, for a kernel that multiplies lines as they are
/// expanded.
struct W8A8scStream {
  const unsigned char* x = nullptr;  ///< rows as Int8Kernels::pack_row of kAvx512Vnni wrote them
  int64_t x_row_bytes = 0;           ///< distance between them
  int64_t n_rows = 0;                ///< 1 to max_stream_rows of kAvx512Vnni
  const int8_t* bytes = nullptr;     ///< PackedW8A8sc::bytes
  const int64_t* panel_offsets = nullptr;  ///< of the first panel
  int64_t n_panels = 0;
  int64_t n_lines = 0;  ///< of a panel, a multiple of 16
  Int8Epilogue epilogue;
};

extern const ExpandKernels kExpandScalar;
extern const ExpandKernels kExpandAvx2;
extern const ExpandKernels kExpandAvx512Vbmi2;
void stream_w8a8sc_avx512vbmi2(const W8A8scStream& stream);

}  // namespace llmq::quant
