#include "convert/pipeline/recipe_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "formats/architecture.h"
#include "formats/attention_tensors.h"
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

/// The layers whose MLP is a mixture of experts.
int64_t count_moe_layers(const formats::ModelConfig& config) {
  int64_t n = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) n += config.is_moe_layer(layer) ? 1 : 0;
  return n;
}

bool is_mlp_subgraph(std::string_view name) {
  return name == "norm_gate_up" || name == "up_down";
}

void check_smoothing(const formats::ModelConfig& config, const Recipe& recipe, Ledger& ledger) {
  const int64_t n_moe_layers = count_moe_layers(config);
  if (!recipe.smooth || n_moe_layers == 0) return;
  const auto& chosen = recipe.smooth->subgraphs;
  const auto named = std::find_if(chosen.begin(), chosen.end(), is_mlp_subgraph);
  if (named != chosen.end()) {
    throw formats::usage_error(
        fmt::format("recipe {}: experts are not smoothed, but \"{}\" is among its subgraphs and {} "
                    "of {} layers "
                    "of this model have experts; name norm_qkv and v_o alone, or no subgraphs",
                    recipe.name, *named, n_moe_layers, config.n_layers));
  }
  if (!chosen.empty()) return;
  ledger.warnings.push_back(fmt::format(
      "smoothing ({}) leaves the experts of {} layers as they are; attention is smoothed in all "
      "layers",
      recipe.smooth->method, n_moe_layers));
}

void check_rotation(const formats::ModelConfig& config, const Recipe& recipe, bool keep_tied,
                    Ledger& ledger) {
  if (!recipe.rotate) return;
  if (config.n_experts > 0) {
    throw formats::usage_error(fmt::format(
        "recipe {}: models with experts are not rotated; leave \"rotate\" out", recipe.name));
  }
  if (!config.tie_word_embeddings) return;
  if (keep_tied) {
    throw formats::usage_error(
        fmt::format("recipe {}: rotation gives lm_head other values than the embedding that it is "
                    "tied to; leave --keep-tied or \"rotate\" out",
                    recipe.name));
  }
  ledger.warnings.emplace_back(
      "rotation unties lm_head from the embedding: it is written on its own, and config.json says "
      "tie_word_embeddings false");
}

}  // namespace

void check_transformations(const formats::ModelConfig& config, const Recipe& recipe, bool keep_tied,
                           Ledger& ledger) {
  check_rotation(config, recipe, keep_tied, ledger);
  check_smoothing(config, recipe, ledger);
  if (recipe.attention == Scheme::kFloat) return;
  if (!formats::attention_tensors(config, recipe.attention, 0, formats::DType::kF16).empty())
    return;
  throw formats::usage_error(fmt::format(
      "recipe {}: asks for {} attention, but q, k and v of family {} are one matrix, and no engine "
      "names scales of its parts; leave \"attention\" ({}) out",
      recipe.name, formats::scheme_row(recipe.attention).tag,
      formats::architecture_of(config).family,
      recipe.attention == Scheme::kC8 ? "-use_kvcache_quant False" : "-use_fa_quant False"));
}

void check_statistics_use(const Recipe& recipe, const std::filesystem::path& load,
                          const std::filesystem::path& save) {
  std::vector<std::string> changes;
  if (recipe.smooth)
    changes.push_back(fmt::format("smoothing {} (-anti_method none)", recipe.smooth->method));
  if (recipe.rotate) changes.emplace_back("\"rotate\"");
  if (!save.empty() && !changes.empty()) {
    throw formats::usage_error(fmt::format(
        "--save-stats {}: the recipe {} changes the activations, so that what calibration sees "
        "serves no other run; leave out --save-stats, or {}",
        save.string(), recipe.name, fmt::join(changes, " and ")));
  }
  if (load.empty()) return;
  const bool has_gptq = std::any_of(recipe.rules.begin(), recipe.rules.end(), [](const auto& rule) {
    return quant::looks_at_inputs(rule.method);
  });
  if (has_gptq) changes.emplace_back("GPTQ (--method round)");
  if (recipe.attention == Scheme::kC8) changes.emplace_back("C8 (-use_kvcache_quant False)");
  if (recipe.attention == Scheme::kFaQuant) changes.emplace_back("FAQuant (-use_fa_quant False)");
  if (changes.empty()) return;
  throw formats::usage_error(fmt::format(
      "--stats {}: holds activation ranges alone, but the recipe {} needs the model to be run for "
      "{}; leave out --stats, or {}",
      load.string(), recipe.name, fmt::join(changes, ", "),
      changes.size() == 1 ? "that" : "all of these"));
}

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

void check_shared_parameters(const LinearRule& one, const LinearRule& other) {
  const auto refuse = [&](std::string_view key, const auto& value, const auto& other_value) {
    throw formats::usage_error(
        fmt::format("the recipe gives {} the {} {} and {} {}, but engines load them as one matrix; "
                    "give both the same",
                    one.module, key, value, other.module, other_value));
  };
  if (one.rule.group_size != other.rule.group_size)
    refuse("group_size", one.rule.group_size, other.rule.group_size);
  if (formats::has_tensor(one.rule.scheme, ".input_scale") &&
      one.rule.activation_symmetric != other.rule.activation_symmetric) {
    refuse("activation_symmetric", one.rule.activation_symmetric, other.rule.activation_symmetric);
  }
}

}  // namespace llmq::convert
