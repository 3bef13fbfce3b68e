// The model of the tile registers against the formulas of the Intel SDM, written out anew.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "quant/kernels/amx/emulated_tiles.h"

namespace llmq::quant {
namespace {

using T = EmulatedTiles;
using Bytes = std::vector<unsigned char>;

class EmulatedTileRegisters : public ::testing::Test {
 protected:
  void SetUp() override { T::clear_fault(); }
  void TearDown() override {
    T::release();
    T::clear_fault();
  }

  static std::string fault() {
    const char* what = T::first_fault();
    return what == nullptr ? "" : what;
  }

  // Sums (0) of `rows` × `cols`, A (1) of `rows` × `depth` groups of four bytes, B (2).
  static void configure(int rows, int cols, int depth) {
    TileConfig config;
    config.set(0, rows, 4 * cols);
    config.set(1, rows, 4 * depth);
    config.set(2, depth, 4 * cols);
    T::configure(config);
  }

  Bytes random_bytes(size_t count) {
    Bytes bytes(count);
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random_());
    return bytes;
  }

  std::mt19937 random_{5};
};

float bf16(unsigned bits) {
  const auto wide = static_cast<uint32_t>(bits << 16U);
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

TEST_F(EmulatedTileRegisters, LoadAndStoreMoveTheConfiguredBytesAlone) {
  configure(3, 5, 2);
  const Bytes from = random_bytes(3 * 100);
  Bytes to(3 * 70, 9);
  T::load<0>(from.data(), 100);
  T::store<0>(to.data(), 70);
  for (size_t i = 0; i < to.size(); ++i)
    EXPECT_EQ(to[i], i % 70 < 20 ? from[i / 70 * 100 + i % 70] : 9) << i;
  EXPECT_EQ(fault(), "");
}

TEST_F(EmulatedTileRegisters, ConfiguringAndZeroingClearTiles) {
  const Bytes from = random_bytes(1024);
  for (const bool by_zero : {false, true}) {
    configure(16, 16, 16);
    T::load<0>(from.data(), 64);
    if (by_zero) {
      T::zero<0>();
    } else {
      configure(16, 16, 16);
    }
    Bytes to(1024, 9);
    T::store<0>(to.data(), 64);
    EXPECT_EQ(to, Bytes(1024, 0));
  }
}

TEST_F(EmulatedTileRegisters, SignedByteProductsFollowTheManual) {
  for (const auto& [rows, cols, depth] :
       std::vector<std::array<int, 3>>{{16, 16, 16}, {1, 16, 16}, {7, 3, 5}, {16, 1, 1}}) {
    configure(rows, cols, depth);
    const Bytes a = random_bytes(1024);
    const Bytes b = random_bytes(1024);
    Bytes sums = random_bytes(1024);
    T::load<0>(sums.data(), 64);
    T::load<1>(a.data(), 64);
    T::load<2>(b.data(), 64);
    T::add_int8_products<0, 1, 2>();
    Bytes got(1024, 0);
    T::store<0>(got.data(), 64);
    for (int m = 0; m < rows; ++m) {
      for (int n = 0; n < cols; ++n) {
        int32_t before = 0;
        int32_t after = 0;
        std::memcpy(&before, &sums[static_cast<size_t>(64 * m + 4 * n)], 4);
        std::memcpy(&after, &got[static_cast<size_t>(64 * m + 4 * n)], 4);
        int64_t expected = before;
        for (int byte = 0; byte < 4 * depth; ++byte) {
          const auto x = static_cast<int8_t>(a[static_cast<size_t>(64 * m + byte)]);
          const auto w =
              static_cast<int8_t>(b[static_cast<size_t>(byte / 4 * 64 + 4 * n + byte % 4)]);
          expected += int64_t{x} * w;
        }
        ASSERT_EQ(after, static_cast<int32_t>(static_cast<uint32_t>(expected)));
      }
    }
  }
  EXPECT_EQ(fault(), "");
}

TEST_F(EmulatedTileRegisters, SignedByteSumsWrap) {
  configure(1, 1, 1);
  const std::vector<int8_t> codes(64, 127);
  int32_t sum = 2147483647;
  T::load<0>(&sum, 64);
  T::load<1>(codes.data(), 64);
  T::load<2>(codes.data(), 64);
  T::add_int8_products<0, 1, 2>();
  T::store<0>(&sum, 64);
  EXPECT_EQ(sum, static_cast<int32_t>(2147483647U + 4U * 127U * 127U));
}

// One pair of chains: even elements with even ones, odd with odd, then both into the sum.
TEST_F(EmulatedTileRegisters, Bfloat16ProductsFollowTheManualsOrder) {
  configure(1, 1, 16);
  std::uniform_int_distribution<unsigned> exponent(110, 140);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<uint16_t> a(32);
    std::vector<uint16_t> b(16 * 32);
    for (uint16_t& v : a)
      v = static_cast<uint16_t>((random_() & 0x807fU) | exponent(random_) << 7U);
    for (uint16_t& v : b)
      v = static_cast<uint16_t>((random_() & 0x807fU) | exponent(random_) << 7U);
    const float before = bf16(static_cast<unsigned>(random_() & 0x807fU) | 130U << 7U);
    float even = 0.0F;
    float odd = 0.0F;
    for (size_t k = 0; k < 16; ++k) {
      even = std::fma(bf16(a[2 * k]), bf16(b[32 * k]), even);
      odd = std::fma(bf16(a[2 * k + 1]), bf16(b[32 * k + 1]), odd);
    }
    float sum = before;
    T::load<0>(&sum, 64);
    T::load<1>(a.data(), 64);
    T::load<2>(b.data(), 64);
    T::add_bf16_products<0, 1, 2>();
    T::store<0>(&sum, 64);
    ASSERT_EQ(sum, before + (even + odd)) << trial;
  }
  EXPECT_EQ(fault(), "");
}

TEST_F(EmulatedTileRegisters, Bfloat16OrderIsThatOfChainsAndNotOfElements) {
  configure(1, 1, 2);
  const std::vector<uint16_t> ones(64, 0x3f80);
  // 2^24, 1, -2^24, 1: in order of elements 1, in two chains 0 and 2.
  const std::vector<uint16_t> a{0x4b80, 0x3f80, 0xcb80, 0x3f80};
  float sum = 0.0F;
  T::load<0>(&sum, 64);
  T::load<1>(a.data(), 64);
  T::load<2>(ones.data(), 64);
  T::add_bf16_products<0, 1, 2>();
  T::store<0>(&sum, 64);
  EXPECT_EQ(sum, 2.0F);
}

TEST_F(EmulatedTileRegisters, Bfloat16SubnormalsCountAsZeros) {
  configure(1, 1, 1);
  const float tiny = 1e-40F;
  struct Case {
    uint16_t x;
    uint16_t w;
    float before;
    float after;
  };
  for (const Case& c : {Case{0x0001, 0x7f00, 1.0F, 1.0F},  // subnormal element
                        Case{0x1f80, 0x1f80, 0.0F, 0.0F},  // product 2^-128
                        Case{0x3f80, 0x3f80, tiny, 1.0F},  // subnormal sum before
                        Case{0x0000, 0x0000, tiny, 0.0F},  // and nothing added
                        Case{0x2080, 0x2000, 0.0F, 0x1p-125F}}) {
    const std::vector<uint16_t> a{c.x, 0};
    const std::vector<uint16_t> b{c.w, 0};
    float sum = c.before;
    T::load<0>(&sum, 64);
    T::load<1>(a.data(), 64);
    T::load<2>(b.data(), 64);
    T::add_bf16_products<0, 1, 2>();
    T::store<0>(&sum, 64);
    EXPECT_EQ(sum, c.after) << c.x << " " << c.w;
  }
}

TEST_F(EmulatedTileRegisters, InvalidConfigurationsFault) {
  const auto faults = [](auto change) {
    TileConfig config;
    config.set(0, 4, 16);
    change(config);
    T::clear_fault();
    T::configure(config);
    return fault() == "#GP: invalid tile configuration";
  };
  EXPECT_FALSE(faults([](TileConfig&) {}));
  EXPECT_FALSE(faults([](TileConfig& c) { c.palette = 0; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.palette = 2; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.reserved[13] = 1; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.n_rows[0] = 17; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.row_bytes[0] = 65; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.n_rows[0] = 0; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.row_bytes[0] = 0; }));
  EXPECT_TRUE(faults([](TileConfig& c) { c.set(8, 1, 4); }));
}

TEST_F(EmulatedTileRegisters, UseWithoutAShapeFaults) {
  Bytes bytes(1024);
  const auto faults = [](auto use) {
    T::clear_fault();
    use();
    return fault().starts_with("#UD");
  };
  EXPECT_TRUE(faults([] { T::zero<0>(); })) << "before any configuration";
  configure(4, 4, 4);
  EXPECT_FALSE(faults([] { T::zero<0>(); }));
  EXPECT_TRUE(faults([] { T::zero<3>(); }));
  EXPECT_TRUE(faults([&] { T::load<3>(bytes.data(), 64); }));
  EXPECT_TRUE(faults([&] { T::store<3>(bytes.data(), 64); }));
  EXPECT_TRUE(faults([] { T::add_int8_products<0, 1, 3>(); }));
  T::release();
  EXPECT_TRUE(faults([&] { T::load<0>(bytes.data(), 64); })) << "after release";
}

TEST_F(EmulatedTileRegisters, ProductsOfTilesThatDoNotFitFault) {
  const auto faults = [](int sums_rows, int sums_bytes, int a_bytes, int b_rows, int b_bytes) {
    TileConfig config;
    config.set(0, sums_rows, sums_bytes);
    config.set(1, 4, a_bytes);
    config.set(2, b_rows, b_bytes);
    T::clear_fault();
    T::configure(config);
    T::add_int8_products<0, 1, 2>();
    const bool int8_faults = !fault().empty();
    T::clear_fault();
    T::add_bf16_products<0, 1, 2>();
    EXPECT_EQ(int8_faults, !fault().empty());
    return int8_faults;
  };
  EXPECT_FALSE(faults(4, 20, 12, 3, 20));
  EXPECT_TRUE(faults(5, 20, 12, 3, 20)) << "rows of the sums and of A";
  EXPECT_TRUE(faults(4, 24, 12, 3, 20)) << "columns of the sums and of B";
  EXPECT_TRUE(faults(4, 20, 16, 3, 20)) << "depth of A and of B";
  EXPECT_TRUE(faults(4, 20, 13, 3, 20)) << "a part of a group";
  configure(16, 16, 16);
  T::clear_fault();
  T::add_int8_products<0, 1, 1>();
  EXPECT_NE(fault(), "") << "the same tile twice";
}

TEST_F(EmulatedTileRegisters, EachThreadHasItsOwn) {
  configure(4, 4, 4);
  std::thread([] {
    EXPECT_FALSE(T::is_configured());
    T::zero<0>();
  }).join();
  EXPECT_EQ(fault(), "#UD: TILEZERO of a tile without a shape");
  EXPECT_TRUE(T::is_configured());
}

}  // namespace
}  // namespace llmq::quant
