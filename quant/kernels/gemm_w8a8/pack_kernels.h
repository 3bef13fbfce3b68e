#pragma once

#include <cstdint>

/// Free of library code, because files compiled for one instruction set include it.
namespace llmq::quant {

/// k that pack_lines_avx2 takes at once.
inline constexpr int64_t kPackBlockK = 32;

/// Interleaves n_blocks · kPackBlockK codes of each of 16 rows into lines of PackedInt8 at `out`
/// (64-byte aligned, 8 lines a block) and adds each row's sum to sums[16], modulo 2^32.
void pack_lines_avx2(const int8_t* rows, int64_t row_stride, int64_t n_blocks, int8_t* out,
                     int32_t* sums);

}  // namespace llmq::quant
