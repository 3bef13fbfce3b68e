// A config.json of arbitrary bytes: reading it throws Error{kBadInput} or returns numbers that the
// rest of the program may divide by and multiply; rewriting it keeps every other key in its place.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "formats/error.h"
#include "formats/json.h"
#include "formats/model_config.h"

namespace {

using llmq::formats::Json;
using llmq::formats::ModelConfig;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void check_config(const ModelConfig& config) {
  require(config.hidden_size > 0 && config.n_layers > 0 && config.vocab_size > 0);
  require(config.n_heads > 0 && config.n_kv_heads > 0);
  require(config.n_heads % config.n_kv_heads == 0);
  require(config.head_dim > 0 && config.head_dim % 2 == 0);
  require(config.n_experts >= 0 && config.decoder_sparse_step > 0);
  require(config.rope_scaling.factor >= 1.0);
  (void)config.is_moe_layer(0);
  (void)config.is_moe_layer(config.n_layers - 1);
}

void check_rewrite(const Json& document) {
  const Json rewritten =
      llmq::formats::rewrite_config(document, {{"torch_dtype", "float16"}, {"added", 1}}, {});
  auto key = rewritten.begin();
  for (auto original = document.begin(); original != document.end(); ++original, ++key) {
    require(key.key() == original.key());
    require(key.key() == "torch_dtype" || key.key() == "added" || *key == *original);
  }
  require(rewritten.at("torch_dtype") == "float16" && rewritten.at("added") == 1);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Json document = llmq::formats::parse_json(text, "fuzz input");
    check_config(llmq::formats::parse_model_config(document, "fuzz input"));
    check_rewrite(document);
  } catch (const llmq::formats::Error& error) {
    require(error.code() == llmq::formats::ErrorCode::kBadInput);
  }
  return 0;
}
