#include "runtime/model/embed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/error.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kModel = "qwen2-embedding";

/// The prompts of a golden, and pieces of them: texts of many lengths.
std::vector<std::vector<int32_t>> texts_of(const std::string& name) {
  std::vector<std::vector<int32_t>> texts;
  const Json golden = formats::read_json_file(testing::golden_root() / name / "golden.json");
  for (const Json& prompt : golden["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    texts.push_back(ids);
    for (const std::ptrdiff_t n : {1, 7, 16}) texts.emplace_back(ids.begin(), ids.begin() + n);
  }
  return texts;
}

double length_of(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

TEST(GoldenEmbed, VectorsAreTheReferencesWithinTheStoredTolerance) {
  const auto folder = testing::golden_root() / kModel;
  const Json golden = formats::read_json_file(folder / "golden.json");
  const double tolerance = golden["tolerance"]["embedding"];
  const auto model = Model::load(folder);
  std::vector<std::vector<int32_t>> texts;
  for (const Json& prompt : golden["prompts"]) texts.push_back(prompt["ids"]);
  const auto vectors = embed(*model, texts);
  ASSERT_EQ(vectors.size(), 2U);
  for (size_t text = 0; text < vectors.size(); ++text) {
    const std::vector<double> want = golden["prompts"][text]["embedding"];
    ASSERT_EQ(vectors[text].size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(vectors[text][i], want[i], tolerance);
  }
}

TEST(GoldenEmbed, EveryFamilysVectorIsItsLastHiddenStateNormalized) {
  for (const char* name : {"qwen2-tied", "qwen3-head-dim", "mistral-window", "qwen2-moe", "qwen"}) {
    const auto folder = testing::golden_root() / name;
    const Json golden = formats::read_json_file(folder / "golden.json");
    const auto model = Model::load(folder);
    for (const Json& prompt : golden["prompts"]) {
      const std::vector<std::vector<int32_t>> texts{prompt["ids"]};
      const std::vector<float> vector = embed(*model, texts).front();
      const std::vector<double> last = prompt["last_hidden"].back();
      const double length = length_of(last);
      const auto n = static_cast<double>(last.size());
      // An error e of each value turns and stretches the vector: (e + √n·e) / length; and each
      // value is rounded to float32.
      const double tolerance =
          golden["tolerance"]["hidden"].get<double>() * (1 + std::sqrt(n)) / length +
          std::numeric_limits<float>::epsilon();
      ASSERT_EQ(vector.size(), last.size());
      for (size_t i = 0; i < last.size(); ++i)
        EXPECT_NEAR(vector[i], last[i] / length, tolerance) << name;
    }
  }
}

TEST(Embed, VectorsHaveLengthOne) {
  const auto model = Model::load(testing::golden_root() / kModel);
  for (const std::vector<float>& vector : embed(*model, texts_of(kModel)))
    EXPECT_NEAR(length_of(std::vector<double>(vector.begin(), vector.end())), 1.0, 1e-6);
}

TEST(Embed, AVectorHasTheSameBitsWhateverRunsBesideItAndInWhatPieces) {
  const auto texts = texts_of(kModel);
  const auto model = Model::load(testing::golden_root() / kModel);
  const auto want = embed(*model, texts, 1);
  for (const int64_t batch : {2, 3, 100}) EXPECT_EQ(embed(*model, texts, batch), want);
  const auto pieces = Model::load(testing::golden_root() / kModel,
                                  {.n_threads = 3, .page_size = 4, .prefill_chunk = 5});
  EXPECT_EQ(embed(*pieces, texts, 4), want);
}

TEST(Embed, TellsOfEachTextInOrder) {
  const auto model = Model::load(testing::golden_root() / kModel);
  std::vector<int64_t> told;
  embed(*model, texts_of(kModel), 3, [&](int64_t text) { told.push_back(text); });
  EXPECT_THAT(told, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(Embed, RefusesWhatHasNoVectorBeforeAnythingIsRun) {
  const auto model = Model::load(testing::golden_root() / kModel);
  int n_told = 0;
  const auto error_of = [&](const std::vector<std::vector<int32_t>>& texts, int64_t batch) {
    try {
      embed(*model, texts, batch, [&](int64_t) { ++n_told; });
    } catch (const formats::Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error_of({{3}, {}}, 1), HasSubstr("text 2 has no tokens"));
  EXPECT_THAT(error_of({{3}, {112}}, 1), HasSubstr("text 2: token 0 has id 112"));
  EXPECT_THAT(error_of({std::vector<int32_t>(129, 3)}, 1), HasSubstr("129 tokens are more"));
  EXPECT_THAT(error_of({{3}}, 0), HasSubstr("max_batch_size is 0"));
  EXPECT_EQ(n_told, 0);
  EXPECT_TRUE(embed(*model, {}).empty());
}

TEST(Embed, RefusesAHiddenStateWithoutADirection) {
  const testing::TemporaryFolder folder;
  const auto golden = testing::golden_root() / kModel;
  testing::NewTensors tensors = testing::read_tensors(golden);
  std::ranges::fill(tensors.at("norm.weight").bytes, std::byte{0});
  testing::write_model(folder.path(), formats::read_json_file(golden / "config.json"), tensors);
  const auto model = Model::load(folder.path());
  const std::vector<std::vector<int32_t>> texts{{3, 4}};
  EXPECT_THROW(embed(*model, texts), formats::Error);
}

TEST(Embed, CosinesAreThoseOfTheFormula) {
  const std::vector<float> a{3, 4};
  const std::vector<float> b{4, -3};
  const std::vector<float> c{-6, -8};
  EXPECT_DOUBLE_EQ(cosine_similarity(a, a), 1.0);
  EXPECT_DOUBLE_EQ(cosine_similarity(a, b), 0.0);
  EXPECT_DOUBLE_EQ(cosine_similarity(a, c), -1.0);
  EXPECT_THROW(cosine_similarity(a, std::vector<float>{1}), formats::Error);
}

}  // namespace
}  // namespace llmq::runtime
