#include "convert/pipeline/recipe_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/architecture.h"
#include "formats/error.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::Scheme;

/// Schemes that this program writes.
constexpr std::array<Scheme, 4> kWritten{Scheme::kFloat, Scheme::kW8A8, Scheme::kW8A8Dynamic,
                                         Scheme::kW8A16};

}  // namespace

void check_schemes(const Recipe& recipe) {
  for (const RecipeRule& rule : recipe.rules) {
    const formats::SchemeRow& row = formats::scheme_row(rule.scheme);
    const std::string_view tag = row.tag;
    if (std::find(kWritten.begin(), kWritten.end(), rule.scheme) == kWritten.end()) {
      throw formats::usage_error(
          fmt::format("recipe {}: \"{}\" asks for {}, which is read but not written; choose "
                      "FLOAT, W8A8, W8A8_DYNAMIC or W8A16",
                      recipe.name, rule.match, tag));
    }
    if (row.activation_bits == 8 && (!rule.symmetric || rule.group_size > 0)) {
      throw formats::usage_error(
          fmt::format("recipe {}: \"{}\" asks for {} that is not symmetric per channel, which "
                      "engines cannot run",
                      recipe.name, rule.match, tag));
    }
    if (rule.group_size > 0 && rule.group_size != recipe.group_size()) {
      throw formats::usage_error(
          fmt::format("recipe {}: has the group sizes {} and {}, but the description of a "
                      "checkpoint holds one; choose one of them",
                      recipe.name, rule.group_size, recipe.group_size()));
    }
  }
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
          return matches_pattern(pattern, entry.module) || pattern == "lm_head";
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
