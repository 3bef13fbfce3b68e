#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llmq::runtime {

/// Whose arithmetic a quantized model is run with.
enum class Emulation : uint8_t {
  kSpec,        ///< the published formulas
  kMindie,      ///< MindIE's
  kVllmAscend,  ///< vLLM-Ascend's
};

/// In what an engine departs from the published formulas.
struct EmulationRow {
  Emulation emulation;
  std::string_view name;  ///< on the command line
  /// Activations are multiplied by the reciprocal of input_scale, rounded to the model's dtype,
  /// instead of divided by input_scale. Both engines compute it once when they load the weights,
  /// from an input_scale that they hold in that dtype too, whatever dtype it is stored in.
  bool multiplies_by_reciprocal;
};

/// Every emulation, kSpec first.
std::span<const EmulationRow> emulations();

/// The row of an emulation. Never fails.
const EmulationRow& emulation_row(Emulation emulation);

/// The emulation of a name. Throws Error{kUsage} with the known names.
Emulation parse_emulation(std::string_view name);

}  // namespace llmq::runtime
