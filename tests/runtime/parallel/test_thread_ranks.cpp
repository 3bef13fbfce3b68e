#include "runtime/parallel/thread_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ThreadRanks, integers_are_added_modulo_2_to_the_32) {
  run_thread_ranks(3, [](Communicator& ranks) {
    EXPECT_EQ(ranks.size(), 3);
    const auto rank = static_cast<int32_t>(ranks.rank());
    std::array<int32_t, 3> values{rank, 10 * rank, std::numeric_limits<int32_t>::max()};
    ranks.sum(std::span<int32_t>(values));
    EXPECT_THAT(values, ElementsAre(3, 30, std::numeric_limits<int32_t>::max() - 2));
  });
}

TEST(ThreadRanks, floats_are_added_in_the_order_of_the_ranks) {
  // (1 + 2^30) − 2^30 loses the 1; (2^30 − 2^30) + 1 keeps it.
  const std::array<float, 3> parts{1.0F, 0x1p30F, -0x1p30F};
  run_thread_ranks(3, [&](Communicator& ranks) {
    std::vector<float> values(1000, parts.at(static_cast<size_t>(ranks.rank())));
    ranks.sum(std::span<float>(values));
    EXPECT_THAT(values, testing::Each(0.0F));
    std::vector<float> rotated(1, parts.at(static_cast<size_t>((ranks.rank() + 1) % 3)));
    ranks.sum(std::span<float>(rotated));
    EXPECT_THAT(rotated, ElementsAre(1.0F));
  });
}

TEST(ThreadRanks, maxima_and_gathered_values_are_the_same_everywhere) {
  for (const int64_t n_ranks : {1, 2, 5}) {
    run_thread_ranks(n_ranks, [&](Communicator& ranks) {
      const auto rank = static_cast<float>(ranks.rank());
      std::array<float, 2> values{rank, -rank};
      ranks.max(values);
      EXPECT_THAT(values, ElementsAre(static_cast<float>(n_ranks - 1), 0.0F));
      const std::array<float, 2> mine{rank, rank + 0.5F};
      std::vector<float> all(static_cast<size_t>(2 * n_ranks));
      ranks.gather(mine, all);
      for (int64_t r = 0; r < n_ranks; ++r) {
        EXPECT_EQ(all[static_cast<size_t>(2 * r)], static_cast<float>(r));
        EXPECT_EQ(all[static_cast<size_t>(2 * r + 1)], static_cast<float>(r) + 0.5F);
      }
    });
  }
}

TEST(ThreadRanks, many_calls_of_changing_sizes_keep_their_order) {
  run_thread_ranks(4, [](Communicator& ranks) {
    for (int32_t round = 0; round < 300; ++round) {
      std::vector<int32_t> values(static_cast<size_t>(round % 17),
                                  round + static_cast<int32_t>(ranks.rank()));
      ranks.sum(std::span<int32_t>(values));
      EXPECT_THAT(values, testing::Each(4 * round + 6));
      if (round % 50 == 0) ranks.barrier();
    }
  });
}

TEST(ThreadRanks, a_rank_that_fails_wakes_the_others_and_is_the_one_reported) {
  for (int64_t failing = 0; failing < 3; ++failing) {
    std::atomic<int> n_stopped{0};
    try {
      run_thread_ranks(3, [&](Communicator& ranks) {
        ranks.barrier();
        if (ranks.rank() == failing) throw formats::bad_input("a damaged part");
        try {
          ranks.barrier();
        } catch (const formats::Error& error) {
          EXPECT_THAT(error.what(), HasSubstr("rank " + std::to_string(failing)));
          ++n_stopped;
          throw;
        }
      });
      FAIL() << "nothing was thrown";
    } catch (const formats::Error& error) {
      EXPECT_STREQ(error.what(), "a damaged part");
      EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
    }
    EXPECT_EQ(n_stopped, 2);
  }
}

TEST(ThreadRanks, a_number_of_ranks_that_cannot_be_is_refused) {
  const auto nothing = [](Communicator&) {};
  EXPECT_THROW(run_thread_ranks(0, nothing), formats::Error);
  EXPECT_THROW(run_thread_ranks(1025, nothing), formats::Error);
}

}  // namespace
}  // namespace llmq::runtime
