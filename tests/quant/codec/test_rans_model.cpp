#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "formats/error.h"
#include "quant/codec/rans_encoder.h"
#include "quant/codec/rans_model.h"

namespace llmq::quant {
namespace {

using ::testing::HasSubstr;

uint64_t total_of(const CodeHistogram& histogram) {
  return std::accumulate(histogram.begin(), histogram.end(), uint64_t{0});
}

// Bits a code under a model, escaped bytes included, in exact arithmetic.
double model_bits(const CodeHistogram& histogram, const RansModel& model) {
  double bits = 0.0;
  for (size_t code = 0; code < histogram.size(); ++code) {
    if (histogram[code] == 0) continue;
    const bool escaped = model.is_escaped(static_cast<uint8_t>(code));
    const double frequency = model.frequency[escaped ? model.escape_code : code];
    bits += static_cast<double>(histogram[code]) * (12.0 - std::log2(frequency));
    if (escaped) bits += 8.0 * static_cast<double>(histogram[code]);
  }
  return bits / static_cast<double>(total_of(histogram));
}

// Discretized Laplace distribution: every code occurs, the outer ones hardly ever.
CodeHistogram laplace_histogram(double decay, uint64_t n_codes) {
  CodeHistogram histogram{};
  const double whole = (1.0 + decay) / (1.0 - decay);
  for (int code = -127; code <= 127; ++code) {
    const double share = std::pow(decay, std::abs(code)) / whole;
    histogram[static_cast<uint8_t>(code)] =
        1 + static_cast<uint64_t>(share * static_cast<double>(n_codes));
  }
  return histogram;
}

std::string error_of_parsing(std::vector<std::byte> bytes) {
  try {
    parse_rans_model(bytes);
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(RansModel, EveryCodeHasAFrequencyOrIsEscapedAndFrequenciesFillTheTable) {
  for (const double decay : {0.0, 0.3, 0.6, 0.9, 0.99}) {
    const CodeHistogram histogram = laplace_histogram(decay, 1 << 24);
    const RansModel model = choose_rans_model(histogram);
    const int sum = std::accumulate(model.frequency.begin(), model.frequency.end(), 0);
    EXPECT_EQ(sum, kRansSlots);
    for (size_t code = 0; code < histogram.size(); ++code) {
      if (histogram[code] == 0) continue;
      EXPECT_TRUE(model.frequency[code] > 0 || model.is_escaped(static_cast<uint8_t>(code)));
    }
  }
}

TEST(RansModel, TailsOfRareCodesAreEscapedWhereThatIsShorter) {
  // Slots for all 255 codes would take a sixteenth of the table for codes that hardly occur, and
  // cost every code log2(1 − 230/4096) = 0.08 bits.
  const CodeHistogram histogram = laplace_histogram(0.7, 1 << 24);
  const RansModel model = choose_rans_model(histogram);
  EXPECT_TRUE(model.has_escape);
  const double entropy = entropy_bits(histogram);
  EXPECT_GT(model_bits(histogram, model), entropy);
  EXPECT_LT(model_bits(histogram, model), 1.002 * entropy);
}

TEST(RansModel, NoFrequencyCanGiveASlotToAnotherAndSaveBits) {
  std::mt19937 random(3);
  std::uniform_int_distribution<uint64_t> count(1, 5000);
  CodeHistogram histogram{};
  for (size_t code = 0; code < 40; ++code) histogram[code * 5] = count(random) * count(random);
  const RansModel model = choose_rans_model(histogram);
  ASSERT_FALSE(model.has_escape);
  const double bits = model_bits(histogram, model);
  // Logarithms of 24 binary places can mistake differences of about 2^-24 bits a code.
  constexpr double kLogarithmError = 0x1p-23;
  for (size_t from = 0; from < 200; from += 5) {
    for (size_t to = 0; to < 200; to += 5) {
      if (from == to || model.frequency[from] < 2) continue;
      RansModel other = model;
      --other.frequency[from];
      ++other.frequency[to];
      EXPECT_GE(model_bits(histogram, other), bits - kLogarithmError) << from << ' ' << to;
    }
  }
}

TEST(RansModel, ASingleCodeOwnsTheWholeTable) {
  CodeHistogram histogram{};
  histogram[0xfe] = 12345;
  const RansModel model = choose_rans_model(histogram);
  EXPECT_EQ(model.frequency[0xfe], kRansSlots);
  EXPECT_FALSE(model.has_escape);
  EXPECT_EQ(entropy_bits(histogram), 0.0);
}

TEST(RansModel, NothingToCodeIsAMistakeOfTheCaller) {
  EXPECT_THROW(choose_rans_model({}), formats::Error);
}

TEST(RansModel, BytesComeBackAsTheModel) {
  for (const double decay : {0.0, 0.7, 0.99}) {
    const RansModel model = choose_rans_model(laplace_histogram(decay, 1 << 20));
    const RansModel again = parse_rans_model(serialize_rans_model(model));
    EXPECT_EQ(again.frequency, model.frequency);
    EXPECT_EQ(again.has_escape, model.has_escape);
    EXPECT_EQ(again.escape_code, model.escape_code);
  }
}

TEST(RansModel, RefusesTablesThatNoWriterWrites) {
  const RansModel model = choose_rans_model(laplace_histogram(0.7, 1 << 20));
  const std::vector<std::byte> good = serialize_rans_model(model);
  ASSERT_TRUE(model.has_escape);

  auto bytes = good;
  bytes.resize(33);
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("33 bytes, fewer than 34"));
  bytes = good;
  bytes.pop_back();
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("cut short"));
  bytes = good;
  bytes.push_back(std::byte{0});
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("sum to 4096"));
  bytes = good;
  bytes[34] ^= std::byte{1};  // the frequency of the first code
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("frequenc"));
  bytes = good;
  bytes[34] = bytes[35] = std::byte{0};
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("frequency 0"));
  bytes = good;
  bytes[35] = std::byte{0xff};
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("not possible"));
  bytes = good;
  bytes[0] = std::byte{2};
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("escape"));
  bytes = good;
  bytes[0] = std::byte{0};
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("escape"));
  bytes = good;
  bytes[1] = std::byte{100};  // has no frequency
  ASSERT_EQ(model.frequency[100], 0);
  EXPECT_THAT(error_of_parsing(bytes), HasSubstr("escape"));
}

TEST(RansModel, SlotsOfACodeFollowEachOther) {
  RansModel model;
  model.frequency[3] = 4000;
  model.frequency[200] = 96;
  const RansSlotTable slots = make_rans_slots(model);
  EXPECT_EQ(slots[0], rans_slot(4000, 0, 3));
  EXPECT_EQ(slots[3999], rans_slot(4000, 3999, 3));
  EXPECT_EQ(slots[4095], rans_slot(96, 95, 200));
}

// The definition, with a division: the encoder multiplies by reciprocals.
TEST(RansEncoder, StatesAreThoseOfTheDefinitionForEveryFrequency) {
  for (uint32_t frequency = 1; frequency < kRansSlots; ++frequency) {
    RansModel model;
    model.frequency[1] = static_cast<uint16_t>(frequency);
    model.frequency[2] = static_cast<uint16_t>(kRansSlots - frequency);
    const RansEncoder encoder(model);
    RansEncoder::Scratch scratch;
    std::vector<uint8_t> codes(3 * kRansLanes, 1);
    codes[2 * kRansLanes + 3] = 2;
    const RansStreamBytes stream = encoder.encode(codes, scratch);
    for (size_t lane = 0; lane < kRansLanes; ++lane) {
      uint32_t state = kRansLow;
      for (size_t step = 3; step-- > 0;) {
        const uint8_t code = codes[step * kRansLanes + lane];
        const uint32_t f = model.frequency[code];
        const uint32_t first = code == 1 ? 0 : frequency;
        if (state >= uint64_t{f} << 20) state >>= 16;
        state = (state / f << kRansSlotBits) + first + state % f;
      }
      ASSERT_EQ(stream.states.at(lane), state) << frequency << ' ' << lane;
    }
  }
}

}  // namespace
}  // namespace llmq::quant
