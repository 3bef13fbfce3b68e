#pragma once

#include <cstdint>

namespace llmq::quant {

/// Instruction sets for which kernels are written, from the narrowest to the widest. Every kernel
/// table carries the Isa of its implementation, so that a test can tell which one ran.
///
/// This header is free of library code so that the files compiled for one instruction set may
/// include it; detection and choice are in quant/kernels/cpu.h.
enum class Isa : uint8_t {
  kScalar,      ///< portable C++; the specification of every kernel
  kAvx2,        ///< AVX2, FMA, F16C
  kAvxVnni,     ///< kAvx2 and AVX-VNNI (256-bit VPDPBUSD)
  kAvx512Vnni,  ///< kAvx2 and AVX-512 F, BW, DQ, VL, VNNI
  kAmx          ///< kAvx512Vnni and AVX512-BF16, AMX-TILE, AMX-INT8, AMX-BF16
};

}  // namespace llmq::quant
