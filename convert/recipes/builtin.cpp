#include <string_view>

#include "convert/recipes/recipe.h"

namespace llmq::convert {
namespace {

// One document a type, in the form that --print-recipe shows and --recipe reads. "*.down_proj" is
// the last linear of an MLP, "*.mlp.c_proj" the same one in Qwen of the first generation.
constexpr std::string_view kNeutralRecipes = R"json([
  {
    "name": "w8a8",
    "summary": "int8 weights and static int8 activations; any family; lm_head and every down_proj stay float",
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}]
  },
  {
    "name": "w8a8_dynamic",
    "summary": "int8 weights, activations quantized token by token; any family; lm_head stays float",
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W8A8_DYNAMIC"}]
  },
  {
    "name": "w8a8_mix",
    "summary": "int8; prefill token by token, decode static (pdmix), smoothed (m4); any family; lm_head stays float",
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W8A8_MIX"}],
    "smooth": {"method": "m4"}
  },
  {
    "name": "w8a8s",
    "summary": "sparse int8 weights on a 4-bit grid (GPTQ), static int8 activations, float16; any family; lm_head and every down_proj stay float",
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A8S", "method": "gptq", "refine_sweeps": 4,
               "sparse": {"fraction": 0.011, "use_sigma": false}}],
    "dtype": "float16"
  },
  {
    "name": "w8a16",
    "summary": "int8 weights per output channel, float activations; any family; lm_head stays float",
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W8A16", "symmetric": true}]
  },
  {
    "name": "w4a16",
    "summary": "int4 weights (GPTQ) per output channel, or -group_size; any family; lm_head stays float",
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W4A16", "method": "gptq", "clip": true, "refine_sweeps": 4}]
  },
  {
    "name": "w8a8c8",
    "summary": "as w8a8, and an int8 KV cache",
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "attention": "C8"
  }
])json";

constexpr std::string_view kQwenRecipes = R"json([
  {
    "name": "qwen_w8a8",
    "summary": "as w8a8, for Qwen",
    "families": ["qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"],
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}]
  },
  {
    "name": "qwen_w8a8s",
    "summary": "sparse int8 weights (low-bit, 3 sigma), static int8 activations, float16, for Qwen",
    "families": ["qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"],
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A8S", "method": "gptq", "refine_sweeps": 4,
               "sparse": {"fraction": 0.011, "use_sigma": true}}],
    "dtype": "float16"
  },
  {
    "name": "qwencode_w8a8s",
    "summary": "sparse int8 weights (co-sparse, fraction 0.02), static int8 activations, float16, for Qwen coder models",
    "families": ["qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"],
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A8S", "sparse": {"fraction": 0.02, "use_sigma": true, "co_sparse": true}}],
    "dtype": "float16"
  },
  {
    "name": "qwen_w8a16",
    "summary": "as w8a16 for Qwen; lm_head and every down_proj stay float",
    "families": ["qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"],
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W8A16", "symmetric": true}]
  },
  {
    "name": "qwen_w4a16",
    "summary": "int4 weights (GPTQ) per output channel, or -group_size 64|128, for Qwen; lm_head and every down_proj stay float",
    "families": ["qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"],
    "keep_float": ["lm_head", "*.down_proj|*.mlp.c_proj"],
    "rules": [{"match": "*", "scheme": "W4A16", "method": "gptq", "clip": true, "refine_sweeps": 4}]
  },
  {
    "name": "qwen2_72b_w8a8",
    "summary": "as w8a8, for Qwen2-72B and Qwen2.5-72B",
    "families": ["qwen2"],
    "keep_float": ["lm_head", "*.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}]
  },
  {
    "name": "qwen2_72b_w8a8c8",
    "summary": "as qwen2_72b_w8a8, and an int8 KV cache",
    "families": ["qwen2"],
    "keep_float": ["lm_head", "*.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "attention": "C8"
  },
  {
    "name": "qwen2_72b_w8a8s",
    "summary": "as qwen_w8a8s, for Qwen2-72B and Qwen2.5-72B",
    "families": ["qwen2"],
    "keep_float": ["lm_head", "*.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8S", "method": "gptq", "refine_sweeps": 4,
               "sparse": {"fraction": 0.011, "use_sigma": true}}],
    "dtype": "float16"
  },
  {
    "name": "qwen2p5_14b_w8a8c8_pdmix",
    "summary": "int8, prefill token by token, decode static, int8 KV cache, smoothed (m6); lm_head and outlying down_proj stay float",
    "families": ["qwen2"],
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W8A8_MIX"}],
    "act_method": 3,
    "disable_threshold": 1.0,
    "disable_candidates": ["*.down_proj"],
    "smooth": {"method": "m6", "alpha": 0.6, "beta": 0.3, "subgraphs": ["norm_qkv", "norm_gate_up", "up_down"]},
    "attention": "C8"
  },
  {
    "name": "qwen2p5_72b_w8a8c8_pdmix",
    "summary": "as qwen2p5_14b_w8a8c8_pdmix, for Qwen2.5-72B",
    "families": ["qwen2", "qwen3"],
    "keep_float": ["lm_head"],
    "rules": [{"match": "*", "scheme": "W8A8_MIX"}],
    "act_method": 3,
    "disable_threshold": 1.0,
    "disable_candidates": ["*.down_proj"],
    "smooth": {"method": "m6", "alpha": 0.6, "beta": 0.3, "subgraphs": ["norm_qkv", "norm_gate_up", "up_down"]},
    "attention": "C8"
  },
  {
    "name": "qwen2p5_fa3",
    "summary": "as w8a8, and quantized attention (FAQuant), for Qwen2.5",
    "families": ["qwen2", "qwen3"],
    "keep_float": ["lm_head", "*.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "attention": "FAQuant"
  },
  {
    "name": "qwen3_moe_w8a8",
    "summary": "experts token by token, attention static, router and lm_head float, for Qwen mixtures of experts",
    "families": ["qwen2_moe", "qwen3_moe"],
    "keep_float": ["lm_head"],
    "rules": [{"match": "*.mlp.*", "scheme": "W8A8_DYNAMIC"}, {"match": "*", "scheme": "W8A8"}],
    "smooth": {"method": "m4", "subgraphs": ["norm_qkv", "v_o"]},
    "model_quant_type": "W8A8_DYNAMIC"
  }
])json";

constexpr std::string_view kLlamaRecipes = R"json([
  {
    "name": "llama3.1_8b_w8a8",
    "summary": "as w8a8, smoothed (m1), for Llama-3.1-8B",
    "families": ["llama"],
    "keep_float": ["lm_head", "*.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "smooth": {"method": "m1"}
  },
  {
    "name": "llama3.1_70b_instruct_fp16_w8a8",
    "summary": "as w8a8, smoothed (m4), automatic ranges, float16; layers 0 to 4 stay float as well",
    "families": ["llama"],
    "keep_float": ["lm_head", "*.down_proj", "model.layers.0.*", "model.layers.1.*", "model.layers.2.*",
                   "model.layers.3.*", "model.layers.4.*"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "act_method": 3,
    "smooth": {"method": "m4"},
    "dtype": "float16"
  },
  {
    "name": "llama3.1_70b_instruct_bf16_w8a8",
    "summary": "as w8a8, smoothed (m3), automatic ranges, bfloat16; the five widest linears stay float as well",
    "families": ["llama"],
    "keep_float": ["lm_head", "*.down_proj"],
    "rules": [{"match": "*", "scheme": "W8A8"}],
    "act_method": 3,
    "disable_level": 5,
    "smooth": {"method": "m3"},
    "dtype": "bfloat16"
  },
  {
    "name": "llama3_70b_w8a16",
    "summary": "asymmetric int8 weights, smoothed (m3), for Llama-3-70B; lm_head and layers 0 to 4 stay float",
    "families": ["llama"],
    "keep_float": ["lm_head", "model.layers.0.*", "model.layers.1.*", "model.layers.2.*",
                   "model.layers.3.*", "model.layers.4.*"],
    "rules": [{"match": "*", "scheme": "W8A16", "symmetric": false}],
    "smooth": {"method": "m3"}
  }
])json";

std::vector<Recipe> parse_builtin_recipes() {
  std::vector<Recipe> recipes;
  for (const std::string_view documents : {kNeutralRecipes, kQwenRecipes, kLlamaRecipes}) {
    for (const formats::Json& document : formats::parse_json(documents, "built-in recipes"))
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
