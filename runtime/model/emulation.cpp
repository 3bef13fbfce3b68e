#include "runtime/model/emulation.h"

#include <fmt/format.h>

#include <array>
#include <string>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

constexpr std::array<EmulationRow, 3> kEmulations{{
    {Emulation::kSpec, "spec", false},
    {Emulation::kMindie, "mindie", true},
    {Emulation::kVllmAscend, "vllm-ascend", true},
}};

}  // namespace

std::span<const EmulationRow> emulations() {
  return kEmulations;
}

const EmulationRow& emulation_row(Emulation emulation) {
  return kEmulations.at(static_cast<size_t>(emulation));
}

Emulation parse_emulation(std::string_view name) {
  std::string known;
  for (const EmulationRow& row : kEmulations) {
    if (row.name == name) return row.emulation;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  throw formats::usage_error(fmt::format("--emulate {} is not known; choose {}", name, known));
}

}  // namespace llmq::runtime
