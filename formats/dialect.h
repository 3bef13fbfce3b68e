#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/dtype.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::formats {

/// Quantized folders come from several tools and generations of tools. Their tensors mean the same
/// but differ in shapes, dtypes and names; these functions say what is taken for what, so that all
/// readers agree. All are thread-safe.

/// How the int4 codes of a linear [n, k] lie in its bytes.
enum class Int4Layout : uint8_t {
  kOnePerByte,   ///< [n, k]: a code a byte, in folders without a version
  kColumnPairs,  ///< [n, k/2]: neighbouring columns, the first in the low nibble; scales per
                 ///< channel
  kRowPairs,     ///< [n/2, k]: neighbouring rows, the first in the low nibble; scales per group
};

/// The layout that a stored shape of a linear [n, k] has, which no two share; nothing for another
/// shape.
std::optional<Int4Layout> int4_layout(const Shape& stored, int64_t n, int64_t k);

/// True where the description has a version of at least 1: int4 codes lie in pairs. Folders without
/// one count as version 0.0.0, and engines pack their codes when they load them.
bool stores_int4_pairs(const Description& description);

/// The scheme that a weight is read with: engines take 16-bit floats for a float weight whatever
/// its tag says.
Scheme effective_scheme(Scheme tagged, DType stored);

/// True where a tensor may be stored as `stored`, for a model of dtype `model_dtype`: activation
/// parameters in every float type, offsets of activations also in int8, scales of weights in every
/// float type, everything else as the table says.
bool accepts_dtype(const TensorRule& rule, DType stored, DType model_dtype);

/// True where a tensor of shape `stored` serves for one of shape `wanted` (empty: any): a vector
/// for a column of one, and a scalar for a vector of one.
bool accepts_shape(const Shape& stored, const Shape& wanted);

/// Inputs that share a scale of a linear with `k` inputs, by the shape of its scales: 0 for one per
/// output, [n] or [n, 1]; k / g for [n, g]. Folders without a version do not name it otherwise.
/// Throws Error{kBadInput} where g does not divide k or the shape is neither.
int64_t group_size_of(const Shape& scale, int64_t k);

/// `suffix` (".weight" or ".bias") of a norm. Tools that shift activations wrap norms, and store
/// what engines run under "X.module"; that is preferred to "X". Null when neither is there.
const StoredTensor* find_norm_tensor(const Checkpoint& checkpoint, std::string_view module,
                                     std::string_view suffix);

/// True where a checkpoint's tensors lack the "model." that the architecture table has, as
/// embedding models are published ("embed_tokens.weight", "layers.0.…", "norm.weight"): the value
/// for ModelConfig::bare_names.
bool has_bare_names(const Checkpoint& checkpoint);

/// The name that a module of a checkpoint with bare names has in the architecture table, so that
/// patterns written for that find it: "model.layers.3.mlp.up_proj" of "layers.3.mlp.up_proj".
/// Other names as they are.
std::string table_name(const ModelConfig& config, std::string_view name);

}  // namespace llmq::formats
