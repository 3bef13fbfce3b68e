#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/architecture.h"
#include "formats/dtype.h"
#include "formats/json.h"
#include "formats/scheme.h"
#include "quant/observer/range_observer.h"
#include "quant/weight_quantizer.h"

namespace llmq::convert {

/// How linears whose module path matches a pattern are stored.
struct RecipeRule {
  std::string match;  ///< module path with `*` for any run of characters; `a|b`: either
  formats::Scheme scheme = formats::Scheme::kFloat;
  bool symmetric = true;  ///< weights: offset 0 and codes within ±127 (int4: ±7), or the full range
  int64_t group_size = 0;  ///< 0: per channel
  /// Static activations: offset 0, or the full range.
  bool activation_symmetric = false;
  quant::WeightMethod method = {};  ///< how weights become codes
};

/// Smoothing between norms or linears and those that read them (`anti_method`).
struct SmoothRecipe {
  std::string method;           ///< "m1", "m2", "m3", "m4" or "m6"
  std::optional<double> alpha;  ///< exponent of activations; the method's own where absent
  std::optional<double> beta;   ///< exponent of weights (m6); searched or 1 − alpha where absent
  /// Of "norm_qkv", "norm_gate_up", "v_o", "up_down"; empty: those that the method has by itself.
  std::vector<std::string> subgraphs;
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
  /// Linears whose input channels ranks share (o_proj, down_proj) have symmetric activations
  /// whatever their rule says, so that quant_bias, which one rank carries alone, holds the bias and
  /// nothing else.
  bool row_parallel_symmetric = true;
  /// So many linears stay float beside those of keep_float: those whose inputs have the largest
  /// max|x| / std on the first samples (vendor's `disable_level` Ln).
  int64_t disable_level = 0;
  /// Where above 0: of the linears that match disable_candidates, those stay float whose max|x| /
  /// std exceeds the mean of all candidates by so many of their standard deviations.
  double disable_threshold = 0.0;
  /// Patterns of what disable_level and disable_threshold may choose from; empty: everything.
  std::vector<std::string> disable_candidates;
  std::optional<SmoothRecipe> smooth;
  bool rotate = false;  ///< norm gains folded, residual stream rotated by a randomized Hadamard
  /// Quantized attention: kC8 (int8 KV cache), kFaQuant, or kFloat for none.
  formats::Scheme attention = formats::Scheme::kFloat;
  /// dtype of float tensors where the command line says nothing; the source's where absent.
  std::optional<formats::DType> dtype;
  /// The main scheme where priority does not decide it.
  std::optional<formats::Scheme> model_quant_type;
  /// What the recipe does not do yet, told to the user; usually empty.
  std::string caveat;

  /// The scheme and parameters of a module. A pattern may match its other name instead, where it
  /// has one (not empty).
  [[nodiscard]] RecipeRule rule_for(std::string_view module,
                                    std::string_view other_name = {}) const;

  /// True when a rule stores activation ranges, which only a calibration can give.
  [[nodiscard]] bool has_static_activations() const;

  /// True when the model must be run: static activations, smoothing, methods that look at inputs,
  /// or quantized attention.
  [[nodiscard]] bool needs_calibration() const;

  /// True when weights are changed before they are quantized, or quantized by what their inputs
  /// were, which saved statistics do not hold.
  [[nodiscard]] bool changes_weights() const;

  /// True when calibration decides about more linears that stay float.
  [[nodiscard]] bool chooses_layers() const { return disable_level > 0 || disable_threshold > 0; }

  /// True when smoothing shifts the output of norms of this role, so that the norm and the linears
  /// that read it get biases.
  [[nodiscard]] bool shifts(formats::Role norm) const;

  /// The main scheme: model_quant_type, or the one of highest priority among the rules.
  [[nodiscard]] formats::Scheme main_scheme() const;

  /// The group size of the rules, the largest where they differ; 0 where all are per channel.
  [[nodiscard]] int64_t group_size() const;
};

/// True when `text` matches `pattern`, where `*` stands for any run of characters (also dots) and
/// `a|b` matches what either side matches.
bool matches_pattern(std::string_view pattern, std::string_view text);

/// Every built-in recipe in the order in which a list should show them.
const std::vector<Recipe>& builtin_recipes();

/// A built-in recipe. Throws Error{kUsage} with the list of types, a line each, or with a sentence
/// for a type that other tools have and this one refuses.
const Recipe& builtin_recipe(std::string_view type);

/// Reads a recipe file as written by recipe_json. Throws Error{kBadInput} naming the key at fault.
Recipe read_recipe(const std::filesystem::path& path);

/// Parses one recipe document; `origin` names it in errors.
Recipe parse_recipe(const formats::Json& document, const std::string& origin);

/// The document that parse_recipe reads back as the same recipe.
formats::Json recipe_json(const Recipe& recipe);

/// How the weights of a rule become codes for a model of this dtype.
quant::WeightSpec weight_spec(const RecipeRule& rule, formats::DType model_dtype);

/// `-disable_names`: comma-separated patterns replace keep_float; a leading '+' adds to it instead.
void apply_disable_names(Recipe& recipe, std::string_view names);

}  // namespace llmq::convert
