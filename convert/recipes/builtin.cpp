#include <string_view>

#include "convert/recipes/recipe.h"

namespace llmq::convert {
namespace {

// One document a type, in the form that --print-recipe shows and --recipe reads.
constexpr std::string_view kBuiltinRecipes = R"json([
  {
    "name": "w8a8",
    "summary": "int8 weights and static int8 activations; any family; lm_head and every down_proj stay float",
    "keep_float": ["lm_head", "*.mlp.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}]
  },
  {
    "name": "qwen_w8a8",
    "summary": "as w8a8, for Qwen",
    "families": ["qwen2", "qwen3"],
    "keep_float": ["lm_head", "*.mlp.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}]
  },
  {
    "name": "qwen2_72b_w8a8",
    "summary": "as w8a8, for Qwen2-72B and Qwen2.5-72B",
    "families": ["qwen2"],
    "keep_float": ["lm_head", "*.mlp.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}]
  },
  {
    "name": "llama3.1_8b_w8a8",
    "summary": "as w8a8, for Llama-3.1-8B",
    "families": ["llama"],
    "keep_float": ["lm_head", "*.mlp.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "caveat": "the smoothing (anti_method m1) of the original recipe is not applied; activations are rounded as they are"
  },
  {
    "name": "w8a16",
    "summary": "int8 weights per output channel, float activations; any family; lm_head stays float",
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W8A16", "symmetric": true}]
  },
  {
    "name": "qwen_w8a16",
    "summary": "as w8a16 for Qwen; lm_head and every down_proj stay float",
    "families": ["qwen2", "qwen3"],
    "keep_float": ["lm_head", "*.mlp.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A16", "symmetric": true}]
  },
  {
    "name": "llama3_70b_w8a16",
    "summary": "asymmetric int8 weights for Llama-3-70B; lm_head and layers 0 to 4 stay float",
    "families": ["llama"],
    "keep_float": ["lm_head", "model.layers.0.*", "model.layers.1.*", "model.layers.2.*",
                   "model.layers.3.*", "model.layers.4.*"],
    "rules": [{"match": "*", "scheme": "W8A16", "symmetric": false}],
    "caveat": "the weight smoothing (anti_method m3) of the original recipe is not applied; weights are rounded as they are"
  }
])json";

std::vector<Recipe> parse_builtin_recipes() {
  std::vector<Recipe> recipes;
  for (const formats::Json& document : formats::parse_json(kBuiltinRecipes, "built-in recipes")) {
    recipes.push_back(parse_recipe(document, "built-in recipe"));
  }
  return recipes;
}

}  // namespace

const std::vector<Recipe>& builtin_recipes() {
  static const std::vector<Recipe> recipes = parse_builtin_recipes();
  return recipes;
}

}  // namespace llmq::convert
