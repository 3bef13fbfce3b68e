#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/recipes/recipe.h"
#include "formats/architecture.h"
#include "formats/checkpoint.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::convert {

/// What becomes of a tensor of the source.
enum class Fate : uint8_t {
  kQuantized,  ///< its codes and scales are written
  kCopied,     ///< written in float (cast where the dtype changes)
  kCloned,     ///< written in float, and once more under the name of the matrix tied to it
  kTied,       ///< not written: equal to the matrix it is tied to
  kDropped,    ///< not written; `reason` says why
};

/// "quantized", "copied", ...
std::string_view fate_name(Fate fate);

/// A tensor to be written.
struct OutputTensor {
  std::string name;
  formats::DType dtype = formats::DType::kF16;
  formats::Shape shape;
  formats::Scheme scheme = formats::Scheme::kFloat;
};

/// What is written for one source tensor under one module name.
struct OutputModule {
  RecipeRule rule;                    ///< scheme and parameters
  std::vector<OutputTensor> tensors;  ///< one for float; codes, scales, offsets for a scheme
  /// Place in the files written: that of the module in the architecture table, so that it does not
  /// depend on the name under which the source stores a tied matrix.
  size_t order = 0;
};

/// One source tensor and its fate.
struct LedgerEntry {
  const formats::StoredTensor* source = nullptr;
  std::string
      module;  ///< the name without ".weight" or ".bias" where the table knows it, else the name
  int64_t layer = -1;   ///< decoder layer; -1 outside
  int64_t expert = -1;  ///< -1 outside experts
  Fate fate = Fate::kCopied;
  std::string reason;
  /// Role in the model; empty for tensors that the architecture table does not know.
  std::string role;
  formats::TpAxis tp = formats::TpAxis::kReplicated;  ///< how ranks share it
  /// The linears that read the same activations, whose statistics these are.
  formats::FusedGroup group = formats::FusedGroup::kNone;
  std::vector<OutputModule> outputs;
};

/// Every source tensor exactly once, in the order of writing: embedding, layers, final norm, head,
/// then what the table does not know. Units are the runs that are processed together: a decoder
/// layer, or one tensor outside the layers.
struct Ledger {
  std::vector<LedgerEntry> entries;
  formats::DType model_dtype = formats::DType::kF16;  ///< of float tensors written
  std::vector<std::string> warnings;

  [[nodiscard]] uint64_t source_bytes() const;
  [[nodiscard]] uint64_t output_bytes() const;
  /// What is written, in the order in which it stands in the files.
  [[nodiscard]] std::vector<const OutputModule*> modules_in_order() const;
  /// First entry of each unit, and one past the last entry.
  [[nodiscard]] std::vector<size_t> unit_begins() const;
};

struct LedgerOptions {
  /// dtype of float tensors; F32 sources become F16 where absent, others keep theirs.
  std::optional<formats::DType> dtype;
  bool keep_tied = false;  ///< do not clone a tied head under its own name
};

/// Decides the fate of every tensor of `source` from headers, configuration and recipe. Throws
/// Error{kBadInput} naming a tensor that is missing, has another shape than the architecture, or a
/// dtype that cannot be read, or the name of a tensor that quantization adds; Error{kUsage} when
/// the recipe was made for other families and does not fit, asks for a scheme that is not written,
/// or gives the members of a fused group different schemes or parameters that they share.
Ledger make_ledger(const formats::Checkpoint& source, const formats::ModelConfig& config,
                   const Recipe& recipe, const LedgerOptions& options);

/// dtype of float tensors written for a source, see LedgerOptions::dtype.
formats::DType choose_model_dtype(const formats::Checkpoint& source,
                                  const formats::ModelConfig& config,
                                  std::optional<formats::DType> requested);

}  // namespace llmq::convert
