// What holds for every model: independence of how the work is cut, limits, generation.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "formats/error.h"
#include "runtime/model/decoder.h"
#include "runtime/model/generate.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::ErrorCode;
using formats::Json;
using quant::ConstMatrixF32;
using ::testing::HasSubstr;

const std::filesystem::path& folder_of_qwen3() {
  static const std::filesystem::path folder = testing::golden_root() / "qwen3-head-dim";
  return folder;
}

std::vector<int32_t> some_tokens(size_t n, int32_t vocab = 128, int32_t seed = 1) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = (static_cast<int32_t>(i) * 37 + seed * 11) % vocab;
  return ids;
}

template <typename Fn>
void expect_error(ErrorCode code, const std::string& text, const Fn& fn) {
  try {
    fn();
    FAIL() << "accepted";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(Model, logits_have_the_same_bits_for_every_chunk_page_and_thread_count) {
  const std::vector<int32_t> tokens = some_tokens(100);
  const auto reference = Model::load(folder_of_qwen3(), {.n_threads = 1});
  const std::vector<float> want = testing::all_logits(*reference, tokens);
  for (const ModelOptions& options :
       {ModelOptions{.n_threads = 1, .page_size = 7, .prefill_chunk = 1},
        ModelOptions{.n_threads = 2, .page_size = 64, .prefill_chunk = 7},
        ModelOptions{.n_threads = 3, .page_size = 1, .prefill_chunk = 512},
        ModelOptions{.n_threads = 16, .page_size = 1000, .prefill_chunk = 33}}) {
    const auto model = Model::load(folder_of_qwen3(), options);
    EXPECT_EQ(testing::all_logits(*model, tokens), want)
        << options.n_threads << " " << options.page_size << " " << options.prefill_chunk;
  }
}

TEST(Model, sequences_in_a_batch_get_the_bits_they_get_alone) {
  const auto model = Model::load(folder_of_qwen3(), {.n_threads = 2, .prefill_chunk = 16});
  const std::vector<std::vector<int32_t>> texts{some_tokens(5), some_tokens(60, 128, 2),
                                                some_tokens(1, 128, 3), some_tokens(33, 128, 4)};
  std::vector<Sequence> sequences;
  for (size_t i = 0; i < texts.size(); ++i) sequences.push_back(model->new_sequence());
  std::vector<BatchItem> items;
  for (size_t i = 0; i < texts.size(); ++i) items.push_back({&sequences[i], texts[i]});
  std::vector<std::vector<float>> got(texts.size());
  model->score(items, [&](const ConstMatrixF32& logits, std::span<const RowOrigin> rows) {
    for (size_t row = 0; row < rows.size(); ++row) {
      const float* from = logits.data + static_cast<int64_t>(row) * logits.row_stride;
      std::vector<float>& to = got[static_cast<size_t>(rows[row].item)];
      EXPECT_EQ(to.size(), static_cast<size_t>(rows[row].token * logits.n_cols));
      to.insert(to.end(), from, from + logits.n_cols);
    }
  });
  for (size_t i = 0; i < texts.size(); ++i)
    EXPECT_EQ(got[i], testing::all_logits(*model, texts[i])) << i;
}

TEST(Model, feeding_in_parts_or_again_after_truncation_changes_nothing) {
  const auto model = Model::load(folder_of_qwen3(), {.page_size = 4});
  const std::vector<int32_t> tokens = some_tokens(20);
  const std::vector<float> all = testing::all_logits(*model, tokens);
  const std::vector<float> want(all.end() - 128, all.end());
  Sequence sequence = model->new_sequence();
  const auto feed = [&](size_t begin, size_t end) {
    const BatchItem item{&sequence, std::span(tokens).subspan(begin, end - begin)};
    std::vector<float> logits(128);
    model->last_logits({&item, 1}, {logits.data(), 1, 128, 128});
    return logits;
  };
  feed(0, 3);
  feed(3, 13);
  EXPECT_EQ(feed(13, 20), want);
  sequence.truncate(9);
  EXPECT_EQ(sequence.length(), 9);
  EXPECT_EQ(feed(9, 20), want);
}

TEST(Model, score_shows_rows_from_first_scored_on_in_pieces) {
  const auto model = Model::load(folder_of_qwen3(), {.prefill_chunk = 6});
  const std::vector<int32_t> tokens = some_tokens(20);
  const std::vector<float> all = testing::all_logits(*model, tokens);
  Sequence sequence = model->new_sequence();
  const BatchItem item{&sequence, tokens, 11};
  std::vector<float> got;
  int64_t next = 11;
  model->score(
      {&item, 1},
      [&](const ConstMatrixF32& logits, std::span<const RowOrigin> rows) {
        EXPECT_LE(logits.n_rows, 2);
        for (const RowOrigin& row : rows) EXPECT_EQ(row.position, next++);
        got.insert(got.end(), logits.data, logits.data + logits.n_rows * logits.n_cols);
      },
      2);
  EXPECT_EQ(next, 20);
  EXPECT_EQ(got, std::vector<float>(all.begin() + 11 * 128, all.end()));
}

TEST(Model, token_ids_outside_the_vocabulary_are_refused_and_nothing_is_fed) {
  const auto model = Model::load(folder_of_qwen3());
  Sequence sequence = model->new_sequence();
  for (const int32_t wrong : {128, -1}) {
    const std::vector<int32_t> tokens{3, wrong};
    const BatchItem item{&sequence, tokens};
    expect_error(ErrorCode::kBadInput, std::to_string(wrong), [&] { model->forward({&item, 1}); });
    EXPECT_EQ(sequence.length(), 0);
  }
}

TEST(Model, texts_longer_than_the_positions_are_refused_unless_extrapolation_is_allowed) {
  const auto strict = Model::load(folder_of_qwen3());
  EXPECT_EQ(strict->length_limit(), 128);
  EXPECT_EQ(testing::all_logits(*strict, some_tokens(128)).size(), 128U * 128U);
  expect_error(ErrorCode::kBadInput, "128",
               [&] { testing::all_logits(*strict, some_tokens(129)); });
  const auto lenient = Model::load(folder_of_qwen3(), {.allow_extrapolation = true});
  EXPECT_EQ(testing::all_logits(*lenient, some_tokens(129)).size(), 129U * 128U);
}

TEST(Model, a_rope_scaling_extends_the_positions) {
  const auto model = Model::load(testing::golden_root() / "qwen2-yarn");
  EXPECT_EQ(model->config().max_position_embeddings, 40);
  EXPECT_EQ(model->length_limit(), 160);
}

TEST(Model, options_out_of_range_are_refused) {
  for (const ModelOptions& options :
       {ModelOptions{.n_threads = -1}, ModelOptions{.page_size = 0},
        ModelOptions{.prefill_chunk = 0}, ModelOptions{.kv_dtype = DType::kI8}}) {
    EXPECT_THROW(Model::load(folder_of_qwen3(), options), formats::Error);
  }
}

// A bf16 cache rounds each key and value by at most 2^-9 of itself; what that does to the logits is
// not derived here, only that it is felt and small against their spread of about 3.
TEST(Model, a_bf16_cache_changes_logits_a_little) {
  const std::vector<int32_t> tokens = some_tokens(60);
  const auto exact = Model::load(folder_of_qwen3());
  const auto rounded = Model::load(folder_of_qwen3(), {.kv_dtype = DType::kBF16});
  const std::vector<float> want = testing::all_logits(*exact, tokens);
  const std::vector<float> got = testing::all_logits(*rounded, tokens);
  double worst = 0.0;
  for (size_t i = 0; i < want.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - want[i]));
  EXPECT_GT(worst, 0.0);
  EXPECT_LT(worst, 3.0 * 16 * 0x1p-9);
}

// One more rounding per product than the float model, so within the same multiple of a float32
// pass's measured error that the goldens allow.
TEST(Model, w8a16_equals_the_float_model_of_its_dequantized_weights) {
  for (const char* name : {"qwen2-untied", "llama-odd-sizes", "llama-biases", "qwen3-head-dim"}) {
    const std::filesystem::path source = testing::golden_root() / name;
    const Json config = formats::read_json_file(source / "config.json");
    const Json golden = formats::read_json_file(source / "golden.json");
    testing::NewTensors tensors = testing::read_tensors(source);
    const testing::QuantizedW8A16 quantized = testing::quantize_w8a16(tensors);
    const testing::TemporaryFolder codes;
    const testing::TemporaryFolder floats;
    testing::write_model(codes.path(), config, tensors);
    formats::write_text_file(codes.path() / "quant_model_description.json",
                             quantized.description.dump());
    testing::write_model(floats.path(), config, quantized.dequantized);
    const auto model = Model::load(codes.path());
    EXPECT_EQ(model->layer(0).q.scheme, formats::Scheme::kW8A16);
    const auto reference = Model::load(floats.path());
    const std::vector<int32_t> ids = golden["prompts"][1]["ids"];
    const std::vector<float> got = testing::all_logits(*model, ids);
    const std::vector<float> want = testing::all_logits(*reference, ids);
    const double tolerance = golden["tolerance"]["logits"];
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << name;
  }
}

TEST(Model, a_sliding_window_hides_older_tokens_from_the_layers_that_have_it) {
  const std::filesystem::path source = testing::golden_root() / "mistral";
  Json config = formats::read_json_file(source / "config.json");
  const testing::NewTensors tensors = testing::read_tensors(source);
  const auto logits = [&](const std::vector<int32_t>& ids) {
    const testing::TemporaryFolder folder;
    testing::write_model(folder.path(), config, tensors);
    const auto model = Model::load(folder.path());
    const std::vector<float> all = testing::all_logits(*model, ids);
    return std::vector<float>(all.end() - model->config().vocab_size, all.end());
  };
  std::vector<int32_t> ids = some_tokens(30, 100);
  const std::vector<float> full = logits(ids);
  config["sliding_window"] = 30;
  EXPECT_EQ(logits(ids), full);
  config["sliding_window"] = 4;
  const std::vector<float> windowed = logits(ids);
  EXPECT_NE(windowed, full);
  // Two layers of window 4 see at most 1 + 2·3 tokens back.
  ids[30 - 8] = (ids[30 - 8] + 1) % 100;
  EXPECT_EQ(logits(ids), windowed);
  ids[30 - 7] = (ids[30 - 7] + 1) % 100;
  EXPECT_NE(logits(ids), windowed);
}

TEST(DecoderRunner, a_layer_runs_alone_on_several_samples_and_shows_what_its_linears_read) {
  const auto model = Model::load(folder_of_qwen3());
  const std::vector<int32_t> tokens = some_tokens(12);
  std::vector<std::vector<float>> stages(4);
  Sequence sequence = model->new_sequence();
  const BatchItem item{&sequence, tokens};
  model->forward({&item, 1}, {},
                 [&](int64_t stage, const ConstMatrixF32& hidden, std::span<const RowOrigin>) {
                   stages[static_cast<size_t>(stage)].assign(
                       hidden.data, hidden.data + hidden.n_rows * hidden.n_cols);
                 });
  // The same sample twice, through layer 1 only, from a cache of one layer.
  const KvLayout layout{.n_layers = 1, .n_kv_heads = 2, .head_dim = 16, .page_size = 8};
  KvCache first(layout);
  KvCache second(layout);
  const std::vector<BatchSegment> segments{{&first, 0, 12, 0}, {&second, 12, 12, 0}};
  std::vector<float> hidden = stages[1];
  hidden.insert(hidden.end(), stages[1].begin(), stages[1].end());
  std::vector<formats::FusedGroup> groups;
  std::vector<int64_t> widths;
  DecoderRunner runner(model->config(), model->team());
  runner.begin(segments);
  runner.run_layer(model->layer(1), {.model_layer = 1, .cache_layer = 0},
                   {hidden.data(), 24, 32, 32},
                   {.linear_input =
                        [&](const LinearInput& input) {
                          EXPECT_EQ(input.x.n_rows, 24);
                          EXPECT_EQ(input.expert, -1);
                          groups.push_back(input.group);
                          widths.push_back(input.x.n_cols);
                        },
                    .attention_input =
                        [&](const AttentionInput& input) {
                          EXPECT_EQ(input.q.n_cols, 64);
                          EXPECT_EQ(input.k.n_cols, 32);
                          EXPECT_EQ(input.v.n_cols, 32);
                        }});
  using enum formats::FusedGroup;
  EXPECT_EQ(groups, (std::vector<formats::FusedGroup>{kQkv, kAttentionOut, kGateUp, kDown}));
  EXPECT_EQ(widths, (std::vector<int64_t>{32, 64, 32, 56}));
  EXPECT_TRUE(std::equal(stages[2].begin(), stages[2].end(), hidden.begin()));
  EXPECT_TRUE(std::equal(stages[2].begin(), stages[2].end(), hidden.begin() + 12 * 32));
}

// ---- generation ---------------------------------------------------------------------------------

GenerateRequest request_of(std::vector<int32_t> prompt, int64_t max_new_tokens) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = max_new_tokens;
  request.stop_ids.emplace();
  return request;
}

TEST(Generate, requests_get_the_same_tokens_alone_and_in_any_batch) {
  const auto model = Model::load(folder_of_qwen3());
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < 5; ++i) {
    requests.push_back(request_of(some_tokens(3 + 7 * static_cast<size_t>(i), 128, i), 4 + 5 * i));
    requests.back().sampling = {.temperature = 1.5, .top_k = 50, .top_p = 0.9, .seed = 42};
  }
  const auto batched = generate(*model, requests, 3);
  const auto other = generate(*model, requests, 100);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone = generate(*model, {&requests[i], 1});
    EXPECT_EQ(batched[i].ids, alone[0].ids);
    EXPECT_EQ(other[i].ids, alone[0].ids);
    EXPECT_EQ(static_cast<int64_t>(alone[0].ids.size()), requests[i].max_new_tokens);
  }
}

TEST(Generate, a_stop_id_ends_the_text_and_is_not_part_of_it) {
  const auto model = Model::load(folder_of_qwen3());
  GenerateRequest request = request_of(some_tokens(9), 12);
  request.sampling = {.temperature = 2.0, .seed = 5};
  const GenerateResult all = generate(*model, {&request, 1})[0];
  EXPECT_EQ(all.finish_reason, FinishReason::kLength);
  EXPECT_FALSE(all.stop_id);
  ASSERT_EQ(all.ids.size(), 12U);
  const int32_t stop = all.ids[6];
  const auto first = std::find(all.ids.begin(), all.ids.end(), stop);
  request.stop_ids = {{100000, stop}};
  const GenerateResult stopped = generate(*model, {&request, 1})[0];
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(finish_reason_name(stopped.finish_reason), "stop");
  EXPECT_EQ(stopped.stop_id, stop);
  EXPECT_EQ(stopped.ids, std::vector<int32_t>(all.ids.begin(), first));
}

TEST(Generate, the_model_s_own_stop_ids_are_the_default) {
  const testing::TemporaryFolder place;
  for (const auto& entry : std::filesystem::directory_iterator(folder_of_qwen3()))
    std::filesystem::copy(entry.path(), place.path());
  GenerateRequest request = request_of(some_tokens(9), 5);
  const auto ids = generate(*Model::load(place.path()), {&request, 1})[0].ids;
  formats::write_text_file(place.path() / "generation_config.json",
                           "{\"eos_token_id\": [" + std::to_string(ids[0]) + "]}");
  request.stop_ids.reset();
  const GenerateResult result = generate(*Model::load(place.path()), {&request, 1})[0];
  EXPECT_TRUE(result.ids.empty());
  EXPECT_EQ(result.stop_id, ids[0]);
}

TEST(Generate, an_empty_prompt_is_the_bos_or_refused) {
  const auto model = Model::load(folder_of_qwen3());
  const std::vector<GenerateRequest> requests{request_of({}, 6), request_of({1}, 6)};
  const auto results = generate(*model, requests);
  EXPECT_EQ(results[0].ids, results[1].ids);

  const testing::TemporaryFolder place;
  Json config = formats::read_json_file(folder_of_qwen3() / "config.json");
  config.erase("bos_token_id");
  testing::write_model(place.path(), config, testing::read_tensors(folder_of_qwen3()));
  const auto without = Model::load(place.path());
  expect_error(ErrorCode::kUsage, "bos_token_id", [&] {
    generate(*without, {requests.data(), 1});
  });
}

TEST(Generate, the_last_position_ends_the_text) {
  const auto model = Model::load(folder_of_qwen3());
  const GenerateRequest request = request_of(some_tokens(125), 50);
  const GenerateResult result = generate(*model, {&request, 1})[0];
  // 125 fed; tokens 126 to 128 are fed too, and the one after the last position is still chosen.
  EXPECT_EQ(result.ids.size(), 4U);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST(Generate, the_callback_sees_tokens_in_order_and_can_end_a_request) {
  const auto model = Model::load(folder_of_qwen3());
  const std::vector<GenerateRequest> requests{request_of(some_tokens(4), 8),
                                              request_of(some_tokens(6, 128, 2), 8)};
  std::vector<std::vector<int32_t>> seen(2);
  const auto results = generate(*model, requests, 2, [&](int64_t request, int32_t id) {
    seen[static_cast<size_t>(request)].push_back(id);
    return request == 0 || seen[1].size() < 3;
  });
  EXPECT_EQ(results[0].ids, seen[0]);
  EXPECT_EQ(results[0].ids.size(), 8U);
  EXPECT_EQ(results[1].ids, seen[1]);
  EXPECT_EQ(results[1].ids.size(), 3U);
  EXPECT_EQ(results[1].finish_reason, FinishReason::kCancelled);
}

TEST(Generate, requests_out_of_range_are_refused_before_anything_runs) {
  const auto model = Model::load(folder_of_qwen3());
  const auto generate_two = [&](const GenerateRequest& second) {
    const std::vector<GenerateRequest> requests{request_of({1, 2}, 2), second};
    generate(*model, requests, 8, [](int64_t, int32_t) {
      ADD_FAILURE() << "a token was generated";
      return true;
    });
  };
  expect_error(ErrorCode::kBadInput, "request 1", [&] { generate_two(request_of({500}, 1)); });
  expect_error(ErrorCode::kBadInput, "129", [&] { generate_two(request_of(some_tokens(129), 1)); });
  expect_error(ErrorCode::kUsage, "max_new_tokens", [&] { generate_two(request_of({1}, -1)); });
  GenerateRequest request = request_of({1}, 1);
  request.sampling.top_p = 2.0;
  expect_error(ErrorCode::kUsage, "top_p", [&] { generate_two(request); });
  expect_error(ErrorCode::kUsage, "max_batch_size", [&] { generate(*model, {&request, 1}, 0); });
  const GenerateRequest nothing = request_of({1}, 0);
  EXPECT_TRUE(generate(*model, {&nothing, 1})[0].ids.empty());
}

}  // namespace
}  // namespace llmq::runtime
