// Folders as the tools of others write them run to the same logits.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/file.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/scheme_folders.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Json;
using ::testing::HasSubstr;
using testing::NewTensor;
using testing::NewTensors;
using testing::W8A8Folder;
using testing::WeightOnlyFolder;

constexpr const char* kModel = "qwen2-untied";
const std::vector<std::string> kTags{"W8A8", "W8A8_DYNAMIC", "W8A8_MIX", "W8A8S"};

std::vector<float> logits_in(const std::filesystem::path& path) {
  const auto model = Model::load(path);
  return testing::all_logits(*model, std::vector<int32_t>{5, 17, 3, 99});
}

template <typename Folder>
std::vector<float> logits_of(const Folder& folder) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  return logits_in(place.path());
}

template <typename Folder>
std::string load_error(const Folder& folder) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  try {
    Model::load(place.path());
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput) << error.what();
    return error.what();
  }
  return "";
}

TEST(Dialects, an_older_folder_with_shards_and_a_typed_description_runs) {
  for (const std::string& tag : kTags) {
    W8A8Folder folder = testing::int8_folder(kModel, tag);
    const std::vector<float> want = logits_of(folder);
    folder.description.erase("version");
    folder.description.erase("group_size");
    folder.description["ghost.weight"] = "FLOAT";
    folder.description["metadata"] = Json::object();
    folder.description["is_nzcasted"] = false;
    folder.description["kv_quant_type"] = nullptr;
    folder.description["model.layers.0.self_attn.outdim"] = 7;
    const testing::TemporaryFolder place;
    folder.write(place.path());
    std::filesystem::rename(place.path() / "quant_model_description.json",
                            place.path() / "quant_model_description_w8a8.json");
    NewTensors halves[2];
    Json weight_map = Json::object();
    for (const auto& [name, tensor] : folder.tensors) {
      const size_t at = weight_map.size() % 2;
      halves[at][name] = tensor;
      weight_map[name] = at == 0 ? "quant_model_weights-00001-of-00002.safetensors"
                                 : "quant_model_weights-00002-of-00002.safetensors";
    }
    for (const char* part : {"00001", "00002"}) {
      testing::write_model(place.path(), folder.config, halves[part[4] - '1']);
      std::filesystem::rename(
          place.path() / "model.safetensors",
          place.path() / ("quant_model_weights-" + std::string(part) + "-of-00002.safetensors"));
    }
    formats::write_text_file(
        place.path() / "quant_model_weights.safetensors.index.json",
        Json{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}.dump());
    EXPECT_EQ(logits_in(place.path()), want) << tag;
  }
}

TEST(Dialects, scales_may_be_vectors_and_activation_parameters_scalars_of_any_type) {
  for (const std::string& tag : kTags) {
    W8A8Folder folder = testing::int8_folder(kModel, tag);
    const std::vector<float> want = logits_of(folder);
    for (auto& [name, tensor] : folder.tensors) {
      if (name.ends_with(".weight_scale") || name.ends_with(".weight_offset"))
        tensor.shape.pop_back();
      if (name.ends_with(".input_scale")) tensor.shape.clear();
      if (name.ends_with(".input_offset"))
        tensor = testing::new_tensor(DType::kI8, {}, std::vector<int8_t>{-17});
    }
    EXPECT_EQ(logits_of(folder), want) << tag;
  }
  for (const char* tag : {"W8A16", "W4A16"}) {
    WeightOnlyFolder folder = testing::weight_only_folder(kModel, {tag, 0, true, true});
    const std::vector<float> want = logits_of(folder);
    for (auto& [name, tensor] : folder.tensors) {
      if (name.ends_with(".weight_scale") || name.ends_with(".weight_offset"))
        tensor.shape.pop_back();
    }
    EXPECT_EQ(logits_of(folder), want) << tag;
  }
}

// Tools that shift activations wrap norms; the wrapped weight is the one that engines run.
TEST(Dialects, wrapped_norms_are_preferred_and_their_biases_added) {
  W8A8Folder folder = testing::int8_folder(kModel, "W8A8");
  const std::vector<float> want = logits_of(folder);
  const std::string norm = "model.layers.1.input_layernorm";
  const NewTensor original = folder.tensors.at(norm + ".weight");
  const auto n = static_cast<size_t>(original.shape[0]);
  const NewTensor zeros = testing::float_tensor(DType::kF16, original.shape, std::vector<float>(n));
  folder.tensors[norm + ".module.weight"] = original;
  folder.tensors[norm + ".module.bias"] = zeros;
  folder.tensors[norm + ".weight"] =
      testing::float_tensor(DType::kF16, original.shape, std::vector<float>(n, 3.0F));
  folder.description[norm + ".module.weight"] = "W8A8";
  folder.description[norm + ".module.bias"] = "W8A8";
  EXPECT_EQ(logits_of(folder), want);
  folder.tensors.erase(norm + ".weight");
  EXPECT_EQ(logits_of(folder), want);

  const NewTensor shift =
      testing::float_tensor(DType::kF16, original.shape, std::vector<float>(n, 0.5F));
  folder.tensors[norm + ".module.bias"] = shift;
  const std::vector<float> shifted = logits_of(folder);
  EXPECT_NE(shifted, want);
  W8A8Folder plain = testing::int8_folder(kModel, "W8A8");
  plain.tensors[norm + ".bias"] = shift;
  plain.description[norm + ".bias"] = "FLOAT";
  EXPECT_EQ(logits_of(plain), shifted);
}

TEST(Dialects, weights_in_16_bit_floats_are_float_whatever_their_tag) {
  const NewTensors source = testing::read_tensors(testing::golden_root() / kModel);
  for (const std::string& tag : kTags) {
    W8A8Folder folder = testing::int8_folder(kModel, tag);
    for (const auto& [module, linear] : folder.linears)
      folder.tensors[module + ".weight"] = source.at(module + ".weight");
    EXPECT_EQ(logits_of(folder), logits_in(testing::golden_root() / kModel)) << tag;
  }
}

TEST(Dialects, what_a_scheme_cannot_hold_is_refused_by_name) {
  const std::string module = "model.layers.1.self_attn.q_proj";
  for (const char* suffix : {".weight_scale", ".weight_offset", ".input_scale", ".quant_bias"}) {
    W8A8Folder folder = testing::int8_folder(kModel, "W8A8_MIX");
    folder.tensors.erase(module + suffix);
    EXPECT_THAT(load_error(folder), HasSubstr(module + suffix));
  }
  W8A8Folder folder = testing::int8_folder(kModel, "W8A8_DYNAMIC");
  folder.tensors.erase(module + ".bias");
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".bias"));
  folder = testing::int8_folder(kModel, "W8A8_DYNAMIC");
  folder.tensors.at(module + ".weight_offset") =
      testing::new_tensor(DType::kF32, {40, 1}, std::vector<float>(40, 1.0F));
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".weight_offset"));
  folder = testing::int8_folder(kModel, "W8A8_DYNAMIC");
  folder.tensors.at(module + ".weight_scale") =
      testing::new_tensor(DType::kF32, {40, 1}, std::vector<float>(40, 0.0F));
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".weight_scale"));
  folder = testing::int8_folder(kModel, "W8A8_DYNAMIC");
  folder.tensors.at(module + ".weight_scale") =
      testing::new_tensor(DType::kF32, {40, 2}, std::vector<float>(80, 1.0F));
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".weight_scale"));
}

TEST(Dialects, int4_weights_of_another_shape_or_range_are_refused_by_name) {
  const std::string weight = "model.layers.1.self_attn.q_proj.weight";
  for (const int64_t group_size : {0, 8}) {
    const WeightOnlyFolder good =
        testing::weight_only_folder(kModel, {"W4A16", group_size, false, true});
    WeightOnlyFolder folder = good;
    // Pairs of rows and of columns, each where the other belongs.
    const formats::Shape other = group_size > 0 ? formats::Shape{40, 20} : formats::Shape{20, 40};
    folder.tensors.at(weight).shape = other;
    EXPECT_THAT(load_error(folder), HasSubstr(weight));
    folder = good;
    folder.tensors.at(weight) =
        testing::new_tensor(DType::kI8, {40, 40}, std::vector<int8_t>(1600, 8));
    EXPECT_THAT(load_error(folder), HasSubstr(weight));
    folder = good;
    folder.description["group_size"] = 4;
    if (group_size > 0) {
      EXPECT_THAT(load_error(folder), HasSubstr("group_size 4"));
    }
  }
}

}  // namespace
}  // namespace llmq::runtime
