// What a calibration gathers, against an independent pass: each sample on its own, whole, through
// all layers, and every value kept.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "runtime/calibrate/calibrator.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/isa_process.h"
#include "tests/runtime/model/linear_inputs.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::ErrorCode;
using formats::FusedGroup;
using formats::Json;
using quant::RangeStatistics;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::NewTensors;

using Samples = std::vector<std::vector<int32_t>>;

/// A golden model in a folder of its own, with room for long texts.
class CalibratedModel {
 public:
  explicit CalibratedModel(const char* golden, const NewTensors& changed = {}) {
    Json config = formats::read_json_file(testing::golden_root() / golden / "config.json");
    config["max_position_embeddings"] = 2048;
    NewTensors tensors = testing::read_tensors(testing::golden_root() / golden);
    for (const auto& [name, tensor] : changed) tensors.at(name) = tensor;
    testing::write_model(place_.path(), config, tensors);
    config_ = formats::read_model_config(place_.path());
    checkpoint_.emplace(formats::Checkpoint::open(place_.path()));
  }

  [[nodiscard]] const std::filesystem::path& folder() const { return place_.path(); }
  [[nodiscard]] const formats::ModelConfig& config() const { return config_; }
  [[nodiscard]] WeightSource source() const { return {&*checkpoint_, &config_, nullptr}; }

 private:
  testing::TemporaryFolder place_;
  formats::ModelConfig config_;
  std::optional<formats::Checkpoint> checkpoint_;
};

/// Texts of 1566 tokens together, that is, four batches. The second is in three of them; the last
/// begins in one and ends in the next.
Samples long_samples(int64_t vocab_size) {
  Samples samples;
  for (const int32_t length : {5, 1030, 1, 330, 200}) {
    std::vector<int32_t>& sample = samples.emplace_back();
    for (int32_t i = 0; i < length; ++i)
      sample.push_back(static_cast<int32_t>((i * 37 + i * i % 11 + length) % vocab_size));
  }
  return samples;
}

/// Statistics of every layer, then the head's.
std::vector<GroupStatistics> calibrate(const CalibratedModel& model, const Samples& samples,
                                       int n_threads, bool with_histogram) {
  quant::ThreadTeam team(n_threads);
  Calibrator calibrator(model.source(), samples,
                        {.with_histogram = with_histogram, .on_tokens = {}}, team);
  std::vector<GroupStatistics> all;
  for (int64_t layer = 0; layer < model.config().n_layers; ++layer) {
    EXPECT_EQ(calibrator.next_layer(), layer);
    all.push_back(calibrator.advance());
  }
  EXPECT_EQ(calibrator.next_layer(), model.config().n_layers);
  all.push_back(calibrator.head());
  return all;
}

void append(std::string& bytes, const void* from, size_t size_bytes) {
  bytes.append(static_cast<const char*>(from), size_bytes);
}

/// Every bit of the statistics.
std::string bits_of(const std::vector<GroupStatistics>& all) {
  std::string bytes;
  for (const GroupStatistics& groups : all) {
    for (const auto& [group, statistics] : groups) {
      append(bytes, &group.group, sizeof group.group);
      append(bytes, &group.expert, sizeof group.expert);
      append(bytes, &statistics.n, sizeof statistics.n);
      append(bytes, &statistics.min, sizeof statistics.min);
      append(bytes, &statistics.max, sizeof statistics.max);
      append(bytes, &statistics.mean, sizeof statistics.mean);
      append(bytes, &statistics.deviation, sizeof statistics.deviation);
      if (!statistics.histogram) continue;
      const std::vector<double>& counts = statistics.histogram->counts;
      append(bytes, counts.data(), counts.size() * sizeof(double));
    }
  }
  return bytes;
}

void expect_statistics_of(const std::vector<float>& values, const RangeStatistics& got) {
  ASSERT_EQ(got.n, static_cast<int64_t>(values.size()));
  const auto [smallest, largest] = std::minmax_element(values.begin(), values.end());
  EXPECT_EQ(got.min, *smallest);
  EXPECT_EQ(got.max, *largest);
  const auto n = static_cast<double>(values.size());
  long double sum = 0;
  long double magnitude = 0;
  for (const float value : values) {
    sum += value;
    magnitude += std::abs(value);
  }
  const auto mean = static_cast<double>(sum / n);
  long double squares = 0;
  long double deviations = 0;
  for (const float value : values) {
    squares += static_cast<long double>(value) * value;
    deviations += (value - mean) * (value - mean);
  }
  const auto deviation = static_cast<double>(std::sqrt(deviations / n));
  // n float64 additions err by n·2^-53 of the sum of magnitudes. The variance may be E(x²) − mean²,
  // and an error e of it is one of e / deviation in its root.
  const double mean_bound = n * 0x1p-53 * static_cast<double>(magnitude) / n;
  const double variance_bound =
      n * 0x1p-53 * static_cast<double>(squares) / n + 3 * std::abs(mean) * mean_bound;
  EXPECT_NEAR(got.mean, mean, mean_bound);
  EXPECT_NEAR(got.deviation, deviation, variance_bound / deviation);
}

constexpr const char* kModels[] = {"llama-llama3-rope", "qwen3-head-dim", "qwen2-untied"};

TEST(Calibrator, statistics_are_those_of_each_sample_run_whole_and_alone) {
  using enum FusedGroup;
  for (const char* name : kModels) {
    const CalibratedModel model(name);
    const Samples samples = long_samples(model.config().vocab_size);
    const std::vector<GroupStatistics> all = calibrate(model, samples, 2, false);
    std::map<std::pair<int64_t, FusedGroup>, std::vector<float>> values;
    std::vector<float> head;
    const auto runner = Model::load(model.folder(), {.n_threads = 2});
    for (const std::vector<int32_t>& sample : samples) {
      const testing::LinearInputs inputs = testing::linear_inputs(*runner, sample);
      for (const auto& [key, x] : inputs.groups)
        values[key].insert(values[key].end(), x.data.begin(), x.data.end());
      head.insert(head.end(), inputs.head.data.begin(), inputs.head.data.end());
    }
    for (int64_t layer = 0; layer < model.config().n_layers; ++layer) {
      const GroupStatistics& groups = all[static_cast<size_t>(layer)];
      EXPECT_EQ(groups.size(), 4U);
      for (const FusedGroup group : {kQkv, kAttentionOut, kGateUp, kDown}) {
        SCOPED_TRACE(std::string(name) + " " + std::to_string(layer) + " " +
                     std::string(formats::fused_group_name(group)));
        ASSERT_TRUE(groups.contains({group}));
        expect_statistics_of(values.at({layer, group}), groups.at({group}));
        EXPECT_FALSE(groups.at({group}).histogram);
      }
    }
    ASSERT_EQ(all.back().size(), 1U);
    expect_statistics_of(head, all.back().at({kHead}));
  }
}

TEST(Calibrator, samples_without_tokens_change_nothing) {
  const CalibratedModel model("llama-llama3-rope");
  Samples samples = long_samples(model.config().vocab_size);
  const std::string want = bits_of(calibrate(model, samples, 2, true));
  samples.insert(samples.begin() + 2, std::vector<int32_t>());
  samples.emplace_back();
  samples.insert(samples.begin(), std::vector<int32_t>());
  EXPECT_EQ(bits_of(calibrate(model, samples, 2, true)), want);
}

TEST(Calibrator, the_head_reads_the_final_norm_of_the_model) {
  const CalibratedModel model("qwen2-untied");
  const Samples samples = long_samples(model.config().vocab_size);
  std::vector<float> values;
  const auto whole = Model::load(model.folder());
  for (const std::vector<int32_t>& sample : samples) {
    Sequence sequence = whole->new_sequence();
    const BatchItem item{&sequence, sample};
    whole->forward({&item, 1}, {},
                   [&](int64_t stage, const quant::ConstMatrixF32& x, std::span<const RowOrigin>) {
                     if (stage != whole->config().n_layers + 1) return;
                     for (int64_t row = 0; row < x.n_rows; ++row) {
                       const float* from = x.data + row * x.row_stride;
                       values.insert(values.end(), from, from + x.n_cols);
                     }
                   });
  }
  expect_statistics_of(values, calibrate(model, samples, 1, false).back().at({FusedGroup::kHead}));
}

/// The residual stream behind `layer`, of all samples one after the other, as the model shows it.
std::vector<float> stream_behind(Model& model, const Samples& samples, int64_t layer) {
  std::vector<float> values;
  for (const std::vector<int32_t>& sample : samples) {
    Sequence sequence = model.new_sequence();
    const BatchItem item{&sequence, sample};
    model.forward({&item, 1}, {},
                  [&](int64_t stage, const quant::ConstMatrixF32& x, std::span<const RowOrigin>) {
                    if (stage != layer + 1) return;
                    for (int64_t row = 0; row < x.n_rows; ++row) {
                      const float* from = x.data + row * x.row_stride;
                      values.insert(values.end(), from, from + x.n_cols);
                    }
                  });
  }
  return values;
}

/// An observer that keeps what a layer gives.
LayerObserver output_keeper(std::vector<float>& values) {
  LayerObserver observer;
  observer.output = [&values](const quant::ConstMatrixF32& x) {
    values.insert(values.end(), x.data, x.data + x.n_rows * x.n_cols);
  };
  return observer;
}

TEST(Calibrator, hidden_states_are_the_models_and_looking_back_leaves_them) {
  const CalibratedModel model("qwen2-untied");
  const Samples samples = long_samples(model.config().vocab_size);
  const auto whole = Model::load(model.folder());
  quant::ThreadTeam team(2);
  CalibratorOptions options;
  options.keeps_inputs = true;
  Calibrator calibrator(model.source(), samples, options, team);
  const auto hidden = [&] {
    const quant::ConstMatrixF32 x = calibrator.hidden();
    EXPECT_EQ(x.n_cols, model.config().hidden_size);
    return std::vector<float>(x.data, x.data + x.n_rows * x.n_cols);
  };
  for (int64_t layer = 0; layer < model.config().n_layers; ++layer) {
    const LayerWeights weights = calibrator.next_weights();
    std::vector<float> shown;
    calibrator.run_next(weights, output_keeper(shown));
    const std::vector<float> want = stream_behind(*whole, samples, layer);
    EXPECT_EQ(hidden(), want) << layer;
    EXPECT_EQ(shown, want) << layer;

    LayerWeights without_mlp = weights;
    const std::vector<float> zeros(static_cast<size_t>(weights.down.n_out * weights.down.n_in));
    without_mlp.down.dtype = formats::DType::kF32;
    without_mlp.down.weight = std::as_bytes(std::span(zeros));
    std::vector<float> other;
    calibrator.look_back(without_mlp, output_keeper(other));
    ASSERT_EQ(other.size(), want.size());
    EXPECT_NE(other, want) << layer;
    EXPECT_EQ(hidden(), want) << layer;
  }
  calibrator.change_hidden([](const quant::MatrixF32& x) {
    for (int64_t i = 0; i < x.n_rows * x.n_cols; ++i) x.data[i] *= 2;
  });
  std::vector<float> doubled = stream_behind(*whole, samples, model.config().n_layers - 1);
  for (float& value : doubled) value *= 2;
  EXPECT_EQ(hidden(), doubled);
}

TEST(Calibrator, statistics_have_the_same_bits_for_every_number_of_threads) {
  std::string bits;
  for (const char* name : kModels) {
    const CalibratedModel model(name);
    const Samples samples = long_samples(model.config().vocab_size);
    const std::string one = bits_of(calibrate(model, samples, 1, true));
    EXPECT_EQ(bits_of(calibrate(model, samples, 2, true)), one) << name;
    EXPECT_EQ(bits_of(calibrate(model, samples, 3, true)), one) << name;
    bits += one;
  }
  if (testing::isa_child_output() != nullptr) testing::write_isa_result(bits);
}

TEST(IsaCalibrator, statistics_have_the_same_bits_on_every_instruction_set) {
  testing::expect_same_result_on_every_isa(
      "Calibrator.statistics_have_the_same_bits_for_every_number_of_threads");
}

TEST(Calibrator, histograms_are_made_where_asked_for_and_count_every_value) {
  const CalibratedModel model("llama-llama3-rope");
  const Samples samples = long_samples(model.config().vocab_size);
  const std::vector<GroupStatistics> with = calibrate(model, samples, 2, true);
  const std::vector<GroupStatistics> without = calibrate(model, samples, 2, false);
  ASSERT_EQ(with.size(), without.size());
  for (size_t i = 0; i < with.size(); ++i) {
    for (const auto& [group, statistics] : with[i]) {
      const RangeStatistics& plain = without[i].at(group);
      EXPECT_FALSE(plain.histogram);
      ASSERT_TRUE(statistics.histogram);
      EXPECT_EQ(statistics.histogram->min, statistics.min);
      EXPECT_EQ(statistics.histogram->max, statistics.max);
      double sum = 0.0;
      for (const double count : statistics.histogram->counts) sum += count;
      const auto n = static_cast<double>(statistics.n);
      EXPECT_NEAR(sum, n, n * quant::kHistogramBins * 0x1p-53);
      EXPECT_EQ(statistics.n, plain.n);
      EXPECT_EQ(statistics.min, plain.min);
      EXPECT_EQ(statistics.max, plain.max);
      EXPECT_EQ(statistics.mean, plain.mean);
      EXPECT_EQ(statistics.deviation, plain.deviation);
    }
  }
}

// ---- progress and errors ------------------------------------------------------------------------

template <typename Fn>
std::string error_of(ErrorCode code, const Fn& fn) {
  try {
    fn();
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(Calibrator, every_token_of_every_layer_is_reported) {
  const CalibratedModel model("llama-llama3-rope");
  int64_t n_tokens = 0;
  quant::ThreadTeam team(2);
  const CalibratorOptions options{.on_tokens = [&](int64_t n) {
    EXPECT_GT(n, 0);
    EXPECT_LE(n, Calibrator::kRowsPerBatch);
    n_tokens += n;
  }};
  Calibrator calibrator(model.source(), long_samples(128), options, team);
  EXPECT_EQ(n_tokens, 0);
  calibrator.advance();
  EXPECT_EQ(n_tokens, 1566);
  calibrator.advance();
  EXPECT_EQ(n_tokens, 2 * 1566);
}

TEST(Calibrator, what_the_progress_callback_throws_ends_the_layer) {
  struct GivenUp {};
  const CalibratedModel model("llama-llama3-rope");
  quant::ThreadTeam team(2);
  int n_calls = 0;
  const CalibratorOptions options{.on_tokens = [&](int64_t) {
    if (++n_calls == 2) throw GivenUp();
  }};
  Calibrator calibrator(model.source(), long_samples(128), options, team);
  EXPECT_THROW(calibrator.advance(), GivenUp);
  EXPECT_EQ(n_calls, 2);
}

TEST(Calibrator, ids_outside_the_vocabulary_are_refused) {
  const CalibratedModel model("llama-llama3-rope");
  quant::ThreadTeam team(1);
  for (const int32_t wrong : {128, -1}) {
    const std::string error = error_of(ErrorCode::kBadInput, [&] {
      Calibrator(model.source(), {{1, 2}, {3, wrong, 4}}, {}, team);
    });
    EXPECT_THAT(error, HasSubstr(std::to_string(wrong)));
  }
}

TEST(Calibrator, layers_are_run_once_and_the_head_after_them) {
  const CalibratedModel model("llama-llama3-rope");
  quant::ThreadTeam team(1);
  Calibrator calibrator(model.source(), {{1, 2, 3}}, {}, team);
  error_of(ErrorCode::kInternal, [&] { calibrator.head(); });
  calibrator.advance();
  error_of(ErrorCode::kInternal, [&] { calibrator.head(); });
  calibrator.advance();
  error_of(ErrorCode::kInternal, [&] { calibrator.advance(); });
  EXPECT_EQ(calibrator.head().at({FusedGroup::kHead}).n, 3 * 32);
}

/// The error of the first layer, or the head, of the model `changed` that fails, and that layer.
std::pair<int64_t, std::string> first_error(const NewTensors& changed) {
  const CalibratedModel model("llama-llama3-rope", changed);
  quant::ThreadTeam team(2);
  Calibrator calibrator(model.source(), long_samples(128), {}, team);
  for (int64_t layer = 0;; ++layer) {
    try {
      if (layer == model.config().n_layers) {
        calibrator.head();
        return {layer, ""};
      }
      calibrator.advance();
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return {layer, error.what()};
    }
  }
}

/// Weights of one module of a layer, times `factor`.
void enlarge(NewTensors& changed, int64_t layer, const std::string& module, float factor) {
  static const NewTensors tensors =
      testing::read_tensors(testing::golden_root() / "llama-llama3-rope");
  const std::string name = "model.layers." + std::to_string(layer) + "." + module + ".weight";
  std::vector<float> values = testing::float_values(tensors.at(name));
  for (float& value : values) value *= factor;
  changed[name] = testing::new_tensor(formats::DType::kF32, tensors.at(name).shape, values);
}

TEST(Calibrator, activations_that_are_not_finite_are_refused_by_layer_and_group) {
  NewTensors changed;
  enlarge(changed, 1, "mlp.gate_proj", 1e30F);
  enlarge(changed, 1, "mlp.up_proj", 1e30F);
  const auto [down_layer, down] = first_error(changed);
  EXPECT_EQ(down_layer, 1);
  EXPECT_THAT(down, ContainsRegex("layer.? ?1[^0-9]"));
  EXPECT_THAT(down, HasSubstr("down"));

  for (const int64_t layer : {0, 1}) {
    changed.clear();
    enlarge(changed, layer, "mlp.up_proj", 1e30F);
    enlarge(changed, layer, "mlp.down_proj", 1e20F);
    const auto [at, message] = first_error(changed);
    EXPECT_EQ(at, layer + 1);
    EXPECT_THAT(message, HasSubstr(layer == 0 ? "qkv" : "head"));
    if (layer == 0) {
      EXPECT_THAT(message, ContainsRegex("layer.? ?1[^0-9]"));
    }
  }
}

}  // namespace
}  // namespace llmq::runtime
