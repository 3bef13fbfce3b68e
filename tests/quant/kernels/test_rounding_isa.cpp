// Every implementation of the rounding kernels against the scalar specification, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "formats/float16.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kSizeBytes[kNFloatTypes] = {2, 2, 4};
constexpr uint8_t kUntouched = 0xa5;

const std::vector<RoundingParams>& all_params() {
  static const std::vector<RoundingParams> params{
      {1.0F, 0.0F, -127.0F, 127.0F},      {0.013F, 0.0F, -127.0F, 127.0F},
      {0.0217F, -17.0F, -128.0F, 127.0F}, {0.11F, 3.0F, -8.0F, 7.0F},
      {0x1p-23F, 0.0F, -127.0F, 127.0F},  {1e-42F, 127.0F, -128.0F, 127.0F},
      {1e30F, -128.0F, -128.0F, 127.0F},  {0.5F, 20.0F, -8.0F, 7.0F}};
  return params;
}

// A row of n elements at an address that is `misalignment` past any boundary, with nothing behind
// it, so that AddressSanitizer sees a read past the end.
class Row {
 public:
  Row(size_t type, size_t n, size_t misalignment)
      : type_(type), misalignment_(misalignment), bytes_(misalignment + n * kSizeBytes[type]) {}

  void set(size_t index, float value) {
    if (type_ == 2) return set_bits(index, std::bit_cast<uint32_t>(value));
    set_bits(index, type_ == 0 ? formats::float_to_bf16(value) : formats::float_to_fp16(value));
  }
  void set_bits(size_t index, uint32_t bits) {
    std::memcpy(bytes_.data() + misalignment_ + index * kSizeBytes[type_], &bits,
                kSizeBytes[type_]);
  }
  [[nodiscard]] const void* data() const { return bytes_.data() + misalignment_; }
  [[nodiscard]] size_t n() const { return (bytes_.size() - misalignment_) / kSizeBytes[type_]; }
  [[nodiscard]] size_t type() const { return type_; }

 private:
  size_t type_;
  size_t misalignment_;
  Bytes bytes_;
};

// The kinds of content that the tests run over.
enum class Content { kWeights, kTies, kAnyBits, kSignedZeros, kLast };

Row make_row(size_t type, size_t n, size_t misalignment, Content content, std::mt19937& random) {
  Row row(type, n, misalignment);
  std::normal_distribution<float> normal(0.0F, 0.8F);
  for (size_t i = 0; i < n; ++i) {
    switch (content) {
      case Content::kWeights:
        row.set(i, normal(random));
        break;
      case Content::kTies:
        row.set(i, static_cast<float>(static_cast<int>(random() % 1024) - 512) * 0.5F);
        break;
      case Content::kAnyBits:
        row.set_bits(i, static_cast<uint32_t>(random()));
        break;
      default:
        row.set(i, random() % 2 == 0 ? 0.0F : -0.0F);
    }
  }
  return row;
}

MATCHER_P(SameBits, expected, "") {
  return std::bit_cast<uint32_t>(static_cast<float>(arg)) ==
         std::bit_cast<uint32_t>(static_cast<float>(expected));
}

// NaN counts as equal to NaN: the payload of a sum is open.
MATCHER_P(SameSum, expected, "") {
  return std::bit_cast<uint64_t>(arg) == std::bit_cast<uint64_t>(expected) ||
         (std::isnan(arg) && std::isnan(expected));
}

class IsaRounding : public testing::TestWithParam<Isa> {
 protected:
  void expect_same_range(const Row& row) const {
    const auto n = static_cast<int64_t>(row.n());
    RowRange expected;
    RowRange actual;
    scalar_.range[row.type()](row.data(), n, &expected);
    kernels_.range[row.type()](row.data(), n, &actual);
    EXPECT_THAT(actual.min, SameBits(expected.min));
    EXPECT_THAT(actual.max, SameBits(expected.max));
    EXPECT_THAT(actual.absmax, SameBits(expected.absmax));
    EXPECT_EQ(actual.first_non_finite, expected.first_non_finite);
  }

  void expect_same_codes(const Row& row, const RoundingParams& params) const {
    const auto n = static_cast<int64_t>(row.n());
    std::array<std::vector<int8_t>, 4> codes;
    for (auto& one : codes) one.assign(row.n() + 64, static_cast<int8_t>(kUntouched));
    RoundingSums expected;
    RoundingSums actual;
    const size_t type = row.type();
    scalar_.quantize[type](row.data(), n, &params, codes[0].data() + 1);
    kernels_.quantize[type](row.data(), n, &params, codes[1].data() + 1);
    scalar_.quantize_measured[type](row.data(), n, &params, codes[2].data() + 1, &expected);
    kernels_.quantize_measured[type](row.data(), n, &params, codes[3].data() + 1, &actual);
    for (size_t other : {1U, 2U, 3U}) EXPECT_EQ(codes[0], codes[other]) << other;
    EXPECT_THAT(actual.sum_squares, SameSum(expected.sum_squares));
    EXPECT_THAT(actual.sum_squared_errors, SameSum(expected.sum_squared_errors));
    EXPECT_THAT(actual.max_abs_error, SameBits(expected.max_abs_error));
    EXPECT_EQ(actual.n_clipped, expected.n_clipped);
    EXPECT_EQ(actual.n_zeros, expected.n_zeros);
  }

  void expect_same_casts(const Row& row) const {
    const auto n = static_cast<int64_t>(row.n());
    for (size_t destination = 0; destination < kNFloatTypes; ++destination) {
      Bytes expected_bytes(row.n() * kSizeBytes[destination] + 129, kUntouched);
      Bytes actual_bytes = expected_bytes;
      CastReport expected;
      CastReport actual;
      scalar_.cast[row.type()][destination](row.data(), n, expected_bytes.data() + 1, &expected);
      kernels_.cast[row.type()][destination](row.data(), n, actual_bytes.data() + 1, &actual);
      EXPECT_EQ(actual_bytes, expected_bytes) << "to type " << destination;
      EXPECT_EQ(actual.first_non_finite, expected.first_non_finite);
      EXPECT_EQ(actual.n_overflow, expected.n_overflow);
      EXPECT_EQ(actual.n_near_overflow, expected.n_near_overflow);
      EXPECT_THAT(actual.absmax, SameBits(expected.absmax));
    }
  }

  void expect_same(const Row& row) const {
    expect_same_range(row);
    for (const RoundingParams& params : all_params()) expect_same_codes(row, params);
    expect_same_casts(row);
  }

  const RoundingKernels& kernels_ = rounding_kernels(GetParam());
  const RoundingKernels& scalar_ = rounding_kernels(Isa::kScalar);
};

INSTANTIATE_TEST_SUITE_P(Supported, IsaRounding, testing::ValuesIn(supported_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

TEST_P(IsaRounding, EveryTailLengthAndAlignmentAgrees) {
  std::mt19937 random(7);
  for (size_t type = 0; type < kNFloatTypes; ++type) {
    for (size_t n = 0; n <= 70; ++n) {
      for (int content = 0; content < static_cast<int>(Content::kLast); ++content) {
        const size_t misalignment = random() % 5;
        const Row row = make_row(type, n, misalignment, static_cast<Content>(content), random);
        expect_same(row);
        ASSERT_FALSE(HasFailure()) << "type " << type << " n " << n << " content " << content;
      }
    }
  }
}

TEST_P(IsaRounding, RowsOfSeveralBlocksAgree) {
  std::mt19937 random(8);
  for (size_t type = 0; type < kNFloatTypes; ++type) {
    for (size_t n : {4095U, 4096U, 4097U, 4112U, 8191U, 12301U}) {
      for (Content content : {Content::kWeights, Content::kAnyBits}) {
        expect_same(make_row(type, n, 1, content, random));
        ASSERT_FALSE(HasFailure()) << "type " << type << " n " << n;
      }
    }
  }
}

TEST_P(IsaRounding, EveryPatternOfSixteenBitsAgrees) {
  for (size_t type : {0U, 1U}) {
    Row row(type, 65536, 0);
    for (uint32_t i = 0; i < 65536; ++i) row.set_bits(i, i);
    expect_same(row);
    // In short rows too, so that rows without NaN and infinity take the fast path.
    for (uint32_t first = 0; first < 65536; first += 37) {
      Row part(type, std::min<uint32_t>(37, 65536 - first), 0);
      for (uint32_t i = 0; i < part.n(); ++i) part.set_bits(i, first + i);
      expect_same_range(part);
      expect_same_casts(part);
      expect_same_codes(part, all_params()[first % all_params().size()]);
      ASSERT_FALSE(HasFailure()) << "type " << type << " from " << first;
    }
  }
}

TEST_P(IsaRounding, Float32AtEveryExponentAndRoundingPositionAgrees) {
  // Fractions that lie at, beside and between the ties of a cast to 7 and to 10 fraction bits.
  const uint32_t fractions[] = {0,        1,        0x0fff,   0x1000,   0x1001,   0x1fff,
                                0x2fff,   0x3000,   0x3001,   0x7fff,   0x8000,   0x8001,
                                0xffff,   0x17fff,  0x18000,  0x18001,  0x3fffff, 0x400000,
                                0x7fefff, 0x7ff000, 0x7f7fff, 0x7f8000, 0x7fffff};
  for (uint32_t sign_exponent = 0; sign_exponent < 512; ++sign_exponent) {
    Row row(2, std::size(fractions), 0);
    for (size_t i = 0; i < std::size(fractions); ++i) {
      row.set_bits(i, sign_exponent << 23 | fractions[i]);
    }
    expect_same(row);
    ASSERT_FALSE(HasFailure()) << "sign and exponent " << sign_exponent;
  }
}

TEST_P(IsaRounding, OneBadElementIsFoundInEveryLane) {
  const uint32_t bad_bits[kNFloatTypes][4] = {{0x7f80, 0xff80, 0x7fc0, 0xff81},
                                              {0x7c00, 0xfc00, 0x7e00, 0xfc01},
                                              {0x7f800000, 0xff800000, 0x7fc00000, 0xff800001}};
  std::mt19937 random(9);
  for (size_t type = 0; type < kNFloatTypes; ++type) {
    for (size_t n : {1U, 7U, 16U, 31U, 32U, 33U, 64U, 70U}) {
      for (size_t bad = 0; bad < n; ++bad) {
        Row row = make_row(type, n, bad % 3, Content::kWeights, random);
        row.set_bits(bad, bad_bits[type][bad % 4]);
        RowRange range;
        kernels_.range[type](row.data(), static_cast<int64_t>(n), &range);
        ASSERT_EQ(range.first_non_finite, static_cast<int64_t>(bad)) << "n " << n;
        expect_same(row);
        ASSERT_FALSE(HasFailure()) << "type " << type << " n " << n << " bad " << bad;
      }
    }
  }
}

TEST_P(IsaRounding, OneLargeElementIsReportedInEveryLane) {
  for (size_t n : {1U, 16U, 33U, 70U}) {
    for (size_t large = 0; large < n; ++large) {
      // The last two lie just below and at the tie that bfloat16 rounds to infinity.
      for (float value : {32751.0F, 32752.0F, 65504.0F, 65519.0F, 65520.0F,
                          std::bit_cast<float>(0x7f7f7fffU), std::bit_cast<float>(0x7f7f8000U)}) {
        Row row(2, n, 0);
        row.set(large, value);
        expect_same_casts(row);
        ASSERT_FALSE(HasFailure()) << "n " << n << " large " << large << " value " << value;
      }
    }
  }
}

}  // namespace
}  // namespace llmq::quant
