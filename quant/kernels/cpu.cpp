#include "quant/kernels/cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>

#include "formats/error.h"
#include "quant/kernels/amx/hardware_trial.h"
#include "quant/kernels/amx/offer.h"

namespace llmq::quant {
namespace {

struct CpuidRegisters {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// All zero where the CPU does not have the leaf, which reads as "has none of its features".
CpuidRegisters cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegisters registers;
  __get_cpuid_count(leaf, subleaf, &registers.eax, &registers.ebx, &registers.ecx, &registers.edx);
  return registers;
}

bool has_bits(uint64_t value, std::initializer_list<int> bits) {
  for (int bit : bits) {
    if ((value >> bit & 1) == 0) return false;
  }
  return true;
}

// The register states that the operating system saves on a context switch; 0 without XGETBV.
uint64_t saved_states() {
  constexpr int kOsxsaveBit = 27;
  if (!has_bits(cpuid(1, 0).ecx, {kOsxsaveBit})) return 0;
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux grants tile registers per process on request only; an instruction without the grant is a
// SIGILL. Kernels before 5.16 and some sandboxes refuse.
bool request_tile_permission() {
  constexpr int kArchGetXcompPerm = 0x1022;
  constexpr int kArchReqXcompPerm = 0x1023;
  constexpr int kTileDataState = 18;
  if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileDataState) != 0) return false;
  uint64_t granted = 0;
  if (syscall(SYS_arch_prctl, kArchGetXcompPerm, &granted) != 0) return false;
  return has_bits(granted, {kTileDataState});
}

// CPUID leaves 0x1D and 0x1E, which describe the tiles, are not consulted: virtual machines leave
// them zero although the instructions work.
struct Detected {
  std::array<bool, kAllIsas.size()> supported;
  std::string amx_refusal;
};

Detected detect() {
  const CpuidRegisters basic = cpuid(1, 0);
  const CpuidRegisters extended = cpuid(7, 0);
  const CpuidRegisters extended_1 = cpuid(7, 1);
  const uint64_t saved = saved_states();

  const bool avx2 = has_bits(saved, {1, 2}) &&            // SSE and AVX registers
                    has_bits(basic.ecx, {12, 28, 29}) &&  // FMA, AVX, F16C
                    has_bits(extended.ebx, {5});          // AVX2
  const bool avx_vnni = avx2 && has_bits(extended_1.eax, {4});
  const bool avx512_vnni = avx2 && has_bits(saved, {5, 6, 7}) &&        // masks, ZMM registers
                           has_bits(extended.ebx, {16, 17, 30, 31}) &&  // F, DQ, BW, VL
                           has_bits(extended.ecx, {11});                // VNNI
  const AmxFacts amx{
      .has_avx512_vnni = avx512_vnni,
      .has_instructions = has_bits(extended_1.eax, {5}) &&       // AVX512-BF16
                          has_bits(extended.edx, {22, 24, 25}),  // AMX-BF16, -TILE, -INT8
      .saves_tiles = has_bits(saved, {17, 18}),                  // tile config and data
      .request_permission = request_tile_permission,
      .trial = hardware_tiles_agree};
  const std::string refusal = amx_refusal(amx);
  return {{true, avx2, avx_vnni, avx512_vnni, refusal.empty()}, refusal};
}

const Detected& detected() {
  static const Detected instance = detect();
  return instance;
}

std::string supported_names() {
  std::string names;
  for (Isa isa : supported_isas()) {
    if (!names.empty()) names += ", ";
    names += isa_name(isa);
  }
  return names;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAmx:
      return "amx";
  }
  return "scalar";
}

bool isa_supported(Isa isa) {
  return detected().supported.at(static_cast<size_t>(isa));
}

std::string_view why_not_amx() {
  return detected().amx_refusal;
}

bool has_avx512_vbmi2() {
  static const bool has = isa_supported(Isa::kAvx512Vnni) && has_bits(cpuid(7, 0).ecx, {6});
  return has;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (Isa isa : kAllIsas) {
    if (isa_supported(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa choose_isa(const char* forced) {
  if (forced == nullptr || *forced == '\0') return supported_isas().back();
  for (Isa isa : kAllIsas) {
    if (isa_name(isa) != forced) continue;
    if (isa_supported(isa)) return isa;
    throw formats::usage_error("LLMQ_ISA=" + std::string(forced) +
                               " asks for instructions that this CPU or operating system does not "
                               "offer; set it to one of " +
                               supported_names() + ", or unset it");
  }
  throw formats::usage_error("LLMQ_ISA=" + std::string(forced) +
                             " is not the name of an instruction set; set it to one of " +
                             supported_names() + ", or unset it");
}

Isa active_isa() {
  static const Isa active = choose_isa(std::getenv("LLMQ_ISA"));
  return active;
}

}  // namespace llmq::quant
