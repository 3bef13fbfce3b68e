#include "quant/kernels/thread_team.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "formats/error.h"

namespace llmq::quant {
namespace {

// The gate word: bits 0..15 workers inside the job, bit 16 open, bits 17.. number of the job.
constexpr uint64_t kInsideMask = 0xffff;
constexpr uint64_t kOpen = uint64_t{1} << 16;
constexpr uint64_t kJobStep = uint64_t{1} << 17;
static_assert(ThreadTeam::kMaxThreads <= static_cast<int>(kInsideMask));

constexpr int kSpins = 2000;  // about 0.1 ms where PAUSE takes 140 cycles

uint64_t job_number(uint64_t gate) {
  return gate / kJobStep;
}

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

struct Inside {
  const ThreadTeam* team = nullptr;
  int thread_index = -1;
  const Inside* outer = nullptr;
};
thread_local const Inside* innermost = nullptr;

}  // namespace

// Marks this thread as running tasks of a team while it lives.
class ThreadTeam::InsideMark {
 public:
  InsideMark(const ThreadTeam* team, int thread_index) : inside_{team, thread_index, innermost} {
    innermost = &inside_;
  }
  ~InsideMark() { innermost = inside_.outer; }
  InsideMark(const InsideMark&) = delete;
  InsideMark& operator=(const InsideMark&) = delete;

 private:
  Inside inside_;
};

int default_thread_count() {
  // A machine may have more CPUs than the fixed cpu_set_t holds; the call then says EINVAL.
  for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 2) {
    cpu_set_t* allowed = CPU_ALLOC(n_cpus);
    if (allowed == nullptr) break;
    const size_t size_bytes = CPU_ALLOC_SIZE(n_cpus);
    const bool known = sched_getaffinity(0, size_bytes, allowed) == 0;
    const bool too_small = !known && errno == EINVAL;
    const int n_allowed = known ? CPU_COUNT_S(size_bytes, allowed) : 0;
    CPU_FREE(allowed);
    if (n_allowed > 0) return std::min(n_allowed, ThreadTeam::kMaxThreads);
    if (!too_small) break;
  }
  return 1;
}

ThreadTeam::ThreadTeam(int n_threads) : n_threads_(n_threads) {
  if (n_threads < 1 || n_threads > kMaxThreads) {
    throw formats::usage_error("the number of threads must be between 1 and " +
                               std::to_string(kMaxThreads) + ", not " + std::to_string(n_threads));
  }
  // Spinning threads that outnumber the CPUs take the time of the one they wait for.
  n_spins_ = n_threads <= default_thread_count() ? kSpins : 0;
  workers_.reserve(static_cast<size_t>(n_threads - 1));
  for (int index = 1; index < n_threads; ++index) {
    workers_.emplace_back([this, index] { worker_loop(index); });
  }
}

ThreadTeam::~ThreadTeam() {
  stop_.store(true);
  { const std::lock_guard lock(sleep_mutex_); }
  job_ready_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int ThreadTeam::thread_index_inside() const {
  for (const Inside* inside = innermost; inside != nullptr; inside = inside->outer) {
    if (inside->team == this) return inside->thread_index;
  }
  return -1;
}

void ThreadTeam::run(const Job& job) {
  const std::lock_guard one_caller(caller_mutex_);
  job_ = job;
  next_task_.store(0, std::memory_order_relaxed);
  n_finished_.store(0, std::memory_order_relaxed);
  error_task_.store(std::numeric_limits<int64_t>::max(), std::memory_order_relaxed);
  publish();
  work_on_job(0);
  finish();
  if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadTeam::publish() {
  const uint64_t last = gate_.load(std::memory_order_relaxed);
  // Sequentially consistent against the order in enter_job: either the worker sees the new gate or
  // this thread sees the worker asleep.
  gate_.store((job_number(last) + 1) * kJobStep | kOpen);
  if (n_sleeping_.load() > 0) {
    { const std::lock_guard lock(sleep_mutex_); }
    job_ready_.notify_all();
  }
}

void ThreadTeam::finish() {
  if (job_.partition == Partition::kStatic) {
    wait_for_workers([this] { return n_finished_.load() == n_threads_ - 1; });
  }
  // Workers that have not come by now find nothing to do: shut them out rather than wait.
  gate_.fetch_and(~kOpen);
  wait_for_workers([this] { return (gate_.load() & kInsideMask) == 0; });
}

template <typename Predicate>
void ThreadTeam::wait_for_workers(Predicate at_rest) {
  for (int spin = 0; spin <= n_spins_; ++spin) {
    if (at_rest()) return;
    pause_briefly();
  }
  std::unique_lock lock(sleep_mutex_);
  caller_sleeps_.store(true);
  workers_at_rest_.wait(lock, at_rest);
  caller_sleeps_.store(false);
}

void ThreadTeam::work_on_job(int thread_index) {
  const InsideMark mark(this, thread_index);
  const int64_t n_tasks = job_.n_tasks;
  if (job_.partition == Partition::kStatic) {
    // n·t/T without overflow for any n.
    const auto first_of = [&](int64_t t) {
      return n_tasks / n_threads_ * t + n_tasks % n_threads_ * t / n_threads_;
    };
    const int64_t end = first_of(thread_index + 1);
    for (int64_t task = first_of(thread_index); task < end; ++task) run_task(task, thread_index);
    return;
  }
  while (true) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= n_tasks) return;
    run_task(task, thread_index);
  }
}

// Skips only tasks behind a failed one, so the lowest failing task always runs.
void ThreadTeam::run_task(int64_t task, int thread_index) noexcept {
  if (task > error_task_.load(std::memory_order_relaxed)) return;
  try {
    job_.call(job_.callable, task, thread_index);
  } catch (...) {
    const std::lock_guard lock(error_mutex_);
    if (task < error_task_.load(std::memory_order_relaxed)) {
      error_task_.store(task, std::memory_order_relaxed);
      error_ = std::current_exception();
    }
  }
}

void ThreadTeam::worker_loop(int thread_index) {
  uint64_t last_gate = 0;
  while (enter_job(last_gate)) {
    work_on_job(thread_index);
    leave_job();
  }
}

// Waits for a job newer than last_gate that still accepts workers; false when the team ends.
bool ThreadTeam::enter_job(uint64_t& last_gate) {
  const auto is_new = [&](uint64_t gate) {
    return (gate & kOpen) != 0 && job_number(gate) != job_number(last_gate);
  };
  while (true) {
    uint64_t gate = gate_.load();
    for (int spin = 0; !is_new(gate) && spin < n_spins_ && !stop_.load(); ++spin) {
      pause_briefly();
      gate = gate_.load();
    }
    if (!is_new(gate)) {
      std::unique_lock lock(sleep_mutex_);
      n_sleeping_.fetch_add(1);
      job_ready_.wait(lock, [&] {
        gate = gate_.load();
        return is_new(gate) || stop_.load();
      });
      n_sleeping_.fetch_sub(1);
    }
    if (stop_.load()) return false;
    if (gate_.compare_exchange_strong(gate, gate + 1)) {
      last_gate = gate;
      return true;
    }
  }
}

void ThreadTeam::leave_job() {
  n_finished_.fetch_add(1);
  gate_.fetch_sub(1);
  if (caller_sleeps_.load()) {
    { const std::lock_guard lock(sleep_mutex_); }
    workers_at_rest_.notify_one();
  }
}

}  // namespace llmq::quant
