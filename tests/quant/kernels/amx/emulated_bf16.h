#pragma once

#include "quant/kernels/gemm_bf16/kernels.h"

namespace llmq::quant {

/// The tile kernels of gemm_bf16 over EmulatedTiles, and the emulator's state in the file that
/// compiled them.
struct EmulatedBf16 {
  const Bf16TileKernels* kernels;
  const char* (*first_fault)();
  void (*clear_fault)();
  bool (*is_configured)();  ///< the tiles of the calling thread
};

/// With an engine in plain C++, for any machine.
extern const EmulatedBf16 kEmulatedBf16Plain;
/// With the engine that runs beside the hardware's tiles; needs the instructions of kAvx512Vnni.
extern const EmulatedBf16 kEmulatedBf16Avx512;

}  // namespace llmq::quant
