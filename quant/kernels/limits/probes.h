#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// The loops that quant/kernels/limits times, one file per instruction set. Free of library code,
/// because files compiled for one instruction set include it.
namespace llmq::quant {

/// What a loop of products in registers multiplies.
enum class LimitKind : uint8_t { kInt8, kBf16, kF32 };

/// Independent chains of one instruction, nothing but registers touched.
struct ProductProbe {
  LimitKind kind = LimitKind::kF32;
  Isa isa = Isa::kScalar;             ///< set that the instruction belongs to
  const char* instruction = nullptr;  ///< as the manuals write it
  /// Runs n_steps steps; the value depends on every chain, so that none is left out.
  int64_t (*run)(int64_t n_steps) = nullptr;
  int64_t operations_per_step = 0;  ///< a multiplication and an addition are two
  /// Of one core with two units (one tile unit for AMX): what the vendor's manuals promise.
  int64_t operations_per_cycle = 0;
};

/// Reads `size_bytes` (those beyond the last whole block of 256 are left out).
using ReadProbe = int64_t (*)(const unsigned char* data, int64_t size_bytes);

int64_t read_scalar(const unsigned char* data, int64_t size_bytes);
int64_t read_avx2(const unsigned char* data, int64_t size_bytes);
int64_t read_avx512(const unsigned char* data, int64_t size_bytes);

extern const ProductProbe kF32ProbeAvx2;
extern const ProductProbe kF32ProbeAvx512;
extern const ProductProbe kInt8ProbeAvx2;
extern const ProductProbe kInt8ProbeAvxVnni;
extern const ProductProbe kInt8ProbeAvx512Vnni;
extern const ProductProbe kInt8ProbeAmx;
extern const ProductProbe kBf16ProbeAvx512;
extern const ProductProbe kBf16ProbeAmx;

}  // namespace llmq::quant
