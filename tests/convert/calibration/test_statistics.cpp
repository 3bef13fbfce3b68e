#include "convert/calibration/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

using formats::ErrorCode;
using formats::FusedGroup;
using formats::Json;
using test::error_message;
using testing::AllOf;
using testing::HasSubstr;

formats::ModelConfig model_config() {
  formats::ModelConfig config;
  config.model_type = "qwen2";
  config.n_layers = 2;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  return config;
}

CalibrationStatistics one_group(const quant::RangeStatistics& seen) {
  CalibrationStatistics statistics;
  statistics.texts = "texts \"quoted\", größer.jsonl";
  statistics.n_samples = 3;
  statistics.n_tokens = int64_t{1} << 53;
  statistics.model_type = "qwen2";
  statistics.n_layers = 2;
  statistics.hidden_size = 64;
  statistics.intermediate_size = 128;
  statistics.groups[{1, FusedGroup::kQkv}] = seen;
  return statistics;
}

quant::Histogram histogram_of(float min, float max) {
  quant::Histogram histogram{min, max, std::vector<double>(quant::kHistogramBins, 0.0)};
  histogram.counts.front() = 1.0 / 3.0;
  histogram.counts[1000] = 0x1p-1074;
  histogram.counts[1001] = 1e17 + 2;
  histogram.counts.back() = std::nextafter(5.0, 6.0);
  return histogram;
}

class Statistics : public testing::Test {
 protected:
  CalibrationStatistics read(const std::string& text) {
    test::write_file(path_, text);
    return read_statistics(path_, config_);
  }
  std::string refusal(const std::string& text) {
    return error_message(ErrorCode::kBadInput, [&] { (void)read(text); });
  }
  CalibrationStatistics again(const CalibrationStatistics& statistics) {
    return read(statistics_json(statistics).dump());
  }

  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "stats.json";
  formats::ModelConfig config_ = model_config();
};

void expect_same_bits(float a, float b) {
  EXPECT_EQ(std::bit_cast<uint32_t>(a), std::bit_cast<uint32_t>(b)) << a << " became " << b;
}

void expect_same_bits(double a, double b) {
  EXPECT_EQ(std::bit_cast<uint64_t>(a), std::bit_cast<uint64_t>(b)) << a << " became " << b;
}

void expect_same(const quant::RangeStatistics& a, const quant::RangeStatistics& b) {
  EXPECT_EQ(a.n, b.n);
  expect_same_bits(a.min, b.min);
  expect_same_bits(a.max, b.max);
  expect_same_bits(a.mean, b.mean);
  expect_same_bits(a.deviation, b.deviation);
  ASSERT_EQ(a.histogram.has_value(), b.histogram.has_value());
  if (!a.histogram) return;
  expect_same_bits(a.histogram->min, b.histogram->min);
  expect_same_bits(a.histogram->max, b.histogram->max);
  ASSERT_EQ(a.histogram->counts.size(), b.histogram->counts.size());
  for (size_t bin = 0; bin < a.histogram->counts.size(); ++bin)
    expect_same_bits(a.histogram->counts[bin], b.histogram->counts[bin]);
}

TEST_F(Statistics, EveryFloatComesBackBitForBit) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kSubnormal = std::numeric_limits<float>::denorm_min();
  const std::vector<std::pair<float, float>> ranges = {{-kMax, kMax},
                                                       {-kSubnormal, kSubnormal},
                                                       {-1.0F / 3, 1.0F / 3},
                                                       {0.0F, 0.0F},
                                                       {-0x1.fffffep-127F, 0.1F},
                                                       {-16777217.0F, 0x1.000002p+0F},
                                                       {-kMax / 3, -kMax / 5.F}};
  for (const auto& [min, max] : ranges) {
    for (const bool with_histogram : {false, true}) {
      quant::RangeStatistics seen{int64_t{1} << 60, min, max, -1.0 / 3, 0x1.23456789abcdep-1040};
      if (with_histogram) seen.histogram = histogram_of(min, max);
      const CalibrationStatistics statistics = one_group(seen);
      const CalibrationStatistics back = again(statistics);
      ASSERT_EQ(back.groups.size(), 1U);
      expect_same(seen, back.groups.at({1, FusedGroup::kQkv}));
    }
  }
}

TEST_F(Statistics, WhatWasRunIsKept) {
  const CalibrationStatistics statistics = one_group({4, -1.0F, 1.0F, 0.0, 1.0});
  const CalibrationStatistics back = again(statistics);
  EXPECT_EQ(back.texts, statistics.texts);
  EXPECT_EQ(back.n_samples, 3);
  EXPECT_EQ(back.n_tokens, int64_t{1} << 53);
  EXPECT_EQ(back.model_type, "qwen2");
  EXPECT_EQ(back.n_layers, 2);
  EXPECT_EQ(back.hidden_size, 64);
  EXPECT_EQ(back.intermediate_size, 128);
  EXPECT_TRUE(back.first_samples.empty());
}

TEST_F(Statistics, EveryGroupAndTheSpreadOfTheFirstSamplesComeBack) {
  CalibrationStatistics statistics = one_group({4, -1.0F, 1.0F, 0.0, 1.0});
  for (const FusedGroup group :
       {FusedGroup::kQkv, FusedGroup::kAttentionOut, FusedGroup::kGateUp, FusedGroup::kDown,
        FusedGroup::kExpertGateUp, FusedGroup::kExpertDown}) {
    statistics.groups[{0, group}] = {5, -2.0F, static_cast<float>(group), 0.5, 0.25};
    statistics.first_samples[{0, group}] = 1.0 / (3 + static_cast<int>(group));
  }
  statistics.groups[{-1, FusedGroup::kHead}] = {6, -3.0F, 3.0F, 0.0, 2.0};
  statistics.first_samples[{-1, FusedGroup::kHead}] = 1e300;
  const CalibrationStatistics back = again(statistics);
  EXPECT_EQ(back.first_samples, statistics.first_samples);
  ASSERT_EQ(back.groups.size(), statistics.groups.size());
  for (const auto& [key, seen] : statistics.groups) expect_same(seen, back.groups.at(key));
}

// A group whose inputs are all one number spreads infinitely (RangeStatistics::max_over_std), which
// JSON has no number for.
TEST_F(Statistics, InfiniteSpreadOfTheFirstSamplesComesBack) {
  CalibrationStatistics statistics = one_group({4, 1.0F, 1.0F, 1.0, 0.0});
  const GroupKey key{1, FusedGroup::kQkv};
  statistics.first_samples[key] = statistics.groups.at(key).max_over_std();
  ASSERT_TRUE(std::isinf(statistics.first_samples.at(key)));
  EXPECT_EQ(again(statistics).first_samples, statistics.first_samples);
}

TEST_F(Statistics, ChosenRangesAreWrittenForReadersAndNotReadBack) {
  CalibrationStatistics statistics = one_group({4, -1.0F, 1.0F, 0.0, 1.0});
  statistics.ranges[{1, FusedGroup::kQkv}] = {-0.5F, 0.75F, quant::ActMethod::kHistogram};
  const Json range = statistics_json(statistics)["groups"][0]["range"];
  EXPECT_EQ(range["min"], -0.5);
  EXPECT_EQ(range["max"], 0.75);
  EXPECT_EQ(range["act_method"], 2);
  EXPECT_TRUE(again(statistics).ranges.empty());
}

struct Damage {
  std::string name;
  std::function<void(Json& document)> apply;
  std::string words;  ///< what the message must say beside the file
};

// NOLINTNEXTLINE(readability-identifier-naming): the name is GoogleTest's.
void PrintTo(const Damage& damage, std::ostream* stream) {
  *stream << damage.name;
}

Damage missing(const std::string& name, const std::string& pointer, const std::string& key) {
  return {name,
          [pointer, key](Json& document) { document[Json::json_pointer(pointer)].erase(key); },
          "\"" + key + "\" is missing"};
}

Damage set(const std::string& name, const std::string& pointer, const Json& value,
           const std::string& words) {
  return {name, [pointer, value](Json& document) { document[Json::json_pointer(pointer)] = value; },
          words};
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = {
      set("another_format", "/format", "llmq-statistics-0", "\"format\""),
      missing("no_texts", "", "texts"),
      missing("no_samples", "", "samples"),
      missing("no_tokens", "", "tokens"),
      missing("no_model", "", "model"),
      missing("no_groups", "", "groups"),
      missing("no_model_type", "/model", "model_type"),
      missing("no_layers", "/model", "n_layers"),
      missing("no_hidden_size", "/model", "hidden_size"),
      missing("no_intermediate_size", "/model", "intermediate_size"),
      missing("no_layer", "/groups/0", "layer"),
      missing("no_group", "/groups/0", "group"),
      missing("no_n", "/groups/0", "n"),
      missing("no_min", "/groups/0", "min"),
      missing("no_max", "/groups/0", "max"),
      missing("no_mean", "/groups/0", "mean"),
      missing("no_std", "/groups/0", "std"),
      missing("no_histogram_min", "/groups/0/histogram", "min"),
      missing("no_histogram_max", "/groups/0/histogram", "max"),
      missing("no_counts", "/groups/0/histogram", "counts"),
      missing("no_spread", "/first_samples/0", "max_over_std"),
      set("format_is_a_number", "/format", 1, "\"format\""),
      set("texts_is_a_list", "/texts", Json::array(), "\"texts\""),
      set("no_sample", "/samples", 0, "\"samples\""),
      set("half_a_token", "/tokens", 1.5, "\"tokens\""),
      set("model_is_a_text", "/model", "qwen2", "model"),
      set("groups_is_an_object", "/groups", Json::object(), "\"groups\""),
      set("group_is_a_list", "/groups/0", Json::array(), "group 1"),
      set("layer_below_the_head", "/groups/0/layer", -2, "\"layer\""),
      set("layer_beyond_the_model", "/groups/0/layer", 2, "\"layer\""),
      set("layer_beyond_int64", "/groups/0/layer", 18446744073709551615ULL, "\"layer\""),
      set("layer_is_a_text", "/groups/0/layer", "1", "\"layer\""),
      set("unknown_group", "/groups/0/group", "q_k_v", "\"q_k_v\""),
      set("group_is_a_number", "/groups/0/group", 1, "\"group\""),
      set("nothing_observed", "/groups/0/n", 0, "\"n\""),
      set("min_is_a_text", "/groups/0/min", "-1", "\"min\""),
      set("min_is_null", "/groups/0/min", nullptr, "\"min\""),
      set("min_above_max", "/groups/0/min", 7.0, "min"),
      set("min_is_no_float32", "/groups/0/min", -0.1, "\"min\""),
      set("max_is_no_float32", "/groups/0/max", 1e39, "\"max\""),
      set("mean_is_a_bool", "/groups/0/mean", true, "\"mean\""),
      set("std_is_negative", "/groups/0/std", -1.0, "std"),
      set("histogram_is_a_list", "/groups/0/histogram", Json::array(), "histogram"),
      set("histogram_min_above_max", "/groups/0/histogram/min", 7.0, "min"),
      set("histogram_max_is_no_float32", "/groups/0/histogram/max", 0.3, "\"max\""),
      set("counts_is_a_number", "/groups/0/histogram/counts", 2048, "\"counts\""),
      set("one_count_too_few", "/groups/0/histogram/counts", std::vector<double>(2047, 1.0),
          "2048"),
      set("one_count_too_many", "/groups/0/histogram/counts", std::vector<double>(2049, 1.0),
          "2048"),
      set("negative_count", "/groups/0/histogram/counts/7", -1.0, "\"counts\""),
      set("count_is_a_text", "/groups/0/histogram/counts/7", "1", "\"counts\""),
      set("all_counts_zero", "/groups/0/histogram/counts", std::vector<double>(2048, 0.0),
          "\"counts\""),
      set("first_samples_is_an_object", "/first_samples", Json::object(), "\"first_samples\""),
      set("spread_is_a_text", "/first_samples/0/max_over_std", "4", "\"max_over_std\""),
      set("spread_is_negative", "/first_samples/0/max_over_std", -4.0, "\"max_over_std\""),
      set("spread_of_an_unknown_group", "/first_samples/0/group", "all", "\"all\""),
      set("more_layers", "/model/n_layers", 3, "another model"),
      set("another_hidden_size", "/model/hidden_size", 65, "\"hidden_size\" is 65"),
      set("another_intermediate_size", "/model/intermediate_size", 1, "\"intermediate_size\" is 1"),
      {"the_same_group_twice",
       [](Json& document) { document["groups"].push_back(document["groups"][0]); }, "twice"},
  };
  return all;
}

Json whole_document() {
  CalibrationStatistics statistics = one_group({4, -1.0F, 1.0F, 0.0, 1.0});
  statistics.groups.begin()->second.histogram = histogram_of(-1.0F, 1.0F);
  statistics.first_samples[{1, FusedGroup::kQkv}] = 4.0;
  return statistics_json(statistics);
}

class DamagedStatistics : public Statistics, public testing::WithParamInterface<Damage> {};

TEST_P(DamagedStatistics, IsRefusedNamingFileAndKey) {
  Json document = whole_document();
  ASSERT_NO_THROW((void)read(document.dump())) << "the undamaged document is read";
  GetParam().apply(document);
  EXPECT_THAT(refusal(document.dump()),
              AllOf(HasSubstr(path_.string()), HasSubstr(GetParam().words)));
}

INSTANTIATE_TEST_SUITE_P(Unit, DamagedStatistics, testing::ValuesIn(damages()),
                         [](const auto& instance) { return instance.param.name; });

TEST_F(Statistics, WhatIsNoObjectOrNoJsonIsRefusedNamingTheFile) {
  for (const std::string text : {"", "[]", "7", "{", "{\"format\":", "\xff\xfe", "null"})
    EXPECT_THAT(refusal(text), HasSubstr(path_.string())) << text;
  EXPECT_THAT(refusal("{}"), HasSubstr("--save-stats"));
}

// Numbers that JSON, or a double, cannot hold.
TEST_F(Statistics, NanAndNumbersBeyondDoubleAreRefusedNamingTheFile) {
  const std::string text = whole_document().dump();
  const std::string mean = "\"mean\":0.0";
  ASSERT_NE(text.find(mean), std::string::npos);
  for (const std::string number : {"NaN", "Infinity", "1e400", "-1e400"}) {
    std::string damaged = text;
    damaged.replace(damaged.find(mean), mean.size(), "\"mean\":" + number);
    EXPECT_THAT(refusal(damaged), HasSubstr(path_.string())) << number;
  }
}

TEST_F(Statistics, MissingFileIsNamed) {
  EXPECT_THAT(error_message(ErrorCode::kBadInput,
                            [&] { (void)read_statistics(folder_ / "nothing.json", config_); }),
              HasSubstr("nothing.json"));
}

}  // namespace
}  // namespace llmq::convert
