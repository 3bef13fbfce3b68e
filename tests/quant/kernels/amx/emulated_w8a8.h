#pragma once

#include "quant/kernels/gemm_w8a8/kernels.h"

namespace llmq::quant {

/// The kernels of gemm_w8a8 for AMX over EmulatedTiles, and the emulator's state in the file that
/// compiled them.
struct EmulatedW8A8 {
  const Int8Kernels* kernels;
  /// The same with tiles that are never configured.
  const Int8Kernels* unconfigured;
  const char* (*first_fault)();
  void (*clear_fault)();
  bool (*is_configured)();  ///< the tiles of the calling thread
};

/// With an epilogue in plain C++, for any machine.
extern const EmulatedW8A8 kEmulatedW8A8Plain;
/// With the epilogue that runs beside the hardware's tiles; needs the instructions of kAvx512Vnni.
extern const EmulatedW8A8 kEmulatedW8A8Avx512;

}  // namespace llmq::quant
