#include "quant/kernels/shared_ranges.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>

namespace llmq::quant {
namespace {

// What is left of a thread's range, first task and end in one word, so that owner and thieves take
// from it without a lock.
struct alignas(64) Range {
  std::atomic<uint64_t> left{0};

  void set(uint32_t begin, uint32_t end) {
    left.store(uint64_t{end} << 32 | begin, std::memory_order_relaxed);
  }

  // The first task, or the last; −1 when none is left.
  int64_t take(bool from_front) {
    uint64_t now = left.load(std::memory_order_relaxed);
    for (;;) {
      const auto begin = static_cast<uint32_t>(now);
      const auto end = static_cast<uint32_t>(now >> 32);
      if (begin >= end) return -1;
      const uint64_t next =
          from_front ? uint64_t{end} << 32 | (begin + 1) : uint64_t{end - 1} << 32 | begin;
      if (left.compare_exchange_weak(now, next, std::memory_order_relaxed))
        return from_front ? int64_t{begin} : int64_t{end} - 1;
    }
  }
};

// Grows and is never shrunk, so that a loop needs no allocation.
class Ranges {
 public:
  Range* get(int count) {
    if (count > capacity_) {
      ranges_ = std::make_unique<Range[]>(static_cast<size_t>(count));
      capacity_ = count;
    }
    return ranges_.get();
  }

 private:
  std::unique_ptr<Range[]> ranges_;
  int capacity_ = 0;
};

thread_local Ranges own_ranges;
thread_local bool ranges_in_use = false;

class InUse {
 public:
  InUse() { ranges_in_use = true; }
  ~InUse() { ranges_in_use = false; }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
};

}  // namespace

void for_each_in_ranges(ThreadTeam& team, int64_t n_tasks,
                        const std::function<void(int64_t)>& task) {
  const int n = team.n_threads();
  // A loop started by a task of such a loop finds the ranges of its thread taken.
  if (n == 1 || n_tasks <= n || ranges_in_use || n_tasks > std::numeric_limits<uint32_t>::max()) {
    team.parallel_for(n_tasks, [&](int64_t i, int) { task(i); });
    return;
  }
  const InUse mark;
  Range* ranges = own_ranges.get(n);
  for (int t = 0; t < n; ++t) {
    ranges[t].set(static_cast<uint32_t>(n_tasks * t / n),
                  static_cast<uint32_t>(n_tasks * (t + 1) / n));
  }
  team.parallel_for(n, [&](int64_t, int thread_index) {
    for (int t = 0; t < n; ++t) {
      Range& range = ranges[(thread_index + t) % n];
      for (int64_t i = range.take(t == 0); i >= 0; i = range.take(t == 0)) task(i);
    }
  });
}

}  // namespace llmq::quant
