// What must hold before AMX is offered.
#include "quant/kernels/amx/offer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "quant/kernels/amx/emulated_tiles.h"
#include "quant/kernels/amx/self_test.h"
#include "quant/kernels/cpu.h"

namespace llmq::quant {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

// One product too many.
struct RepeatsProducts : EmulatedTiles {
  template <int kSums, int kA, int kB>
  static void add_int8_products() {
    EmulatedTiles::add_int8_products<kSums, kA, kB>();
    EmulatedTiles::add_int8_products<kSums, kA, kB>();
  }
};
// Rows that the configuration leaves out are stored.
struct IgnoresRows : EmulatedTiles {
  static void configure(const TileConfig& config) {
    TileConfig whole = config;
    for (int tile = 0; tile < kTileCount; ++tile) {
      if (whole.n_rows[tile] != 0) whole.set(tile, kTileRows);
    }
    EmulatedTiles::configure(whole);
  }
};
struct SwapsOperandsOfBf16 : EmulatedTiles {
  template <int kSums, int kA, int kB>
  static void add_bf16_products() {
    EmulatedTiles::add_bf16_products<kSums, kB, kA>();
  }
};
struct LosesLoads : EmulatedTiles {
  template <int kTile>
  static void load(const void*, int64_t) {}
};

TEST(AmxSelfTest, TilesThatFollowTheManualPass) {
  EmulatedTiles::clear_fault();
  EXPECT_TRUE(tiles_agree<EmulatedTiles>());
  EXPECT_EQ(EmulatedTiles::first_fault(), nullptr);
  EXPECT_FALSE(EmulatedTiles::is_configured());
}

TEST(AmxSelfTest, TilesWithADefectFail) {
  EXPECT_FALSE(tiles_agree<RepeatsProducts>());
  EXPECT_FALSE(tiles_agree<IgnoresRows>());
  EXPECT_FALSE(tiles_agree<SwapsOperandsOfBf16>());
  EXPECT_FALSE(tiles_agree<LosesLoads>());
  EmulatedTiles::clear_fault();
}

bool yes() {
  return true;
}
bool no() {
  return false;
}

constexpr AmxFacts kEverythingHolds{.has_avx512_vnni = true,
                                    .has_instructions = true,
                                    .saves_tiles = true,
                                    .request_permission = yes,
                                    .trial = tiles_agree<EmulatedTiles>};

std::string refusal_with(void (*change)(AmxFacts&)) {
  AmxFacts facts = kEverythingHolds;
  change(facts);
  return amx_refusal(facts);
}

TEST(AmxOffer, IsMadeWhereEverythingHolds) {
  EXPECT_THAT(amx_refusal(kEverythingHolds), IsEmpty());
}

TEST(AmxOffer, NamesWhatIsMissing) {
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.has_avx512_vnni = false; }),
              HasSubstr("AVX512-VNNI"));
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.has_instructions = false; }),
              HasSubstr("the CPU lacks"));
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.saves_tiles = false; }),
              HasSubstr("the operating system"));
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.request_permission = no; }),
              HasSubstr("does not permit"));
}

TEST(AmxOffer, IsNotMadeAfterAWrongProduct) {
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.trial = tiles_agree<RepeatsProducts>; }),
              HasSubstr("product through the tiles was wrong"));
}

TEST(AmxOffer, IsNotMadeWhereTilesFaultAndTheProcessLivesOn) {
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.trial = [] { return std::raise(SIGILL) == 0; }; }),
              HasSubstr("the tile instructions fault"));
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.trial = [] { return std::raise(SIGSEGV) == 0; }; }),
              HasSubstr("the tile instructions fault"));
}

TEST(AmxOffer, SurvivesAProgramThatDoesNotWaitForItsChildren) {
  const auto previous = std::signal(SIGCHLD, SIG_IGN);
  EXPECT_THAT(amx_refusal(kEverythingHolds), IsEmpty());
  EXPECT_THAT(refusal_with([](AmxFacts& f) { f.trial = no; }), HasSubstr("wrong"));
  std::signal(SIGCHLD, previous);
}

TEST(AmxOffer, NothingIsTriedBeforeItIsPermitted) {
  static bool tried = false;
  tried = false;
  AmxFacts facts = kEverythingHolds;
  facts.saves_tiles = false;
  facts.request_permission = [] { return tried = true; };
  facts.trial = [] { return tried = true; };
  EXPECT_THAT(amx_refusal(facts), testing::Not(IsEmpty()));
  EXPECT_FALSE(tried);
}

TEST(IsaAmxOffer, ThisMachineHasAmxOrAReason) {
  EXPECT_EQ(isa_supported(Isa::kAmx), why_not_amx().empty());
}

}  // namespace
}  // namespace llmq::quant
