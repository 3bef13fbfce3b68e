// What a folder of static W8A8 may and may not hold.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "formats/error.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using ::testing::HasSubstr;
using testing::NewTensor;
using testing::W8A8Folder;

constexpr const char* kFp16 = "qwen2-untied";
constexpr const char* kBf16 = "qwen2-yarn";

const std::string& module_q() {
  static const std::string module = "model.layers.1.self_attn.q_proj";
  return module;
}

std::vector<float> logits_of(const W8A8Folder& folder) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  const auto model = Model::load(place.path());
  return testing::all_logits(*model, std::vector<int32_t>{5, 17, 3, 99});
}

/// The message with which loading fails, empty when it does not; checks the code.
std::string load_error(const W8A8Folder& folder, const ModelOptions& options = {}) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  try {
    Model::load(place.path(), options);
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput) << error.what();
    return error.what();
  }
  return "";
}

/// The message when the tensor `suffix` of one linear is replaced.
std::string error_with(const char* golden, const std::string& suffix, const NewTensor& tensor,
                       const ModelOptions& options = {}) {
  W8A8Folder folder = testing::w8a8_folder(golden);
  folder.tensors.at(module_q() + suffix) = tensor;
  return load_error(folder, options);
}

TEST(StaticW8A8Loading, folders_without_weight_scales_run_to_the_same_logits) {
  for (const char* golden : {kFp16, kBf16}) {
    W8A8Folder folder = testing::w8a8_folder(golden);
    const std::vector<float> want = logits_of(folder);
    for (const auto& [module, linear] : folder.linears) {
      for (const char* suffix : {".weight_scale", ".weight_offset"}) {
        folder.tensors.erase(module + suffix);
        folder.description.erase(module + suffix);
      }
    }
    EXPECT_EQ(logits_of(folder), want);
  }
}

TEST(StaticW8A8Loading, activation_parameters_may_be_stored_in_every_float_type) {
  W8A8Folder folder = testing::w8a8_folder(kFp16);
  const std::vector<float> want = logits_of(folder);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const auto& [module, linear] : folder.linears) {
      folder.tensors[module + ".input_scale"] =
          testing::float_tensor(dtype, {1}, {linear.input.scale});
      folder.tensors[module + ".input_offset"] =
          testing::float_tensor(dtype, {1}, {linear.input.offset});
    }
    EXPECT_EQ(logits_of(folder), want) << formats::dtype_name(dtype);
  }
}

TEST(StaticW8A8Loading, deq_scale_may_be_float32_or_widened_in_models_of_both_types) {
  for (const char* golden : {kFp16, kBf16}) {
    W8A8Folder folder = testing::w8a8_folder(golden);
    const std::vector<float> want = logits_of(folder);
    for (const bool is_widened : {false, true}) {
      for (const auto& [module, linear] : folder.linears) {
        folder.tensors[module + ".deq_scale"] =
            is_widened ? testing::widened_tensor({linear.n}, linear.deq_scale)
                       : testing::float_tensor(DType::kF32, {linear.n}, linear.deq_scale);
      }
      EXPECT_EQ(logits_of(folder), want) << golden << " " << is_widened;
    }
  }
}

TEST(StaticW8A8Loading, a_bias_beside_quant_bias_is_not_added_again) {
  for (const char* golden : {kFp16, kBf16}) {
    W8A8Folder folder = testing::w8a8_folder(golden);
    const std::vector<float> want = logits_of(folder);
    for (const auto& [module, linear] : folder.linears) {
      const auto found = folder.tensors.find(module + ".bias");
      if (found == folder.tensors.end()) continue;
      found->second = testing::float_tensor(found->second.dtype, found->second.shape,
                                            std::vector<float>(linear.float_bias.size(), 3.0F));
    }
    EXPECT_EQ(logits_of(folder), want) << "biases of other values";
    for (const auto& [module, linear] : folder.linears) {
      folder.tensors.erase(module + ".bias");
      folder.description.erase(module + ".bias");
    }
    EXPECT_EQ(logits_of(folder), want) << "no biases";
  }
}

TEST(StaticW8A8Loading, a_missing_tensor_is_named) {
  for (const char* golden : {kFp16, kBf16}) {
    for (const char* suffix :
         {".weight", ".input_scale", ".input_offset", ".quant_bias", ".deq_scale"}) {
      W8A8Folder folder = testing::w8a8_folder(golden);
      folder.tensors.erase(module_q() + suffix);
      EXPECT_THAT(load_error(folder), HasSubstr(module_q() + suffix));
    }
  }
}

TEST(StaticW8A8Loading, a_wrong_type_or_shape_is_named) {
  const int64_t n = 40;
  const auto floats = [&](const formats::Shape& shape) {
    return testing::float_tensor(
        DType::kF32, shape,
        std::vector<float>(static_cast<size_t>(formats::shape_elements(shape)), 1.0F));
  };
  const std::vector<int32_t> integers(static_cast<size_t>(n), 1);
  const struct {
    const char* suffix;
    NewTensor tensor;
  } cases[]{
      {".quant_bias", floats({n})},
      {".quant_bias", testing::new_tensor(DType::kI64, {n}, std::vector<int64_t>(40, 1))},
      {".quant_bias", testing::new_tensor(DType::kI32, {n, 1}, integers)},
      {".quant_bias", testing::new_tensor(DType::kI32, {1}, std::vector<int32_t>{1})},
      {".deq_scale", testing::new_tensor(DType::kI32, {n}, integers)},
      {".deq_scale", floats({n + 1})},
      {".deq_scale", testing::widened_tensor({n - 1}, std::vector<float>(39, 1.0F))},
      {".input_scale", floats({2})},
      {".input_scale", testing::new_tensor(DType::kI8, {1}, std::vector<int8_t>{1})},
      {".input_offset", floats({n})},
      {".weight", testing::new_tensor(DType::kI8, {n, n - 1}, std::vector<int8_t>(40 * 39, 1))},
  };
  for (const auto& wrong : cases) {
    EXPECT_THAT(error_with(kFp16, wrong.suffix, wrong.tensor), HasSubstr(module_q() + wrong.suffix))
        << formats::dtype_name(wrong.tensor.dtype) << formats::shape_string(wrong.tensor.shape);
  }
}

TEST(StaticW8A8Loading, a_deq_scale_that_is_no_positive_number_is_named) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::string name = module_q() + ".deq_scale";
  for (const char* golden : {kFp16, kBf16}) {
    const std::vector<float> good = testing::w8a8_folder(golden).linears.at(module_q()).deq_scale;
    const auto n = static_cast<int64_t>(good.size());
    for (const float wrong : {-good[3], 0.0F, kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> values = good;
      values[3] = wrong;
      EXPECT_THAT(error_with(golden, ".deq_scale", testing::widened_tensor({n}, values)),
                  HasSubstr(name))
          << wrong;
      EXPECT_THAT(error_with(golden, ".deq_scale", testing::float_tensor(DType::kF32, {n}, values)),
                  HasSubstr(name))
          << wrong;
    }
    // Not a scale that was widened: one with a sign, and one with upper bits of its own.
    for (const int64_t upper : {int64_t{-1}, int64_t{1}}) {
      NewTensor tensor = testing::widened_tensor({n}, good);
      int64_t bits = 0;
      std::memcpy(&bits, tensor.bytes.data() + 3 * sizeof bits, sizeof bits);
      bits += upper * (int64_t{1} << 32);
      std::memcpy(tensor.bytes.data() + 3 * sizeof bits, &bits, sizeof bits);
      EXPECT_THAT(error_with(golden, ".deq_scale", tensor), HasSubstr(name)) << upper;
    }
  }
}

TEST(StaticW8A8Loading, activation_parameters_that_are_none_are_named) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float wrong : {0.0F, -0.0F, -0.25F, kInfinity, kNan}) {
    EXPECT_THAT(
        error_with(kBf16, ".input_scale", testing::float_tensor(DType::kBF16, {1}, {wrong})),
        HasSubstr(module_q() + ".input_scale"))
        << wrong;
  }
  for (const float wrong : {0.5F, -17.25F, kInfinity, kNan}) {
    EXPECT_THAT(
        error_with(kBf16, ".input_offset", testing::float_tensor(DType::kF32, {1}, {wrong})),
        HasSubstr(module_q() + ".input_offset"))
        << wrong;
  }
}

// 2^-24, the smallest float16, is a scale that can be divided by; its reciprocal is infinite in
// float16, as is that of a float32 scale which float16 rounds to zero. A scale that float16 does
// not reach has a reciprocal of zero.
TEST(StaticW8A8Loading, a_scale_without_a_reciprocal_is_named_where_an_engine_is_emulated) {
  for (const float scale : {0x1p-24F, 0x1p-30F, 0x1p17F}) {
    const NewTensor tensor = testing::float_tensor(DType::kF32, {1}, {scale});
    EXPECT_EQ(error_with(kFp16, ".input_scale", tensor), "");
    EXPECT_THAT(error_with(kFp16, ".input_scale", tensor, {.emulation = Emulation::kMindie}),
                HasSubstr(module_q() + ".input_scale"));
  }
}

TEST(StaticW8A8Loading, a_description_that_contradicts_the_types_is_refused) {
  const std::string weight = module_q() + ".weight";
  W8A8Folder folder = testing::w8a8_folder(kFp16);
  folder.description[weight] = "FLOAT";
  EXPECT_THAT(load_error(folder), HasSubstr(weight));
  folder = testing::w8a8_folder(kFp16);
  folder.description.erase(weight);
  EXPECT_THAT(load_error(folder), HasSubstr(weight));
  folder = testing::w8a8_folder(kFp16);
  folder.tensors[weight] = testing::float_tensor(DType::kF32, folder.tensors.at(weight).shape,
                                                 folder.linears.at(module_q()).float_weight);
  EXPECT_THAT(load_error(folder), HasSubstr(weight));
  // Weight-only codes need a scale of their own, which the newer vendor tool leaves out.
  folder = testing::w8a8_folder(kFp16);
  folder.description[weight] = "W8A16";
  folder.tensors.erase(module_q() + ".weight_scale");
  EXPECT_THAT(load_error(folder), HasSubstr(module_q() + ".weight_scale"));
}

TEST(StaticW8A8Loading, linears_that_stay_float_run_beside_quantized_ones) {
  W8A8Folder folder = testing::w8a8_folder(kFp16);
  const std::vector<float> all = logits_of(folder);
  const testing::NewTensors source = testing::read_tensors(testing::golden_root() / kFp16);
  for (const auto& [module, linear] : folder.linears) {
    for (const char* suffix : {".weight", ".input_scale", ".input_offset", ".quant_bias",
                               ".deq_scale", ".weight_scale", ".weight_offset"}) {
      folder.tensors.erase(module + suffix);
      folder.description.erase(module + suffix);
    }
    folder.tensors[module + ".weight"] = source.at(module + ".weight");
    folder.description[module + ".weight"] = "FLOAT";
    if (folder.tensors.contains(module + ".bias")) folder.description[module + ".bias"] = "FLOAT";
    if (module.find("layers.1") != std::string::npos) {
      EXPECT_NE(logits_of(folder), all) << module;
    }
  }
  const auto floats = Model::load(testing::golden_root() / kFp16);
  EXPECT_EQ(logits_of(folder), testing::all_logits(*floats, std::vector<int32_t>{5, 17, 3, 99}));
}

}  // namespace
}  // namespace llmq::runtime
