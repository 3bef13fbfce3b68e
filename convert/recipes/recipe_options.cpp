#include "convert/recipes/recipe_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::Scheme;
using formats::usage_error;

constexpr std::array<std::string_view, 5> kSmoothMethods{"m1", "m2", "m3", "m4", "m6"};

/// What -w_bit and -a_bit ask for.
struct BitsRow {
  int weight_bits;
  int activation_bits;
  Scheme scheme;
};
constexpr std::array<BitsRow, 4> kSchemesByBits{{{8, 8, Scheme::kW8A8},
                                                 {8, 16, Scheme::kW8A16},
                                                 {4, 16, Scheme::kW4A16},
                                                 {4, 8, Scheme::kW8A8S}}};

/// A model's best practice: the quantization type of other tools' lists and the recipe behind it.
struct BestPractice {
  std::string_view model_type;  ///< pattern, compared without regard to case
  std::string_view quant_type;
  std::string_view recipe;
};
constexpr std::array<BestPractice, 12> kBestPractices{{
    {"qwen3-*-a*", "w8a8", "qwen3_moe_w8a8"},
    {"qwen3*", "w8a8", "w8a8_mix"},
    {"qwen3*", "w8a8c8", "qwen2p5_72b_w8a8c8_pdmix"},
    {"qwen3*", "w8a8s", "qwen_w8a8s"},
    {"qwen3*", "w8a16", "qwen_w8a16"},
    {"qwen*", "w8a8", "qwen_w8a8"},
    {"qwen*", "w8a8s", "qwen_w8a8s"},
    {"qwen*", "w8a16", "qwen_w8a16"},
    {"qwen*", "w4a16", "qwen_w4a16"},
    {"qwen2.5-14b*", "w8a8c8", "qwen2p5_14b_w8a8c8_pdmix"},
    {"qwen2.5-72b*", "w8a8c8", "qwen2p5_72b_w8a8c8_pdmix"},
    {"llama3.1-8b*", "w8a8", "llama3.1_8b_w8a8"},
}};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

void apply_bits(const RecipeOptions& options, Recipe& recipe) {
  if (!options.weight_bits && !options.activation_bits) return;
  const formats::SchemeRow& main = formats::scheme_row(recipe.main_scheme());
  const bool is_sparse = main.scheme == Scheme::kW8A8S;
  const int weight_bits = options.weight_bits.value_or(is_sparse ? 4 : main.weight_bits);
  const int activation_bits = options.activation_bits.value_or(main.activation_bits);
  if (!options.weight_bits || !options.activation_bits) {
    const bool is_same = weight_bits == (is_sparse ? 4 : main.weight_bits) &&
                         activation_bits == main.activation_bits;
    if (is_same) return;
  }
  const auto row = std::find_if(kSchemesByBits.begin(), kSchemesByBits.end(), [&](const auto& r) {
    return r.weight_bits == weight_bits && r.activation_bits == activation_bits;
  });
  if (row == kSchemesByBits.end()) {
    throw usage_error(fmt::format(
        "-w_bit {} with -a_bit {} is no scheme; 8 and 8, 8 and 16, 4 and 16, 4 and 8 (sparse) are",
        weight_bits, activation_bits));
  }
  for (RecipeRule& rule : recipe.rules) {
    const formats::SchemeRow& own = formats::scheme_row(rule.scheme);
    const int own_bits = rule.scheme == Scheme::kW8A8S ? 4 : own.weight_bits;
    const bool is_there = own.activation_bits == activation_bits && own_bits == weight_bits;
    if (rule.scheme == Scheme::kFloat || is_there) continue;
    rule.scheme = row->scheme;
    if (activation_bits == 8) rule.group_size = 0;
    if (row->scheme == Scheme::kW8A8S && !rule.method.sparse) rule.method.sparse.emplace();
    if (row->scheme != Scheme::kW8A8S) rule.method.sparse.reset();
  }
  recipe.model_quant_type.reset();
  // Engines run sparse weights in float16 alone.
  if (row->scheme == Scheme::kW8A8S) recipe.dtype = formats::DType::kF16;
}

void apply_sparse(const RecipeOptions& options, Recipe& recipe) {
  const bool is_asked_for = options.fraction || options.sigma_factor || options.use_sigma ||
                            options.co_sparse || options.is_lowbit;
  if (!is_asked_for) return;
  bool is_sparse = false;
  for (RecipeRule& rule : recipe.rules) {
    if (!rule.method.sparse) continue;
    is_sparse = true;
    quant::SparseSpec& sparse = *rule.method.sparse;
    sparse.fraction = options.fraction.value_or(sparse.fraction);
    sparse.sigma_factor = options.sigma_factor.value_or(sparse.sigma_factor);
    sparse.use_sigma = options.use_sigma.value_or(sparse.use_sigma);
    sparse.co_sparse = options.co_sparse.value_or(sparse.co_sparse);
    if (options.is_lowbit.value_or(false)) sparse.co_sparse = false;
  }
  if (!is_sparse) {
    throw usage_error(
        "-fraction, -sigma_factor, -use_sigma, -co_sparse and -is_lowbit belong to sparse types "
        "(w8a8s); this recipe has none");
  }
}

void apply_attention(const RecipeOptions& options, Recipe& recipe) {
  if (options.use_kvcache_quant.value_or(false) && options.use_fa_quant.value_or(false))
    throw usage_error("-use_kvcache_quant and -use_fa_quant exclude each other; choose one");
  const auto apply = [&recipe](const std::optional<bool>& choice, Scheme attention) {
    if (choice.value_or(false)) {
      recipe.attention = attention;
    } else if (choice && recipe.attention == attention) {
      recipe.attention = Scheme::kFloat;
    }
  };
  apply(options.use_kvcache_quant, Scheme::kC8);
  apply(options.use_fa_quant, Scheme::kFaQuant);
}

void apply_smoothing(const RecipeOptions& options, Recipe& recipe) {
  if (options.do_smooth.value_or(false) && !recipe.smooth)
    recipe.smooth = SmoothRecipe{"m1", std::nullopt, std::nullopt, {}};
  if (!options.anti_method) return;
  if (options.anti_method->empty() || *options.anti_method == "none") {
    recipe.smooth.reset();
    return;
  }
  const std::string method = lower(*options.anti_method);
  try {
    require_smooth_method(method, "-anti_method");
  } catch (const formats::Error& error) {
    throw usage_error(error.what());
  }
  if (recipe.smooth && recipe.smooth->method == method) return;
  recipe.smooth = SmoothRecipe{method, std::nullopt, std::nullopt, {}};
}

void apply_weight_method(const std::string& name, Recipe& recipe) {
  using Kind = quant::WeightMethod::Kind;
  const Kind kind = name == "gptq" ? Kind::kGptq : name == "ssz" ? Kind::kSsz : Kind::kRound;
  if (kind == Kind::kRound && name != "round")
    throw usage_error(fmt::format("--method {}: is none of round, ssz, gptq", name));
  for (RecipeRule& rule : recipe.rules) {
    rule.method.kind = kind;
    rule.method.clip = kind == Kind::kGptq && !rule.method.sparse;
    rule.method.n_refine_sweeps = kind == Kind::kGptq ? 4 : 0;
  }
}

}  // namespace

void require_smooth_method(const std::string& method, const std::string& origin) {
  if (std::find(kSmoothMethods.begin(), kSmoothMethods.end(), method) != kSmoothMethods.end())
    return;
  if (method == "m5") {
    throw formats::bad_input(
        origin + ": m5 (cross-block quantization) is not offered; m4 and m6 serve the same end");
  }
  throw formats::bad_input(
      fmt::format("{}: unknown method \"{}\"; known are m1, m2, m3, m4, m6", origin, method));
}

void apply_options(const RecipeOptions& options, Recipe& recipe) {
  if (options.disable_names) apply_disable_names(recipe, *options.disable_names);
  if (options.act_method) recipe.act_method = static_cast<quant::ActMethod>(*options.act_method);
  if (options.disable_level) recipe.disable_level = *options.disable_level;
  apply_bits(options, recipe);
  for (RecipeRule& rule : recipe.rules) {
    if (options.weight_symmetric) rule.symmetric = *options.weight_symmetric;
    const bool is_weight_only = formats::scheme_row(rule.scheme).activation_bits == 16;
    if (options.group_size && is_weight_only && rule.scheme != Scheme::kFloat)
      rule.group_size = *options.group_size;
  }
  apply_sparse(options, recipe);
  apply_attention(options, recipe);
  apply_smoothing(options, recipe);
  if (options.weight_method) apply_weight_method(*options.weight_method, recipe);
}

Recipe best_practice(const std::string& model_type, const std::string& quant_type) {
  const std::string model = lower(model_type);
  const std::string type = lower(quant_type);
  for (const BestPractice& practice : kBestPractices) {
    if (practice.quant_type == type && matches_pattern(practice.model_type, model))
      return builtin_recipe(practice.recipe);
  }
  return builtin_recipe(type);
}

}  // namespace llmq::convert
