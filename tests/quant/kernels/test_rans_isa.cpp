// Every rANS decoder against the scalar specification.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "formats/error.h"
#include "quant/codec/rans_encoder.h"
#include "quant/codec/rans_model.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/rans/rans.h"

namespace llmq::quant {
namespace {

// Streams that own their bytes, each in a heap block of exactly the size that a decoder may read.
struct Problem {
  RansSlotTable slots{};
  int64_t n_codes = 0;
  std::vector<std::vector<unsigned char>> words;
  std::vector<std::vector<uint32_t>> states;
  std::vector<std::vector<uint8_t>> codes;  // what went in; empty where nothing did
};

struct Result {
  std::vector<std::vector<uint8_t>> codes;
  std::vector<bool> complete;
};

std::vector<unsigned char> bytes_of(std::span<const uint16_t> words) {
  std::vector<unsigned char> bytes(2 * words.size() + kRansReadAhead, 0xff);
  if (!words.empty()) std::memcpy(bytes.data(), words.data(), 2 * words.size());
  bytes.shrink_to_fit();
  return bytes;
}

Problem encoded_problem(size_t n_streams, int64_t n_codes, double deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.0, deviation);
  Problem problem;
  problem.n_codes = n_codes;
  CodeHistogram histogram{};
  for (size_t s = 0; s < n_streams; ++s) {
    std::vector<uint8_t> codes(static_cast<size_t>(n_codes));
    for (uint8_t& code : codes) {
      code = static_cast<uint8_t>(std::clamp(std::lrint(normal(random)), -128L, 127L));
      ++histogram[code];
    }
    problem.codes.push_back(codes);
  }
  RansModel model = choose_rans_model(histogram);
  problem.slots = make_rans_slots(model);
  const RansEncoder encoder(model);
  RansEncoder::Scratch scratch;
  for (auto& codes : problem.codes) {
    const RansStreamBytes stream = encoder.encode(codes, scratch);
    problem.states.emplace_back(stream.states.begin(), stream.states.end());
    problem.words.push_back(bytes_of(stream.words));
    // A decoder alone leaves the escape where escaped codes were.
    for (uint8_t& code : codes) {
      if (model.is_escaped(code)) code = model.escape_code;
    }
  }
  return problem;
}

Result decode(const Problem& problem, Isa isa) {
  constexpr size_t kGuard = 16;
  const size_t n_codes = static_cast<size_t>(problem.n_codes);
  Result result;
  std::vector<RansStream> streams(problem.words.size());
  std::vector<std::vector<uint8_t>> outputs(streams.size());
  for (size_t s = 0; s < streams.size(); ++s) {
    outputs[s].assign(n_codes + kGuard, 0xa5);
    streams[s].words = problem.words[s].data();
    streams[s].n_words = (static_cast<int64_t>(problem.words[s].size()) - kRansReadAhead) / 2;
    std::copy(problem.states[s].begin(), problem.states[s].end(), streams[s].states);
    streams[s].codes = outputs[s].data();
  }
  rans_kernels(isa).decode(problem.slots.data(), streams.data(),
                           static_cast<int64_t>(streams.size()), problem.n_codes);
  for (size_t s = 0; s < streams.size(); ++s) {
    for (size_t i = n_codes; i < n_codes + kGuard; ++i) EXPECT_EQ(outputs[s][i], 0xa5);
    outputs[s].resize(n_codes);
    result.codes.push_back(outputs[s]);
    result.complete.push_back(streams[s].complete);
  }
  return result;
}

TEST(IsaRans, TheForcedInstructionSetRuns) {
  for (const Isa isa : kAllIsas) {
    if (!isa_supported(isa)) {
      EXPECT_THROW(static_cast<void>(rans_kernels(isa)), formats::Error);
      continue;
    }
    const Isa expected = isa >= Isa::kAvx512Vnni ? Isa::kAvx512Vnni
                         : isa >= Isa::kAvx2     ? Isa::kAvx2
                                                 : Isa::kScalar;
    EXPECT_EQ(rans_kernels(isa).isa, expected);
  }
}

TEST(IsaRans, EveryDecoderGivesBackWhatWasEncoded) {
  unsigned seed = 0;
  for (size_t n_streams = 1; n_streams <= 7; ++n_streams) {
    for (const int64_t n_codes : {32, 64, 512, 4096 + 32}) {
      for (const double deviation : {0.0, 0.3, 2.3, 40.0}) {
        const Problem problem = encoded_problem(n_streams, n_codes, deviation, ++seed);
        for (const Isa isa : supported_isas()) {
          const Result result = decode(problem, isa);
          ASSERT_EQ(result.codes, problem.codes) << isa_name(isa) << ' ' << n_streams;
          ASSERT_EQ(std::count(result.complete.begin(), result.complete.end(), true),
                    static_cast<int64_t>(n_streams));
        }
      }
    }
  }
}

TEST(IsaRans, AWordTooFewOrTooManyIsNoticedByEveryDecoderAndOnlyInItsStream) {
  const Problem good = encoded_problem(6, 512, 2.3, 99);
  for (size_t broken = 0; broken < 6; ++broken) {
    for (const int64_t change : {-50, -2, -1, 1, 40}) {
      Problem problem = good;
      auto& words = problem.words[broken];
      const auto size = static_cast<int64_t>(words.size()) + 2 * change;
      ASSERT_GE(size, kRansReadAhead);
      words.resize(static_cast<size_t>(size));
      words.shrink_to_fit();
      for (const Isa isa : supported_isas()) {
        const Result result = decode(problem, isa);
        for (size_t s = 0; s < 6; ++s) {
          ASSERT_EQ(result.complete[s], s != broken) << isa_name(isa) << ' ' << change;
          if (s != broken) {
            ASSERT_EQ(result.codes[s], good.codes[s]);
          }
        }
      }
    }
  }
}

TEST(IsaRans, EveryDecoderAgreesOnAnyBytesWhateverTheTable) {
  std::mt19937 generator(5);
  const auto random = [&] { return static_cast<uint32_t>(generator()); };
  const std::vector<uint32_t> special{0, 1, 0xffff, 0x10000, 0xffffffff, 0x00ffffff};
  for (int round = 0; round < 300; ++round) {
    Problem problem;
    problem.n_codes = 32 * static_cast<int64_t>(1 + random() % 8);
    const bool wild = round % 2 == 0;
    for (uint32_t& slot : problem.slots) slot = wild ? random() : random() % (1 << 20);
    for (size_t s = 0; s < 1 + random() % 5; ++s) {
      std::vector<uint16_t> words(random() % 600);
      for (uint16_t& word : words) word = static_cast<uint16_t>(random());
      problem.words.push_back(bytes_of(words));
      std::vector<uint32_t> states(kRansLanes);
      for (uint32_t& state : states) {
        state = random() % 4 == 0 ? special[random() % special.size()] : random();
      }
      problem.states.push_back(states);
    }
    const Result expected = decode(problem, Isa::kScalar);
    for (const Isa isa : supported_isas()) {
      EXPECT_EQ(decode(problem, isa).complete, expected.complete) << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace llmq::quant
