#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "quant/kernels/isa.h"

namespace llmq::quant {

/// Every Isa in ascending order.
inline constexpr std::array<Isa, 5> kAllIsas{Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni,
                                             Isa::kAvx512Vnni, Isa::kAmx};

/// "scalar", "avx2", "avxvnni", "avx512vnni" or "amx": the spelling of LLMQ_ISA.
std::string_view isa_name(Isa isa);

/// True when the CPU has the instructions and the operating system saves their registers; for kAmx
/// also when the kernel has granted this process the use of the tiles and a trial of them in a
/// forked child gave the right products (both once, on the first call). kScalar is always
/// supported. The sets are not nested: a CPU with AVX512-VNNI may lack AVX-VNNI. Thread safe.
bool isa_supported(Isa isa);

/// Why kAmx is not supported, as a phrase; empty where it is. Thread safe; static storage.
std::string_view why_not_amx();

/// True when kAvx512Vnni is supported and the CPU has AVX512-VBMI2 as well (VPEXPANDB; from Ice
/// Lake and Zen 4 on): instructions that no Isa stands for. Thread safe.
bool has_avx512_vbmi2();

/// The supported ones in ascending order; the first is kScalar. Thread safe.
std::vector<Isa> supported_isas();

/// Decides which Isa kernels use: the best supported one when `forced` is null or empty, else the
/// one that `forced` names. Throws Error{kUsage} with the supported names when the name is unknown
/// or this machine does not support it: a forced set is never lowered silently. Thread safe.
Isa choose_isa(const char* forced);

/// The Isa of this process: choose_isa of the environment variable LLMQ_ISA, decided by the first
/// call and kept. Throws as choose_isa does. Thread safe.
Isa active_isa();

}  // namespace llmq::quant
