#pragma once

#include <optional>
#include <string>

#include "convert/recipes/recipe.h"

namespace llmq::convert {

/// What the command line changes about a recipe, in the vendor scripts' terms; absent: the recipe's
/// own.
struct RecipeOptions {
  std::optional<std::string> disable_names;  ///< see apply_disable_names
  std::optional<int> act_method;             ///< 1, 2 or 3
  std::optional<int64_t> disable_level;
  std::optional<bool> weight_symmetric;
  std::optional<int64_t> group_size;
  std::optional<int> weight_bits;            ///< with activation_bits: another scheme
  std::optional<int> activation_bits;        ///< 8 or 16
  std::optional<std::string> anti_method;    ///< "m1" … "m6"; "" or "none" for none
  std::optional<bool> use_kvcache_quant;     ///< C8
  std::optional<bool> use_fa_quant;          ///< FAQuant
  std::optional<bool> do_smooth;             ///< sparse types: smooth (m1) before
  std::optional<double> fraction;            ///< sparse types, 0.01 to 0.1
  std::optional<double> sigma_factor;        ///< sparse types, 3 to 4
  std::optional<bool> use_sigma;             ///< sparse types
  std::optional<bool> co_sparse;             ///< sparse types
  std::optional<bool> is_lowbit;             ///< sparse types; goes before co_sparse
  std::optional<std::string> weight_method;  ///< "round", "ssz" or "gptq" for every rule
};

/// Changes `recipe` accordingly. Throws Error{kUsage} for bits that make no scheme, options of
/// sparse types where no rule is sparse, and options that exclude each other.
void apply_options(const RecipeOptions& options, Recipe& recipe);

/// Throws Error{kBadInput} unless `method` is one that smoothing offers; `origin` names the place.
void require_smooth_method(const std::string& method, const std::string& origin);

/// The recipe that other tools' `--model_type M --quant_type T` stands for: the best practice of
/// that model where there is one, else the built-in type of that name. Throws as builtin_recipe.
Recipe best_practice(const std::string& model_type, const std::string& quant_type);

}  // namespace llmq::convert
