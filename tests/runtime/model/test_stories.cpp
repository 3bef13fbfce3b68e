// A real trained model against goldens of an independent float64 forward pass.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "runtime/model/generate.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::Json;

class GoldenStories : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::filesystem::path models = testing::data_root() / "models";
    if (!std::filesystem::exists(models / GetParam()))
      GTEST_SKIP() << models / GetParam() << " is absent; set LLMQ_TEST_DATA";
    golden_ = formats::read_json_file(models / "stories260k-golden.json");
    model_ = Model::load(models / GetParam());
  }

  Json golden_;
  std::unique_ptr<Model> model_;
};

TEST_P(GoldenStories, greedy_ids_of_all_prompts_are_the_reference_s) {
  std::vector<GenerateRequest> requests;
  for (const Json& item : golden_["greedy"]) {
    GenerateRequest request;
    request.prompt = item["prompt_ids"].get<std::vector<int32_t>>();
    // The empty prompt is BOS alone there; here the model adds it.
    if (item["prompt"] == "") request.prompt.clear();
    request.max_new_tokens = item["new_tokens"];
    request.stop_ids.emplace();
    requests.push_back(request);
  }
  ASSERT_EQ(requests.size(), 5U);
  const std::vector<GenerateResult> results = generate(*model_, requests, 3);
  for (size_t i = 0; i < results.size(); ++i) {
    const Json& item = golden_["greedy"][i];
    std::vector<int32_t> ids = item["prompt_ids"];
    ids.insert(ids.end(), results[i].ids.begin(), results[i].ids.end());
    EXPECT_EQ(ids, item["ids"].get<std::vector<int32_t>>()) << "prompt " << i;
  }
}

TEST_P(GoldenStories, last_logits_are_within_a_thousandth) {
  for (const Json& item : golden_["logits"]) {
    const std::vector<int32_t> ids = item["ids"];
    const std::vector<double> want = item["last_logits"];
    const std::vector<float> logits = testing::all_logits(*model_, ids);
    ASSERT_EQ(logits.size(), ids.size() * want.size());
    const float* last = logits.data() + (ids.size() - 1) * want.size();
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(last[i], want[i], 1e-3) << "token " << i;
    const std::vector<int32_t> best = item["argmax_each_position"];
    for (size_t p = 0; p < best.size(); ++p)
      EXPECT_EQ(argmax({logits.data() + p * want.size(), want.size()}), best[p]);
  }
}

INSTANTIATE_TEST_SUITE_P(, GoldenStories, ::testing::Values("stories260k", "stories260k-qwen2"),
                         [](const auto& test) {
                           return test.param == "stories260k" ? "llama" : "qwen2";
                         });

}  // namespace
}  // namespace llmq::runtime
