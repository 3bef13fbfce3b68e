#pragma once

#include <string>

namespace llmq::quant {

/// What decides whether AMX is offered. The functions are called only where everything before them
/// holds.
struct AmxFacts {
  bool has_avx512_vnni = false;            ///< Isa::kAvx512Vnni is supported
  bool has_instructions = false;           ///< CPUID: AMX-TILE, AMX-INT8, AMX-BF16, AVX512-BF16
  bool saves_tiles = false;                ///< XCR0: the operating system has enabled tile states
  bool (*request_permission)() = nullptr;  ///< asks the kernel to let this process use tiles
  /// A trial of the tiles, which is right or not; it runs in a forked child, and may end it by a
  /// signal. Must be safe between fork and exec.
  bool (*trial)() = nullptr;
};

/// Empty when AMX may be used, else why not: a phrase for "amx is not offered: ...". CPUID alone
/// does not decide, because virtual machines and sandboxes show instructions that then do not
/// work. Thread safe if the functions are.
std::string amx_refusal(const AmxFacts& facts);

}  // namespace llmq::quant
