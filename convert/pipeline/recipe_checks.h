#pragma once

#include <filesystem>

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

/// Refuses what a recipe does beside its rules where this model does not permit it: rotation of
/// models with experts or with `keep_tied`, smoothing of experts by name, scales of keys and values
/// where q, k and v are one matrix. Warns in `ledger` where experts are left out of smoothing and
/// where rotation unties the head. Throws Error{kUsage} saying what to leave out.
void check_transformations(const formats::ModelConfig& config, const Recipe& recipe, bool keep_tied,
                           Ledger& ledger);

/// Throws Error{kUsage} listing what to leave out where a recipe needs more than the activation
/// ranges that the statistics in `load` hold, or changes the activations whose ranges are to be
/// written to `save`. Empty: none.
void check_statistics_use(const Recipe& recipe, const std::filesystem::path& load,
                          const std::filesystem::path& save);

/// Throws Error{kUsage} where a sparse recipe is to be written in another dtype than float16, which
/// the engines that run sparse models have alone.
void check_sparse_dtype(const Recipe& recipe, formats::DType model_dtype);

/// Throws Error{kUsage} where a recipe rotates the hidden states of an embedding model, which has
/// no head that could turn them back.
void check_rotation(const formats::Checkpoint& source, const formats::ModelConfig& config,
                    const Recipe& recipe);

/// A linear and the rule that it gets.
struct LinearRule {
  const std::string& module;
  const RecipeRule& rule;
};

/// Throws Error{kUsage} naming both where two linears that engines load as one matrix have rules of
/// the same scheme but other parameters that they share: group_size, and where activations are
/// static, activation_symmetric.
void check_shared_parameters(const LinearRule& one, const LinearRule& other);

}  // namespace llmq::convert
