#pragma once

#include "convert/pipeline/ledger.h"
#include "convert/recipes/recipe.h"
#include "formats/model_config.h"

namespace llmq::convert {

/// Refuses rules that this program cannot carry out, before anything is read. Throws Error{kUsage}
/// naming the rule for a scheme that is not written, parameters that engines cannot run, or several
/// group sizes.
void check_schemes(const Recipe& recipe);

/// A recipe made for other families is still used, with a warning in `ledger`, when each of its
/// patterns finds a module there. Throws Error{kUsage} naming the pattern that finds none.
void check_family(const formats::ModelConfig& config, const Recipe& recipe, Ledger& ledger);

/// Throws Error{kUsage} where a sparse recipe is to be written in another dtype than float16, which
/// the engines that run sparse models have alone.
void check_sparse_dtype(const Recipe& recipe, formats::DType model_dtype);

/// Throws Error{kUsage} where a recipe rotates the hidden states of an embedding model, which has
/// no head that could turn them back.
void check_rotation(const formats::Checkpoint& source, const formats::ModelConfig& config,
                    const Recipe& recipe);

}  // namespace llmq::convert
