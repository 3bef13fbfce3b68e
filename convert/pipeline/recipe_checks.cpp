#include "convert/pipeline/recipe_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/architecture.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::Scheme;

/// Schemes of linears that this program writes.
constexpr std::array<Scheme, 7> kWritten{Scheme::kFloat,   Scheme::kW8A8,  Scheme::kW8A8Dynamic,
                                         Scheme::kW8A8Mix, Scheme::kW8A16, Scheme::kW4A16,
                                         Scheme::kW8A8S};

void check_rule(const Recipe& recipe, const RecipeRule& rule) {
  const formats::SchemeRow& row = formats::scheme_row(rule.scheme);
  const auto refuse = [&](const std::string& why) {
    throw formats::usage_error(
        fmt::format("recipe {}: \"{}\" asks for {} {}", recipe.name, rule.match, row.tag, why));
  };
  if (std::find(kWritten.begin(), kWritten.end(), rule.scheme) == kWritten.end()) {
    refuse(
        "as the scheme of a linear, which is not written; choose FLOAT, W8A8, W8A8_DYNAMIC, "
        "W8A8_MIX, W8A16, W4A16 or W8A8S");
  }
  if (row.activation_bits == 8 && (!rule.symmetric || rule.group_size > 0))
    refuse("that is not symmetric per channel, which engines cannot run");
  if (rule.method.sparse.has_value() != (rule.scheme == Scheme::kW8A8S))
    refuse(rule.method.sparse ? "with \"sparse\", which W8A8S alone has" : "without \"sparse\"");
  if (rule.group_size > 0 && rule.group_size != recipe.group_size()) {
    throw formats::usage_error(
        fmt::format("recipe {}: has the group sizes {} and {}, but the description of a "
                    "checkpoint holds one; choose one of them",
                    recipe.name, rule.group_size, recipe.group_size()));
  }
}

}  // namespace

void check_schemes(const Recipe& recipe) {
  for (const RecipeRule& rule : recipe.rules) check_rule(recipe, rule);
}

void check_sparse_dtype(const Recipe& recipe, formats::DType model_dtype) {
  if (model_dtype == formats::DType::kF16) return;
  for (const RecipeRule& rule : recipe.rules) {
    if (rule.scheme != Scheme::kW8A8S) continue;
    throw formats::usage_error(
        fmt::format("recipe {}: sparse weights are run in float16 only, not {}; leave --dtype out "
                    "or give float16",
                    recipe.name, formats::torch_dtype_name(model_dtype)));
  }
}

void check_rotation(const formats::Checkpoint& source, const formats::ModelConfig& config,
                    const Recipe& recipe) {
  if (!recipe.rotate || !config.may_lack_head() || source.find("lm_head.weight") != nullptr) return;
  throw formats::usage_error(
      fmt::format("recipe {}: rotates the hidden states, which this model without a head gives as "
                  "embeddings; choose a type without rotation",
                  recipe.name));
}

void check_family(const formats::ModelConfig& config, const Recipe& recipe, Ledger& ledger) {
  const formats::Architecture& architecture = formats::architecture_of(config);
  const auto& families = recipe.families;
  if (families.empty() ||
      std::find(families.begin(), families.end(), architecture.family) != families.end())
    return;
  std::vector<std::string> patterns = recipe.keep_float;
  for (const RecipeRule& rule : recipe.rules) patterns.push_back(rule.match);
  for (const std::string& pattern : patterns) {
    const bool found =
        std::any_of(ledger.entries.begin(), ledger.entries.end(), [&](const LedgerEntry& entry) {
          return matches_pattern(pattern, entry.module) ||
                 matches_pattern(pattern, formats::table_name(config, entry.module)) ||
                 pattern == "lm_head";
        });
    if (!found) {
      throw formats::usage_error(
          fmt::format("type {} was made for {}; its pattern \"{}\" matches nothing in this {} "
                      "model; choose a family-neutral type",
                      recipe.name, fmt::join(families, ", "), pattern, architecture.family));
    }
  }
  ledger.warnings.push_back(
      fmt::format("type {} was made for {}; every pattern matches this {} model, so it is used",
                  recipe.name, fmt::join(families, ", "), architecture.family));
}

}  // namespace llmq::convert
