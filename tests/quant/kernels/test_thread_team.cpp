#include "quant/kernels/thread_team.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

class ThreadTeamTest : public testing::TestWithParam<int> {
 protected:
  ThreadTeam team_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Threads, ThreadTeamTest, testing::Values(1, 2, 3, 8),
                         testing::PrintToStringParamName());

TEST_P(ThreadTeamTest, RunsEveryTaskOnceInEitherPartition) {
  for (Partition partition : {Partition::kDynamic, Partition::kStatic}) {
    for (int64_t n_tasks : {0, 1, 2, 3, 7, 8, 9, 100, 1001}) {
      std::vector<int> n_runs(static_cast<size_t>(n_tasks));
      team_.parallel_for(
          n_tasks, [&](int64_t task, int) { ++n_runs[static_cast<size_t>(task)]; }, partition);
      EXPECT_THAT(n_runs, testing::Each(1)) << n_tasks;
    }
  }
  team_.parallel_for(-3, [](int64_t, int) { FAIL() << "a task of an empty loop ran"; });
}

TEST_P(ThreadTeamTest, ThreadIndexSelectsPrivateScratch) {
  const int n_threads = team_.n_threads();
  std::vector<int64_t> sums(static_cast<size_t>(n_threads));  // a data race if indices repeat
  for (int repeat = 0; repeat < 200; ++repeat) {
    team_.parallel_for(50, [&](int64_t task, int thread_index) {
      ASSERT_GE(thread_index, 0);
      ASSERT_LT(thread_index, n_threads);
      sums[static_cast<size_t>(thread_index)] += task;
    });
  }
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), 200 * (49 * 50 / 2));
}

TEST_P(ThreadTeamTest, StaticPartitionRepeatsItsAssignment) {
  constexpr size_t kTasks = 37;
  std::vector<int> first(kTasks, -1);
  for (int repeat = 0; repeat < 50; ++repeat) {
    std::vector<int> owner(kTasks, -1);
    team_.parallel_for(
        kTasks, [&](int64_t task, int index) { owner[static_cast<size_t>(task)] = index; },
        Partition::kStatic);
    if (repeat == 0) first = owner;
    ASSERT_EQ(owner, first);
  }
  EXPECT_TRUE(std::is_sorted(first.begin(), first.end()));
  EXPECT_EQ(first.front(), 0);
  EXPECT_EQ(first.back(), team_.n_threads() - 1);
}

TEST_P(ThreadTeamTest, RethrowsTheExceptionOfTheLowestFailingTask) {
  for (Partition partition : {Partition::kDynamic, Partition::kStatic}) {
    for (int repeat = 0; repeat < 300; ++repeat) {
      std::vector<int> ran(64);
      try {
        team_.parallel_for(
            64,
            [&](int64_t task, int) {
              ran[static_cast<size_t>(task)] = 1;
              if (task % 10 == 7) throw std::runtime_error("task " + std::to_string(task));
            },
            partition);
        FAIL() << "the exception was lost";
      } catch (const std::runtime_error& error) {
        ASSERT_STREQ(error.what(), "task 7");
      }
      ASSERT_EQ(std::accumulate(ran.begin(), ran.begin() + 8, 0), 8);
    }
  }
}

TEST_P(ThreadTeamTest, WorksAfterAnException) {
  EXPECT_THROW(team_.parallel_for(9, [](int64_t, int) { throw 1; }), int);
  std::atomic<int> n_runs{0};
  team_.parallel_for(9, [&](int64_t, int) { ++n_runs; });
  EXPECT_EQ(n_runs.load(), 9);
}

TEST_P(ThreadTeamTest, NestedLoopRunsInlineUnderTheSameIndex) {
  std::atomic<int> n_runs{0};
  team_.parallel_for(20, [&](int64_t, int outer_index) {
    const std::thread::id outer_thread = std::this_thread::get_id();
    int64_t expected = 0;
    team_.parallel_for(10, [&](int64_t task, int inner_index) {
      EXPECT_EQ(task, expected++);
      EXPECT_EQ(inner_index, outer_index);
      EXPECT_EQ(std::this_thread::get_id(), outer_thread);
      ++n_runs;
    });
  });
  EXPECT_EQ(n_runs.load(), 200);
}

TEST_P(ThreadTeamTest, ExceptionPassesThroughANestedLoop) {
  EXPECT_THROW(team_.parallel_for(4,
                                  [&](int64_t, int) {
                                    team_.parallel_for(4, [](int64_t task, int) {
                                      if (task == 2) throw std::runtime_error("inner");
                                    });
                                  }),
               std::runtime_error);
}

TEST_P(ThreadTeamTest, LoopInsideATaskOfAnotherTeamIsParallel) {
  ThreadTeam other(3);
  std::atomic<int> n_runs{0};
  team_.parallel_for(
      6, [&](int64_t, int) { other.parallel_for(30, [&](int64_t, int) { ++n_runs; }); });
  EXPECT_EQ(n_runs.load(), 180);
}

TEST_P(ThreadTeamTest, ResultsOfOneLoopAreVisibleInTheNext) {
  std::vector<int64_t> values(257, 0);  // plain ints: ThreadSanitizer sees a missing ordering
  for (int step = 0; step < 500; ++step) {
    team_.parallel_for(257, [&](int64_t task, int) {
      const auto index = static_cast<size_t>(task);
      values[256 - index] = values[256 - index] + 1;
    });
  }
  EXPECT_THAT(values, testing::Each(500));
}

TEST_P(ThreadTeamTest, LoopsStartedByManyThreadsAllComplete) {
  std::atomic<int> n_runs{0};
  std::vector<std::thread> callers;
  callers.reserve(4);
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 100; ++repeat) {
        team_.parallel_for(5, [&](int64_t, int) { ++n_runs; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(n_runs.load(), 4 * 100 * 5);
}

TEST_P(ThreadTeamTest, WakesAfterSleeping) {
  std::atomic<int> n_runs{0};
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    team_.parallel_for(
        16, [&](int64_t, int) { ++n_runs; }, Partition::kStatic);
  }
  EXPECT_EQ(n_runs.load(), 80);
}

TEST(ThreadTeam, WorkersTakePart) {
  ThreadTeam team(2);
  std::atomic<int> n_arrived{0};
  // Each task waits for the other: a loop that ran on one thread alone would never end.
  team.parallel_for(
      2,
      [&](int64_t, int) {
        ++n_arrived;
        while (n_arrived.load() < 2) std::this_thread::yield();
      },
      Partition::kStatic);
  EXPECT_EQ(n_arrived.load(), 2);
}

TEST(ThreadTeam, UnusedTeamsStartAndStop) {
  for (int repeat = 0; repeat < 50; ++repeat) ThreadTeam team(4);
}

TEST(ThreadTeam, RefusesImpossibleThreadCounts) {
  for (int n_threads : {0, -1, ThreadTeam::kMaxThreads + 1}) {
    try {
      ThreadTeam team(n_threads);
      FAIL() << n_threads;
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kUsage);
    }
  }
}

TEST(ThreadTeam, DefaultThreadCountFollowsTheAllowedCpus) {
  const int n_default = default_thread_count();
  EXPECT_GE(n_default, 1);
  EXPECT_LE(n_default, static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  // A thread pinned to one CPU has one.
  int n_pinned = 0;
  std::thread pinned([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(sched_getcpu()), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    n_pinned = default_thread_count();
  });
  pinned.join();
  EXPECT_EQ(n_pinned, 1);
}

}  // namespace
}  // namespace llmq::quant
