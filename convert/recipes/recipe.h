#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "formats/scheme.h"
#include "quant/observer/range_observer.h"

namespace llmq::convert {

/// How linears whose module path matches a pattern are stored.
struct RecipeRule {
  std::string match;  ///< module path with `*` for any run of characters
  formats::Scheme scheme = formats::Scheme::kFloat;
  bool symmetric = true;   ///< weights: offset 0 and codes within ±127, or the full range
  int64_t group_size = 0;  ///< 0: per channel
  /// Static activations: offset 0, or the full range.
  bool activation_symmetric = false;
};

/// A quantization type as data: which linears get which scheme with which parameters. Nothing else
/// decides about quantization.
struct Recipe {
  std::string name;
  std::string summary;
  /// Families the recipe was made for; empty for any.
  std::vector<std::string> families;
  /// Patterns of modules that stay in float; they go before the rules.
  std::vector<std::string> keep_float;
  /// The first rule that matches a module decides; a module that none matches stays float.
  std::vector<RecipeRule> rules;
  /// How static activation ranges follow from what calibration saw.
  quant::ActMethod act_method = quant::ActMethod::kMinMax;
  /// So many linears stay float beside those of keep_float: those whose inputs have the largest
  /// max|x| / std on the first samples (vendor's `disable_level` Ln).
  int64_t disable_level = 0;
  /// What the recipe does not do yet, told to the user; usually empty.
  std::string caveat;

  /// The scheme and parameters of a module.
  [[nodiscard]] RecipeRule rule_for(std::string_view module) const;

  /// True when a rule stores activation ranges, which only a calibration can give.
  [[nodiscard]] bool needs_calibration() const;

  /// The main scheme: the one of highest priority among the rules.
  [[nodiscard]] formats::Scheme main_scheme() const;

  /// The group size of the rules, the largest where they differ; 0 where all are per channel.
  [[nodiscard]] int64_t group_size() const;
};

/// True when `text` matches `pattern`, where `*` stands for any run of characters (also dots).
bool matches_pattern(std::string_view pattern, std::string_view text);

/// Every built-in recipe in the order in which a list should show them.
const std::vector<Recipe>& builtin_recipes();

/// A built-in recipe. Throws Error{kUsage} with the list of types, a line each.
const Recipe& builtin_recipe(std::string_view type);

/// Reads a recipe file as written by recipe_json. Throws Error{kBadInput} naming the key at fault.
Recipe read_recipe(const std::filesystem::path& path);

/// Parses one recipe document; `origin` names it in errors.
Recipe parse_recipe(const formats::Json& document, const std::string& origin);

/// The document that parse_recipe reads back as the same recipe.
formats::Json recipe_json(const Recipe& recipe);

/// `-disable_names`: comma-separated patterns replace keep_float; a leading '+' adds to it instead.
void apply_disable_names(Recipe& recipe, std::string_view names);

}  // namespace llmq::convert
