// Models with C8 or FAQuant, from calibration to logits.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "formats/attention_tensors.h"
#include "formats/description.h"
#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/attention/code_sums.h"
#include "runtime/calibrate/calibrator.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/isa_process.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::AttentionOperand;
using formats::DType;
using formats::Json;
using formats::Scheme;
using ::testing::HasSubstr;

constexpr const char* kModel = "LLMQ_TEST_KV_MODEL";
constexpr const char* kGolden = "qwen3-head-dim";

std::vector<int32_t> some_tokens(size_t n) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>(i % 61 * 29 % 83);
  return tokens;
}

/// A golden model whose attention scales were calibrated on one short text.
struct QuantizedFolder {
  testing::TemporaryFolder place;
  Json config;
  testing::NewTensors tensors;
  Json description{{"model_quant_type", "FLOAT"}, {"version", "1.0.0"}, {"group_size", 0}};

  explicit QuantizedFolder(Scheme scheme, const char* golden = kGolden)
      : config(formats::read_json_file(testing::golden_root() / golden / "config.json")),
        tensors(testing::read_tensors(testing::golden_root() / golden)) {
    config["max_position_embeddings"] = 4096;
    for (const auto& [name, tensor] : tensors) description[name] = "FLOAT";
    testing::write_model(place.path(), config, tensors);
    const formats::ModelConfig model = formats::read_model_config(place.path());
    const formats::Checkpoint checkpoint = formats::Checkpoint::open(place.path());
    quant::ThreadTeam team(2);
    CalibratorOptions options;
    options.with_kv_scales = scheme == Scheme::kC8;
    options.with_fa_scales = scheme == Scheme::kFaQuant;
    Calibrator calibrator({&checkpoint, &model, nullptr}, {some_tokens(64)}, options, team);
    for (int64_t layer = 0; layer < model.n_layers; ++layer) {
      calibrator.advance();
      for (const auto& tensor : formats::attention_tensors(model, scheme, layer, DType::kBF16))
        add(tensor, calibrator.attention_statistics());
    }
    if (scheme == Scheme::kC8) {
      description["kv_cache_type"] = description["kv_quant_type"] = "C8";
    } else {
      description["fa_quant_type"] = "FAQuant";
    }
    write();
  }

  void write() const {
    testing::write_model(place.path(), config, tensors);
    formats::write_text_file(place.path() / formats::kDescriptionFile, description.dump());
  }

 private:
  void add(const formats::AttentionTensor& tensor, const AttentionStatistics& statistics) {
    std::vector<float> scales;
    if (statistics.kv) {
      const auto kv = quant::kv_cache_scales(*statistics.kv, DType::kBF16);
      const bool is_key = tensor.operand == AttentionOperand::kKey;
      scales = !tensor.is_scale ? (is_key ? kv.key_offset : std::vector<float>{})
               : is_key         ? kv.key
                                : kv.value;
    } else if (tensor.is_scale) {
      const auto fa = quant::fa_head_scales(*statistics.fa, DType::kBF16);
      scales = tensor.operand == AttentionOperand::kQuery ? fa.q
               : tensor.operand == AttentionOperand::kKey ? fa.k
                                                          : fa.v;
    }
    tensors[tensor.name] = {tensor.dtype, tensor.shape,
                            formats::encode_attention_tensor(tensor, scales)};
    description[tensor.name] = tensor.tag;
  }
};

std::vector<float> logits_of(const std::filesystem::path& folder, const ModelOptions& options) {
  return testing::all_logits(*Model::load(folder, options), some_tokens(150));
}

double root_mean_square(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

TEST(AttentionScales, logits_are_near_the_float_models_and_do_not_depend_on_chunks) {
  const testing::TemporaryFolder place;
  for (const Scheme scheme : {Scheme::kC8, Scheme::kFaQuant}) {
    const QuantizedFolder folder(scheme);
    testing::write_model(place.path(), folder.config,
                         testing::read_tensors(testing::golden_root() / kGolden));
    const std::vector<float> exact = logits_of(place.path(), {.n_threads = 1});
    const std::vector<float> got = logits_of(folder.place.path(), {.n_threads = 1});
    const std::vector<float> zeros(exact.size(), 0.0F);
    EXPECT_NE(got, exact);
    // Codes of 7 bits and a sign: steps of 1/127 of the largest value, several per head.
    EXPECT_LT(root_mean_square(got, exact), root_mean_square(exact, zeros) * 8 / 127);
    EXPECT_EQ(got,
              logits_of(folder.place.path(), {.n_threads = 3, .page_size = 5, .prefill_chunk = 7}));
    EXPECT_EQ(got, logits_of(folder.place.path(),
                             {.n_threads = 2, .kv_dtype = DType::kI8, .prefill_chunk = 1}));
  }
}

std::vector<float> bf16_values(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    values[i] = formats::bf16_to_float(bits);
  }
  return values;
}

// Their logits say little: where a token's routing is a close call, any change of it is large.
TEST(AttentionScales, layers_with_experts_have_them_too) {
  for (const char* golden : {"qwen2-moe", "qwen3-moe"}) {
    for (const Scheme scheme : {Scheme::kC8, Scheme::kFaQuant}) {
      const QuantizedFolder folder(scheme, golden);
      const formats::ModelConfig config = formats::read_model_config(folder.place.path());
      const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder.place.path());
      const formats::Description description =
          formats::read_description(folder.place.path() / formats::kDescriptionFile);
      quant::ThreadTeam team(1);
      WeightLoader loader({&checkpoint, &config, &description}, team);
      for (int64_t layer = 0; layer < config.n_layers; ++layer) {
        const LayerWeights weights = loader.layer(layer);
        const auto tensors = formats::attention_tensors(config, scheme, layer, config.torch_dtype);
        const std::span<const float> got =
            scheme == Scheme::kC8 ? weights.kv.key_scale : weights.fa.q_scale;
        EXPECT_EQ(std::vector<float>(got.begin(), got.end()),
                  testing::float_values(folder.tensors.at(tensors.front().name)))
            << golden << " " << layer;
      }
    }
  }
}

TEST(AttentionScales, a_family_with_one_matrix_for_q_k_v_has_none) {
  for (const char* kind : {"kv_quant_type", "fa_quant_type"}) {
    const testing::TemporaryFolder place;
    const auto golden = testing::golden_root() / "qwen";
    const testing::NewTensors tensors = testing::read_tensors(golden);
    Json description{{"model_quant_type", "FLOAT"}, {"version", "1.0.0"}};
    for (const auto& [name, tensor] : tensors) description[name] = "FLOAT";
    description[kind] = std::string(kind).starts_with("kv") ? "C8" : "FAQuant";
    testing::write_model(place.path(), formats::read_json_file(golden / "config.json"), tensors);
    formats::write_text_file(place.path() / formats::kDescriptionFile, description.dump());
    try {
      Model::load(place.path());
      FAIL() << kind;
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
      EXPECT_THAT(error.what(), HasSubstr("fused q, k, v"));
    }
  }
}

// The scales come from 64 positions. What clips is off by more than half a step.
TEST(AttentionScales, keys_far_beyond_the_calibrated_length_do_not_clip) {
  const QuantizedFolder folder(Scheme::kC8);
  const testing::TemporaryFolder place;
  testing::write_model(place.path(), folder.config,
                       testing::read_tensors(testing::golden_root() / kGolden));
  const std::vector<int32_t> tokens = some_tokens(4096);
  const auto exact_model = Model::load(place.path(), {.n_threads = 2, .kv_dtype = DType::kF32});
  const auto model = Model::load(folder.place.path(), {.n_threads = 2});
  Sequence exact = exact_model->new_sequence();
  Sequence coded = model->new_sequence();
  const BatchItem exact_item{&exact, tokens};
  const BatchItem coded_item{&coded, tokens};
  exact_model->forward({&exact_item, 1});
  model->forward({&coded_item, 1});
  const formats::ModelConfig& config = model->config();
  const auto bytes = [&](const char* part) {
    return folder.tensors.at("model.layers.0.self_attn.k_proj.kv_cache_" + std::string(part)).bytes;
  };
  const std::vector<float> scale = bf16_values(bytes("scale"));
  const std::vector<float> offset = bf16_values(bytes("offset"));
  int64_t n_asymmetric = 0;
  for (int64_t lane = 0; lane < config.n_kv_heads * config.head_dim; ++lane) {
    const int64_t head = lane / config.head_dim;
    const auto at = static_cast<size_t>(lane);
    n_asymmetric += offset[at] != 0.0F ? 1 : 0;
    double worst = 0.0;
    for (int64_t position = 0; position < 4096; ++position) {
      const int8_t* codes = coded.cache().key_codes(0, head, position);
      const int64_t slot = position % model->options().page_size;
      const auto* keys = reinterpret_cast<const float*>(exact.cache().keys(0, head, position).data);
      const int64_t i = lane % config.head_dim;
      const int8_t code = codes[quant::key_code_offset(slot, i, (config.head_dim + 1) / 2)];
      const double error = (code - static_cast<double>(offset[at])) * scale[at] - keys[i];
      worst = std::max(worst, std::abs(error) / scale[at]);
    }
    EXPECT_LE(worst, 0.5 + 1e-4) << lane;
  }
  EXPECT_GT(n_asymmetric, 0);
}

std::string load_error(const QuantizedFolder& folder, const ModelOptions& options = {}) {
  folder.write();
  try {
    Model::load(folder.place.path(), options);
  } catch (const formats::Error& error) {
    return error.what();
  }
  return "";
}

TEST(AttentionScales, what_does_not_fit_together_is_refused) {
  const std::string scale = "model.layers.1.self_attn.k_proj.kv_cache_scale";
  const std::string offset = "model.layers.0.self_attn.v_proj.kv_cache_offset";
  QuantizedFolder folder(Scheme::kC8);
  EXPECT_EQ(load_error(folder), "");
  const testing::NewTensor good = folder.tensors.at(scale);
  folder.tensors.erase(scale);
  EXPECT_THAT(load_error(folder), HasSubstr(scale));
  folder.tensors[scale] = good;
  std::fill_n(folder.tensors[scale].bytes.begin(), 2, std::byte{0});
  EXPECT_THAT(load_error(folder), HasSubstr(scale));
  folder.tensors[scale] = good;
  folder.tensors[offset].bytes[1] = std::byte{0x3f};  // 0.5
  EXPECT_THAT(load_error(folder), HasSubstr(offset));
  folder.description["fa_quant_type"] = "FAQuant";
  EXPECT_THAT(load_error(folder), HasSubstr("exclude each other"));
}

TEST(AttentionScales, an_int8_cache_without_scales_is_a_usage_error) {
  try {
    Model::load(testing::golden_root() / kGolden, {.kv_dtype = DType::kI8});
    FAIL();
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("C8"));
  }
}

TEST(IsaAttentionScales, logits_have_the_same_bits_on_every_instruction_set) {
  if (testing::isa_child_output() != nullptr) {
    const std::vector<float> logits = logits_of(std::getenv(kModel), {.n_threads = 2});
    testing::write_isa_result(
        {reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float)});
    return;
  }
  for (const Scheme scheme : {Scheme::kC8, Scheme::kFaQuant}) {
    const QuantizedFolder folder(scheme);
    testing::expect_same_result_on_every_isa(
        "IsaAttentionScales.logits_have_the_same_bits_on_every_instruction_set",
        {{kModel, folder.place.path().string()}});
  }
}

}  // namespace
}  // namespace llmq::runtime
