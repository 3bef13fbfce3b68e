#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "formats/architecture.h"
#include "formats/json.h"
#include "formats/model_config.h"
#include "quant/observer/range_observer.h"

namespace llmq::convert {

/// The linears that read the same activations: a fused group of a decoder layer or of one of its
/// experts, or the head.
struct GroupKey {
  int64_t layer = -1;  ///< -1 for the head
  formats::FusedGroup group = formats::FusedGroup::kNone;
  int64_t expert = -1;  ///< -1 outside experts

  // NOLINTNEXTLINE(modernize-use-nullptr): the 0 that an ordering is compared with is no pointer.
  auto operator<=>(const GroupKey&) const = default;
};

/// What a calibration run has seen: enough to quantize again without running the model.
struct CalibrationStatistics {
  std::string texts;  ///< the file, or the name of the built-in set
  int64_t n_samples = 0;
  int64_t n_tokens = 0;
  /// Of --fast-calibration: "tiles" or "lanes", the order in which quant::gemm_bf16 added; empty
  /// for the float32 kernels.
  std::string fast_order;
  std::string model_type;  ///< of the model that was run, as the extents are
  int64_t n_layers = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  std::map<GroupKey, quant::RangeStatistics> groups;
  /// The ranges that the recipe decided on, of the groups that were quantized. Written for readers;
  /// a run that loads the statistics decides anew.
  std::map<GroupKey, quant::ActivationRange> ranges;
  /// max|x| / std on the first samples alone, by which disable_level chooses; empty where it was
  /// not asked for.
  std::map<GroupKey, double> first_samples;
};

/// The document that read_statistics reads back (but for `ranges`); numbers are exact.
formats::Json statistics_json(const CalibrationStatistics& statistics);

/// Reads a statistics file. Throws Error{kBadInput} naming the key at fault, a file of another
/// kind, or a model of other extents than `config`.
CalibrationStatistics read_statistics(const std::filesystem::path& path,
                                      const formats::ModelConfig& config);

}  // namespace llmq::convert
