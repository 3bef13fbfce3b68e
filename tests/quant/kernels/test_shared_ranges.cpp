#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "quant/kernels/shared_ranges.h"

namespace llmq::quant {
namespace {

TEST(SharedRanges, EveryTaskRunsOnce) {
  for (int n_threads = 1; n_threads <= 4; ++n_threads) {
    ThreadTeam team(n_threads);
    for (const int64_t n_tasks : {0, 1, 2, 3, 4, 5, 17, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<size_t>(n_tasks));
      for_each_in_ranges(team, n_tasks, [&](int64_t i) { ++count[static_cast<size_t>(i)]; });
      for (const auto& c : count) EXPECT_EQ(c, 1) << n_threads << " threads, " << n_tasks;
    }
  }
}

TEST(SharedRanges, OthersTakeWhatALateThreadHasNotBegun) {
  ThreadTeam team(2);
  std::atomic<int> n_done{0};
  constexpr int kTasks = 64;
  // Task 0 waits for all others, those of its own thread's range included.
  for_each_in_ranges(team, kTasks, [&](int64_t i) {
    if (i == 0) {
      while (n_done < kTasks - 1) std::this_thread::sleep_for(std::chrono::microseconds(10));
    }
    ++n_done;
  });
  EXPECT_EQ(n_done, kTasks);
}

TEST(SharedRanges, ALoopInsideATaskRunsToo) {
  ThreadTeam team(3);
  ThreadTeam other(2);
  std::atomic<int> n_done{0};
  for_each_in_ranges(team, 10, [&](int64_t) {
    for_each_in_ranges(team, 7, [&](int64_t) { ++n_done; });
    for_each_in_ranges(other, 5, [&](int64_t) { ++n_done; });
  });
  EXPECT_EQ(n_done, 120);
}

TEST(SharedRanges, AnErrorOfATaskReachesTheCallerAndLeavesTheTeamUsable) {
  ThreadTeam team(2);
  EXPECT_THROW(for_each_in_ranges(team, 20,
                                  [](int64_t i) {
                                    if (i == 13) throw std::runtime_error("13");
                                  }),
               std::runtime_error);
  std::atomic<int> n_done{0};
  for_each_in_ranges(team, 20, [&](int64_t) { ++n_done; });
  EXPECT_EQ(n_done, 20);
}

}  // namespace
}  // namespace llmq::quant
