#include "quant/int4_packing.h"

#include <gtest/gtest.h>

#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

template <typename Fn>
void expect_error(formats::ErrorCode code, const Fn& call) {
  try {
    call();
    ADD_FAILURE() << "no error";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
  }
}

std::vector<int8_t> all_pairs() {
  std::vector<int8_t> codes;
  for (int low = -8; low < 8; ++low) {
    for (int high = -8; high < 8; ++high) {
      codes.push_back(static_cast<int8_t>(low));
      codes.push_back(static_cast<int8_t>(high));
    }
  }
  return codes;
}

TEST(Int4Packing, TheFirstOfAPairOfColumnsIsTheLowNibble) {
  const std::vector<int8_t> codes{1, -2, -8, 7, 0, -1, 5, 3};
  EXPECT_EQ(pack_int4_per_channel(codes, 2, 4), (std::vector<uint8_t>{0xe1, 0x78, 0xf0, 0x35}));
}

TEST(Int4Packing, TheFirstOfAPairOfRowsIsTheLowNibble) {
  const std::vector<int8_t> codes{1, -2, -8, 7, 0, -1, 5, 3, -3, 4, 2, -5};
  EXPECT_EQ(pack_int4_per_group(codes, 4, 3),
            (std::vector<uint8_t>{0x71, 0x0e, 0xf8, 0x45, 0x23, 0xbd}));
}

TEST(Int4Packing, EveryPairComesBack) {
  const std::vector<int8_t> codes = all_pairs();
  for (const int64_t n : {2, 8, 64}) {
    const int64_t k = 512 / n;
    EXPECT_EQ(unpack_int4_per_channel(pack_int4_per_channel(codes, n, k), n, k), codes);
    EXPECT_EQ(unpack_int4_per_group(pack_int4_per_group(codes, n, k), n, k), codes);
  }
}

TEST(Int4Packing, OneExtentMayBeOddAndEitherZero) {
  const std::vector<int8_t> codes{1, 2, 3, 4, 5, 6};
  EXPECT_EQ(unpack_int4_per_channel(pack_int4_per_channel(codes, 3, 2), 3, 2), codes);
  EXPECT_EQ(unpack_int4_per_group(pack_int4_per_group(codes, 2, 3), 2, 3), codes);
  EXPECT_TRUE(pack_int4_per_channel({}, 0, 4).empty());
  EXPECT_TRUE(unpack_int4_per_group({}, 4, 0).empty());
}

TEST(Int4Packing, WhatCannotBePackedIsRefused) {
  using formats::ErrorCode;
  const std::vector<int8_t> codes(6, 0);
  const std::vector<uint8_t> packed(3, 0);
  expect_error(ErrorCode::kBadInput, [&] { pack_int4_per_channel(codes, 2, 3); });
  expect_error(ErrorCode::kBadInput, [&] { pack_int4_per_group(codes, 3, 2); });
  expect_error(ErrorCode::kBadInput, [&] { unpack_int4_per_channel(packed, 2, 3); });
  expect_error(ErrorCode::kBadInput, [&] { unpack_int4_per_group(packed, 3, 2); });
  expect_error(ErrorCode::kInternal, [&] { pack_int4_per_channel(codes, 2, 2); });
  expect_error(ErrorCode::kInternal, [&] { pack_int4_per_group(codes, 2, 2); });
  expect_error(ErrorCode::kInternal, [&] { unpack_int4_per_channel(packed, 2, 2); });
  expect_error(ErrorCode::kInternal, [&] { unpack_int4_per_group(packed, 2, 2); });
  for (const int outside : {-128, -9, 8, 127}) {
    for (size_t at = 0; at < codes.size(); ++at) {
      std::vector<int8_t> wide = codes;
      wide[at] = static_cast<int8_t>(outside);
      expect_error(ErrorCode::kBadInput, [&] { pack_int4_per_channel(wide, 3, 2); });
      expect_error(ErrorCode::kBadInput, [&] { pack_int4_per_group(wide, 2, 3); });
    }
  }
}

}  // namespace
}  // namespace llmq::quant
