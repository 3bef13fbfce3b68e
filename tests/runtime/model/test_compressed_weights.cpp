// Models whose linears are stored or held compressed, against the same codes as int8.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "quant/codec/w8a8sc.h"
#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/scheme_folders.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Scheme;
using ::testing::HasSubstr;
using testing::W8A8Folder;

constexpr const char* kModels[] = {"qwen2-untied", "qwen2-yarn", "llama-odd-sizes"};
const std::vector<int32_t> kTokens{5, 17, 3, 90, 41, 62, 8, 33, 21, 9, 77};

std::unique_ptr<Model> load(const W8A8Folder& folder) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  return Model::load(place.path());
}

/// int8_folder with codes of which one in `every` is any and the others are within ±7.
W8A8Folder sparse_folder(const std::string& golden, const std::string& tag, unsigned every) {
  W8A8Folder folder = testing::int8_folder(golden, tag);
  std::mt19937 random(5);
  for (auto& [module, linear] : folder.linears) {
    for (int8_t& code : linear.codes) {
      const auto bits = static_cast<unsigned>(random());
      if (bits % every != 0) code = static_cast<int8_t>(static_cast<int>(bits >> 8) % 15 - 7);
    }
    folder.tensors.at(module + ".weight") =
        testing::new_tensor(DType::kI8, {linear.n, linear.k}, linear.codes);
  }
  return folder;
}

/// The same stored as W8A8SC.
W8A8Folder compressed(W8A8Folder folder, quant::W8A8scCodec codec) {
  quant::ThreadTeam team(1);
  folder.description["model_quant_type"] = "W8A8SC";
  for (const auto& entry : folder.linears) {
    const std::string& module = entry.first;
    const auto& linear = entry.second;
    const quant::CompressedCodes stored =
        quant::compress_codes({linear.codes.data(), linear.n, linear.k, linear.k}, codec, team);
    const auto add = [&](const std::string& suffix, DType dtype, const auto& values) {
      const std::vector<typename std::decay_t<decltype(values)>::value_type> copy(values.begin(),
                                                                                  values.end());
      const formats::Shape shape{static_cast<int64_t>(copy.size())};
      folder.tensors[module + suffix] = testing::new_tensor(dtype, shape, copy);
    };
    add(".weight", DType::kI8, stored.weight);
    add(".index", DType::kI8, stored.index);
    add(".info", DType::kI64, stored.info);
    const std::vector<int8_t> offset{static_cast<int8_t>(linear.input.offset)};
    folder.tensors.at(module + ".input_offset") = testing::new_tensor(DType::kI8, {1}, offset);
    for (const char* suffix : {".weight", ".index", ".info", ".input_scale", ".input_offset",
                               ".quant_bias", ".deq_scale"})
      folder.description[module + suffix] = "W8A8SC";
  }
  return folder;
}

std::string load_error(const W8A8Folder& folder) {
  try {
    load(folder);
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput) << error.what();
    return error.what();
  }
  return "";
}

TEST(CompressedWeights, compressed_and_sparse_models_have_the_logits_of_int8_weights) {
  for (const char* name : kModels) {
    for (const unsigned every : {1U, 60U}) {
      const auto dense = load(sparse_folder(name, "W8A8", every));
      const auto want = testing::all_logits(*dense, kTokens);
      const W8A8Folder sparse = sparse_folder(name, "W8A8S", every);
      EXPECT_EQ(testing::all_logits(*load(sparse), kTokens), want) << name;
      for (const auto codec : {quant::W8A8scCodec::kRans, quant::W8A8scCodec::kDeflate}) {
        const auto model = load(compressed(sparse, codec));
        EXPECT_EQ(model->layer(0).q.scheme, Scheme::kW8A8SC);
        EXPECT_NE(model->layer(0).q.packed_sc, nullptr);
        EXPECT_EQ(testing::all_logits(*model, kTokens), want) << name;
      }
    }
  }
}

TEST(CompressedWeights, sparse_weights_are_held_compressed_where_that_is_faster) {
  for (const unsigned every : {1U, 60U}) {
    const auto model = load(sparse_folder("qwen2-untied", "W8A8S", every));
    const LinearWeights& linear = model->layer(0).down;
    const bool pays = quant::w8a8sc_pays(1.0 / every);
    EXPECT_EQ(linear.packed_sc != nullptr, pays);
    EXPECT_EQ(linear.packed == nullptr, pays);
  }
  const auto dense = load(sparse_folder("qwen2-untied", "W8A8", 60));
  EXPECT_EQ(dense->layer(0).down.packed_sc, nullptr);
}

TEST(CompressedWeights, rows_are_looked_up_as_those_of_int8_weights) {
  const W8A8Folder sparse = sparse_folder("llama-odd-sizes", "W8A8S", 20);
  const auto dense = load(sparse);
  const auto model = load(compressed(sparse, quant::W8A8scCodec::kRans));
  const LinearWeights& head = model->outer().head;
  ASSERT_EQ(head.scheme, Scheme::kW8A8SC);
  for (int64_t row = 0; row < head.n_out; ++row) {
    std::vector<float> got(static_cast<size_t>(head.n_in));
    std::vector<float> want(got.size());
    widen_row(head, row, got);
    widen_row(dense->outer().head, row, want);
    EXPECT_EQ(got, want) << row;
  }
}

TEST(CompressedWeights, what_does_not_fit_is_refused_with_its_name) {
  const std::string module = "model.layers.1.self_attn.q_proj";
  const W8A8Folder good =
      compressed(sparse_folder("qwen2-untied", "W8A8S", 30), quant::W8A8scCodec::kRans);
  EXPECT_EQ(load_error(good), "");

  W8A8Folder folder = good;
  folder.tensors.at(module + ".weight").bytes.back() ^= std::byte{4};
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".weight"));
  EXPECT_THAT(load_error(folder), HasSubstr("tile "));

  folder = good;
  folder.tensors.erase(module + ".index");
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".index"));

  folder = good;
  folder.tensors.at(module + ".info") =
      testing::new_tensor(DType::kI64, {4}, std::vector<int64_t>{8, 8, 1, 1});
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".info has shape [4], not [5]"));

  folder = good;
  folder.tensors.at(module + ".index").dtype = DType::kU8;
  EXPECT_THAT(load_error(folder), HasSubstr(module + ".index"));

  folder = good;
  const std::string other = "model.layers.1.mlp.down_proj";
  for (const char* suffix : {".weight", ".index", ".info"})
    folder.tensors.at(module + suffix) = good.tensors.at(other + suffix);
  EXPECT_THAT(load_error(folder), HasSubstr("but config.json makes it"));
}

}  // namespace
}  // namespace llmq::runtime
