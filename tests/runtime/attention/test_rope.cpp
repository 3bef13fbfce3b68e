#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "formats/error.h"
#include "formats/json.h"
#include "formats/model_config.h"
#include "runtime/attention/rope.h"

namespace llmq::runtime {
namespace {

using formats::Json;
using formats::ModelConfig;

ModelConfig config_of(int64_t head_dim, double theta, int64_t max_positions, const Json& scaling) {
  Json document = {{"model_type", "llama"},
                   {"hidden_size", head_dim * 2},
                   {"intermediate_size", 8},
                   {"num_hidden_layers", 1},
                   {"num_attention_heads", 2},
                   {"vocab_size", 8},
                   {"max_position_embeddings", max_positions},
                   {"rope_theta", theta},
                   {"rope_scaling", scaling}};
  return formats::parse_model_config(document, "test");
}

/// The tables below state nine digits; frequencies are rounded to float32 after that.
void expect_frequency(const RopeFrequencies& frequencies, size_t pair, double want) {
  EXPECT_NEAR(frequencies.inv_freq.at(pair), want, want * 0x1p-24 + want * 1e-8) << "pair " << pair;
}

TEST(Rope, plain_frequencies_are_powers_of_the_base) {
  const std::array<std::array<double, 5>, 3> table{{
      {1e4, 0.865964323, 0.0115478198, 0.01, 1.15478198e-4},
      {1e6, 0.805842188, 0.00124093776, 0.001, 1.24093776e-6},
      {1e7, 0.777365030, 4.06794432e-4, 3.16227766e-4, 1.28639694e-7},
  }};
  for (const auto& row : table) {
    const RopeFrequencies f = rope_frequencies(config_of(128, row[0], 4096, nullptr));
    ASSERT_EQ(f.inv_freq.size(), 64U);
    EXPECT_EQ(f.inv_freq[0], 1.0F);
    EXPECT_EQ(f.attention_factor, 1.0);
    expect_frequency(f, 1, row[1]);
    expect_frequency(f, 31, row[2]);
    expect_frequency(f, 32, row[3]);
    expect_frequency(f, 63, row[4]);
  }
}

TEST(Rope, linear_scaling_divides_every_frequency) {
  const auto plain = rope_frequencies(config_of(64, 1e4, 4096, nullptr));
  const auto scaled =
      rope_frequencies(config_of(64, 1e4, 4096, {{"type", "linear"}, {"factor", 8.0}}));
  for (size_t i = 0; i < plain.inv_freq.size(); ++i)
    EXPECT_EQ(scaled.inv_freq[i], plain.inv_freq[i] / 8.0F);
}

TEST(Rope, yarn_frequencies_and_temperature_are_the_worked_ones) {
  struct Row {
    double theta;
    int64_t original;
    double factor;
    double temperature;
    std::array<double, 6> frequencies;  // pairs 23, 24, 31, 39, 40, 63
  };
  const std::array<Row, 3> table{{
      {1e6,
       32768,
       4,
       1.138629436,
       {6.97830585e-3, 5.37532149e-3, 8.02959728e-4, 6.49039432e-5, 4.44569853e-5, 3.10234440e-7}},
      {1e6,
       32768,
       32,
       1.346573590,
       {6.97830585e-3, 5.30296139e-3, 6.75216135e-4, 1.94711830e-5, 5.55712316e-6, 3.87793050e-8}},
      {1e4,
       4096,
       8,
       1.207944154,
       {3.28305586e-2, 2.73658644e-2, 7.27290577e-3, 1.31673363e-3, 1.03382154e-3, 1.44347748e-5}},
  }};
  const std::array<size_t, 6> pairs{23, 24, 31, 39, 40, 63};
  for (const Row& row : table) {
    // The file states an extended length; the ramp is taken from the original one.
    const auto f =
        rope_frequencies(config_of(128, row.theta, 131072,
                                   {{"rope_type", "yarn"},
                                    {"factor", row.factor},
                                    {"original_max_position_embeddings", row.original}}));
    EXPECT_NEAR(f.attention_factor, row.temperature, 1e-9);
    for (size_t i = 0; i < pairs.size(); ++i) expect_frequency(f, pairs[i], row.frequencies[i]);
  }
}

TEST(Rope, yarn_attention_factor_replaces_the_formula) {
  Json scaling = {{"type", "yarn"}, {"factor", 4.0}, {"attention_factor", 1.5}};
  EXPECT_EQ(rope_frequencies(config_of(64, 1e4, 4096, scaling)).attention_factor, 1.5);
  scaling = {{"type", "yarn"}, {"factor", 4.0}, {"mscale", 0.707}, {"mscale_all_dim", 0.5}};
  EXPECT_NEAR(rope_frequencies(config_of(64, 1e4, 4096, scaling)).attention_factor,
              (0.1 * 0.707 * std::log(4.0) + 1) / (0.1 * 0.5 * std::log(4.0) + 1), 1e-12);
}

TEST(Rope, llama3_frequencies_are_the_worked_ones) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  const auto plain = rope_frequencies(config_of(128, 5e5, 131072, nullptr));
  const auto f = rope_frequencies(config_of(128, 5e5, 131072, scaling));
  for (size_t i = 0; i <= 28; ++i) EXPECT_EQ(f.inv_freq[i], plain.inv_freq[i]) << i;
  const std::array<double, 6> blended{0.00216657076, 0.00137189357, 8.56751413e-4,
                                      5.24846161e-4, 3.12693750e-4, 1.78507813e-4};
  for (size_t i = 0; i < blended.size(); ++i) expect_frequency(f, 29 + i, blended[i]);
  for (size_t i = 35; i < 64; ++i) EXPECT_EQ(f.inv_freq[i], plain.inv_freq[i] / 8.0F) << i;
  expect_frequency(f, 63, 3.06892599e-7);
  EXPECT_EQ(f.attention_factor, 1.0);
}

TEST(Rope, llama3_of_64_lanes_and_factor_32_changes_pairs_15_to_17_partly) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  const auto plain = rope_frequencies(config_of(64, 5e5, 131072, nullptr));
  const auto f = rope_frequencies(config_of(64, 5e5, 131072, scaling));
  EXPECT_EQ(f.inv_freq[14], plain.inv_freq[14]);
  for (size_t i = 15; i < 18; ++i) {
    EXPECT_LT(f.inv_freq[i], plain.inv_freq[i]);
    EXPECT_GT(f.inv_freq[i], plain.inv_freq[i] / 32.0F);
  }
  EXPECT_EQ(f.inv_freq[18], plain.inv_freq[18] / 32.0F);
}

TEST(Rope, kinds_that_depend_on_the_length_are_refused) {
  for (const Json& scaling :
       {Json{{"type", "dynamic"}, {"factor", 2.0}},
        Json{{"type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}}}) {
    EXPECT_THROW(rope_frequencies(config_of(64, 1e4, 4096, scaling)), formats::Error);
  }
}

TEST(Rope, positions_extend_by_the_factor_where_the_kind_says_so) {
  EXPECT_EQ(max_positions(config_of(64, 1e4, 4096, nullptr)), 4096);
  EXPECT_EQ(max_positions(config_of(64, 1e4, 4096, {{"type", "linear"}, {"factor", 2.5}})), 10240);
  EXPECT_EQ(max_positions(config_of(64, 1e4, 32768, {{"type", "yarn"}, {"factor", 4.0}})), 131072);
  const Json yarn = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  EXPECT_EQ(max_positions(config_of(64, 1e4, 131072, yarn)), 131072);
  const Json llama3 = {
      {"rope_type", "llama3"}, {"factor", 8.0}, {"original_max_position_embeddings", 8192}};
  EXPECT_EQ(max_positions(config_of(64, 5e5, 131072, llama3)), 131072);
}

// The table row of a position is compared with long double arithmetic on the same float32
// frequencies: what remains is the rounding of float64 angles (1e6 · 2^-53) and of the results.
TEST(Rope, angles_near_a_million_are_exact_to_the_last_float_bit) {
  RopeTable table(rope_frequencies(config_of(128, 1e6, 1048576, nullptr)));
  const std::vector<int64_t> positions{0, 1, 262143, 999999, 1048575};
  table.set_positions(positions);
  for (size_t row = 0; row < positions.size(); ++row) {
    for (size_t pair = 0; pair < 64; ++pair) {
      const long double angle =
          static_cast<long double>(positions[row]) * table.frequencies().inv_freq[pair];
      const double tolerance = 0x1p-25 + 1e-9;
      const auto at = static_cast<int64_t>(row);
      EXPECT_NEAR(table.cosines(at)[pair], static_cast<double>(std::cos(angle)), tolerance)
          << positions[row];
      EXPECT_NEAR(table.sines(at)[pair], static_cast<double>(std::sin(angle)), tolerance)
          << positions[row];
    }
  }
}

// Against angles from exact frequencies, only the rounding of inv_freq to float32 shows: at most
// position · inv_freq · 2^-24, the same for queries and keys.
TEST(Rope, angles_near_a_million_follow_the_reference_values) {
  struct Row {
    double theta;
    int64_t position;
    std::array<std::array<double, 2>, 4> values;  // cos, sin of pairs 0, 1, 32, 63
  };
  const std::array<Row, 4> table{{
      {1e6,
       262143,
       {{{-0.609161491, 0.793046202},
         {0.467278475, -0.884110189},
         {-0.179016365, -0.983846096},
         {0.947553885, 0.319596049}}}},
      {1e6,
       999999,
       {{{0.211619958, -0.977352032},
         {-0.640900959, -0.767623580},
         {0.563205675, 0.826316748},
         {0.323910397, 0.946087763}}}},
      {1e7,
       999999,
       {{{0.211619958, -0.977352032},
         {-0.653869779, 0.756607105},
         {-0.477131751, 0.878831777},
         {0.991737335, 0.128285068}}}},
      {5e5,
       999999,
       {{{0.211619958, -0.977352032},
         {0.126294676, 0.991992770},
         {0.879752934, 0.475431147},
         {-0.773498121, 0.633798593}}}},
  }};
  const std::array<size_t, 4> pairs{0, 1, 32, 63};
  for (const Row& row : table) {
    RopeTable rope(rope_frequencies(config_of(128, row.theta, 1048576, nullptr)));
    rope.set_positions(std::array{row.position});
    for (size_t i = 0; i < pairs.size(); ++i) {
      const double angle_error =
          static_cast<double>(row.position) * rope.frequencies().inv_freq[pairs[i]] * 0x1p-24;
      EXPECT_NEAR(rope.cosines(0)[pairs[i]], row.values[i][0], angle_error + 1e-7);
      EXPECT_NEAR(rope.sines(0)[pairs[i]], row.values[i][1], angle_error + 1e-7);
    }
  }
}

TEST(Rope, rotates_pairs_half_a_head_apart) {
  RopeTable rope(rope_frequencies(config_of(4, 1e4, 4096, nullptr)));
  rope.set_positions(std::array<int64_t, 1>{3});
  std::array<float, 8> heads{1, 2, 3, 4, 1, 2, 3, 4};
  rope.rotate(0, heads.data(), 2, 4);
  const std::array<double, 4> want{-1.413352521, 1.879118067, -2.828857482, 4.058191135};
  for (size_t i = 0; i < heads.size(); ++i) EXPECT_NEAR(heads[i], want[i % 4], 4 * 0x1p-22);
}

TEST(Rope, lanes_beyond_the_partial_factor_pass_through) {
  ModelConfig config = config_of(8, 1e4, 4096, nullptr);
  config.partial_rotary_factor = 0.5;
  RopeTable rope(rope_frequencies(config));
  ASSERT_EQ(rope.frequencies().rotary_dim(), 4);
  rope.set_positions(std::array<int64_t, 1>{3});
  std::array<float, 8> head{1, 2, 3, 4, 5, 6, 7, 8};
  rope.rotate(0, head.data(), 1, 8);
  EXPECT_NEAR(head[0], -1.413352521, 1e-6);
  for (size_t i = 4; i < 8; ++i) EXPECT_EQ(head[i], static_cast<float>(i + 1));
  config.partial_rotary_factor = 0.4;  // 3 lanes
  EXPECT_THROW(rope_frequencies(config), formats::Error);
}

}  // namespace
}  // namespace llmq::runtime
