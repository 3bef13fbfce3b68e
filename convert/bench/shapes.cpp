#include "convert/bench/shapes.h"

#include <array>
#include <cstdint>

#include "formats/error.h"

namespace llmq::convert {
namespace {

struct Shape {
  std::string_view name;
  std::string_view model_type;
  int64_t hidden;
  int64_t intermediate;
  int64_t layers;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t vocabulary;
  bool is_tied;
};

constexpr std::array kShapes{
    Shape{"tiny", "qwen2", 64, 160, 2, 4, 2, 16, 512, true},
    Shape{"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 64, 151936, true},
    Shape{"qwen2.5-1.5b", "qwen2", 1536, 8960, 28, 12, 2, 128, 151936, true},
    Shape{"qwen2.5-3b", "qwen2", 2048, 11008, 36, 16, 2, 128, 151936, true},
    Shape{"qwen2.5-7b", "qwen2", 3584, 18944, 28, 28, 4, 128, 152064, false},
    Shape{"qwen3-0.6b", "qwen3", 1024, 3072, 28, 16, 8, 128, 151936, true},
    Shape{"qwen3-1.7b", "qwen3", 2048, 6144, 28, 16, 8, 128, 151936, true},
    Shape{"qwen3-4b", "qwen3", 2560, 9728, 36, 32, 8, 128, 151936, true},
    Shape{"qwen3-8b", "qwen3", 4096, 12288, 36, 32, 8, 128, 151936, false},
    Shape{"llama3.1-8b", "llama", 4096, 14336, 32, 32, 8, 128, 128256, false},
};

}  // namespace

std::vector<std::string_view> bench_shape_names() {
  std::vector<std::string_view> names;
  names.reserve(kShapes.size());
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return names;
}

formats::Json bench_shape(std::string_view name) {
  std::string known;
  for (const Shape& shape : kShapes) {
    known += (known.empty() ? "" : ", ") + std::string(shape.name);
    if (shape.name != name) continue;
    return {{"model_type", shape.model_type},
            {"hidden_size", shape.hidden},
            {"intermediate_size", shape.intermediate},
            {"num_hidden_layers", shape.layers},
            {"num_attention_heads", shape.heads},
            {"num_key_value_heads", shape.kv_heads},
            {"head_dim", shape.head_dim},
            {"vocab_size", shape.vocabulary},
            {"max_position_embeddings", 131072},
            {"rms_norm_eps", 1e-6},
            {"rope_theta", 1e6},
            {"hidden_act", "silu"},
            {"tie_word_embeddings", shape.is_tied},
            {"torch_dtype", "bfloat16"}};
  }
  throw formats::usage_error("--shape " + std::string(name) + ": known shapes are " + known +
                             "; --config takes the config.json of any other");
}

}  // namespace llmq::convert
