#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"

namespace llmq::formats {

/// How a linear (or an attention module) is stored. The strings of the description file are
/// SchemeRow::tag.
enum class Scheme : uint8_t {
  kFloat,
  kW8A8,
  kW8A8Dynamic,
  kW8A8Mix,
  kW8A16,
  kW4A16,
  kW8A8S,
  kW8A8SC,
  kC8,
  kFaQuant,
};

/// dtype of a tensor of a scheme; some follow the model's dtype.
enum class DTypeRule : uint8_t {
  kI8,
  kI32,
  kI64,
  kF32,
  kModel,     ///< the model's 16-bit dtype
  kDeqScale,  ///< F32 for bf16 models, I64 (float32 bits widened) for fp16 models
};

/// Shape of a tensor of a scheme for a linear [n, k] with group_size g (0: per channel).
enum class ShapeRule : uint8_t {
  kNK,           ///< [n, k]
  kPacked4,      ///< [n, k/2] per channel, [n/2, k] per group
  kN,            ///< [n]
  kNGroups,      ///< [n, 1] per channel, [n, k/g] per group
  kOne,          ///< [1]
  kFree,         ///< one-dimensional, any length
  kInfo,         ///< [5]
  kHeadsColumn,  ///< [heads, 1]
};

/// How a tensor of a scheme is cut along with its linear's TpAxis.
enum class SliceRule : uint8_t {
  kWeight,      ///< rows for column parallel, columns for row parallel
  kPerOutput,   ///< rows for column parallel, whole for row parallel
  kPerGroup,    ///< rows for column parallel, group columns for row parallel
  kRankZero,    ///< rows for column parallel; row parallel: rank 0 keeps it, others are zero
  kReplicated,  ///< whole on every rank
};

/// One tensor that a scheme stores beside or instead of `.weight`.
struct TensorRule {
  std::string_view suffix;  ///< ".weight", ".input_scale", ...
  DTypeRule dtype;
  ShapeRule shape;
  SliceRule slice;
};

/// One scheme: what it is called, and its tensors.
struct SchemeRow {
  Scheme scheme;
  std::string_view tag;  ///< in the description file, for example "W8A8_DYNAMIC"
  std::string_view
      quantize;         ///< config.json's `quantize` and the type in file names, for example "w8a8"
  int weight_bits;      ///< grid of the weight codes; 16 where the weight stays float
  int activation_bits;  ///< 16 where activations stay float
  bool is_linear;       ///< false for schemes of attention (C8, FAQuant)
  /// Consumers round `.weight_scale` to the model's dtype when they load it, so that codes must be
  /// computed from the rounded value.
  bool rounds_weight_scale;
  /// Priority of model_quant_type in a mixed checkpoint; the highest wins.
  int priority;
  std::span<const TensorRule> tensors;
};

/// Every scheme known.
std::span<const SchemeRow> schemes();

/// The row of a scheme. Never fails.
const SchemeRow& scheme_row(Scheme scheme);

/// True when linears of `scheme` have a tensor with this suffix (".input_scale", ...).
bool has_tensor(Scheme scheme, std::string_view suffix);

/// The scheme of a description tag ("W8A16"). Throws Error{kBadInput} listing the known tags.
Scheme parse_scheme_tag(std::string_view tag);

/// Extents a shape rule depends on.
struct LinearExtents {
  int64_t n = 0;           ///< rows (outputs); heads for FAQuant
  int64_t k = 0;           ///< columns (inputs)
  int64_t group_size = 0;  ///< 0: per channel
};

/// dtype of a tensor of a scheme for a model of dtype `model_dtype` (kF16 or kBF16).
DType resolve_dtype(DTypeRule rule, DType model_dtype);

/// Shape of a tensor of a scheme. Throws Error{kBadInput} where k is no multiple of the group size
/// or a packed extent is odd. kFree gives an empty shape: any.
Shape resolve_shape(ShapeRule rule, const LinearExtents& extents);

}  // namespace llmq::formats
