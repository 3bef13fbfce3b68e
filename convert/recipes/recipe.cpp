#include "convert/recipes/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "formats/error.h"

namespace llmq::convert {
namespace {

bool matches_one(std::string_view pattern, std::string_view text) {
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

/// Types of other tools' lists that are not offered, and why.
constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kRefusedTypes{{
    {"w4a4",
     "activations of 4 bits need rotations while the model runs, which the engines that "
     "llmq writes for do not offer for dense models; use w4a16 or w8a8"},
    {"w16a16s",
     "float sparse weights are only read by one accelerator's decompressor, whose "
     "bitstream is closed; use w8a8s"},
}};

bool any_rule(const Recipe& recipe, bool (*holds)(const RecipeRule&)) {
  return std::any_of(recipe.rules.begin(), recipe.rules.end(), holds);
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  while (true) {
    const size_t bar = std::min(pattern.find('|'), pattern.size());
    if (matches_one(pattern.substr(0, bar), text)) return true;
    if (bar == pattern.size()) return false;
    pattern.remove_prefix(bar + 1);
  }
}

RecipeRule Recipe::rule_for(std::string_view module, std::string_view other_name) const {
  const auto matches = [&](std::string_view pattern) {
    return matches_pattern(pattern, module) ||
           (!other_name.empty() && matches_pattern(pattern, other_name));
  };
  for (const std::string& pattern : keep_float) {
    if (matches(pattern)) return {pattern, formats::Scheme::kFloat};
  }
  for (const RecipeRule& rule : rules) {
    if (matches(rule.match)) return rule;
  }
  return {"", formats::Scheme::kFloat};
}

bool Recipe::has_static_activations() const {
  return any_rule(*this, [](const RecipeRule& rule) {
    return formats::has_tensor(rule.scheme, ".input_scale");
  });
}

bool Recipe::changes_weights() const {
  return smooth.has_value() || rotate || any_rule(*this, [](const RecipeRule& rule) {
           return quant::looks_at_inputs(rule.method);
         });
}

bool Recipe::needs_calibration() const {
  return has_static_activations() || changes_weights() || attention != formats::Scheme::kFloat;
}

bool Recipe::shifts(formats::Role norm) const {
  if (!smooth || smooth->method != "m2") return false;
  const auto& chosen = smooth->subgraphs;
  const auto has = [&](std::string_view subgraph) {
    return chosen.empty() || std::find(chosen.begin(), chosen.end(), subgraph) != chosen.end();
  };
  return (norm == formats::Role::kInputNorm && has("norm_qkv")) ||
         (norm == formats::Role::kPostAttentionNorm && has("norm_gate_up"));
}

formats::Scheme Recipe::main_scheme() const {
  if (model_quant_type) return *model_quant_type;
  formats::Scheme main = formats::Scheme::kFloat;
  for (const RecipeRule& rule : rules) {
    if (formats::scheme_row(rule.scheme).priority > formats::scheme_row(main).priority)
      main = rule.scheme;
  }
  return main;
}

int64_t Recipe::group_size() const {
  int64_t largest = 0;
  for (const RecipeRule& rule : rules) largest = std::max(largest, rule.group_size);
  return largest;
}

const Recipe& builtin_recipe(std::string_view type) {
  for (const auto& [refused, why] : kRefusedTypes) {
    if (type == refused) throw formats::usage_error(fmt::format("type {}: {}", type, why));
  }
  std::string list;
  for (const Recipe& recipe : builtin_recipes()) {
    if (recipe.name == type) return recipe;
    list += fmt::format("\n  {:<34} {}", recipe.name, recipe.summary);
  }
  throw formats::usage_error(fmt::format("unknown type \"{}\"; known types are:{}", type, list));
}

quant::WeightSpec weight_spec(const RecipeRule& rule, formats::DType model_dtype) {
  const formats::SchemeRow& scheme = formats::scheme_row(rule.scheme);
  quant::WeightSpec spec;
  spec.format = {scheme.weight_bits, rule.symmetric, std::nullopt};
  if (scheme.rounds_weight_scale) spec.format.scale_dtype = model_dtype;
  spec.group_size = rule.group_size;
  spec.method = rule.method;
  return spec;
}

void apply_disable_names(Recipe& recipe, std::string_view names) {
  if (names.starts_with('+')) {
    names.remove_prefix(1);
  } else {
    recipe.keep_float.clear();
  }
  while (!names.empty()) {
    const size_t comma = std::min(names.find(','), names.size());
    std::string_view name = names.substr(0, comma);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (!name.empty()) recipe.keep_float.emplace_back(name);
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
}

}  // namespace llmq::convert
