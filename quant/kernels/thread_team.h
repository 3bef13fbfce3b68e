#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace llmq::quant {

/// CPUs that this thread may run on (sched_getaffinity), at least 1: the default number of threads.
int default_thread_count();

/// Which thread runs which task.
enum class Partition : uint8_t {
  kDynamic,  ///< threads take the next task as they become free; late threads may get none
  kStatic  ///< thread t of T runs the tasks from n·t/T to n·(t+1)/T: the same ones in every call
           ///< with this n (a single task runs on the caller)
};

/// A persistent team of threads for parallel loops. Idle workers spin for about 0.1 ms and then
/// sleep, so that regions in quick succession cost well under a microsecond and an idle team costs
/// nothing. Loops that several threads start at once are run one after the other (a loop of one
/// task or on a team of one thread runs at once on the thread that starts it). A task of one team
/// may use another team, unless tasks of that one use the first.
class ThreadTeam {
 public:
  /// Starts n_threads − 1 workers; the caller of parallel_for is the remaining thread, index 0.
  /// Throws Error{kUsage} unless 1 <= n_threads <= kMaxThreads.
  explicit ThreadTeam(int n_threads = default_thread_count());
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  static constexpr int kMaxThreads = 4096;

  [[nodiscard]] int n_threads() const { return n_threads_; }

  /// Calls fn(int64_t task_index, int thread_index) once for each task in [0, n_tasks) and returns
  /// when all have ended. thread_index is in [0, n_threads()) and differs between tasks of this
  /// call that run at the same time, so it may index the call's scratch space. Everything written
  /// by tasks is visible to the caller afterwards. n_tasks <= 0 does nothing.
  ///
  /// Exceptions: the one of the lowest failing task is rethrown here once the team is at rest; that
  /// choice does not depend on timing. Every task before it has run, later ones may have been
  /// skipped.
  ///
  /// A call from inside a task of the same team runs its tasks inline, in order, on this thread and
  /// under its thread_index.
  template <typename Fn>
  void parallel_for(int64_t n_tasks, Fn&& fn, Partition partition = Partition::kDynamic) {
    const int nested_index = thread_index_inside();
    if (n_threads_ == 1 || n_tasks == 1 || nested_index >= 0) {
      const int thread_index = nested_index >= 0 ? nested_index : 0;
      for (int64_t task = 0; task < n_tasks; ++task) fn(task, thread_index);
      return;
    }
    if (n_tasks <= 0) return;
    using Callable = std::remove_reference_t<Fn>;
    run({[](const void* callable, int64_t task, int thread_index) {
           (*static_cast<Callable*>(const_cast<void*>(callable)))(task, thread_index);
         },
         std::addressof(fn), n_tasks, partition});
  }

 private:
  struct Job {
    void (*call)(const void* callable, int64_t task, int thread_index) = nullptr;
    const void* callable = nullptr;
    int64_t n_tasks = 0;
    Partition partition = Partition::kDynamic;
  };
  class InsideMark;

  [[nodiscard]] int thread_index_inside() const;
  void run(const Job& job);
  void publish();
  void finish();
  void work_on_job(int thread_index);
  void run_task(int64_t task, int thread_index) noexcept;
  void worker_loop(int thread_index);
  bool enter_job(uint64_t& last_gate);
  void leave_job();
  template <typename Predicate>
  void wait_for_workers(Predicate at_rest);

  const int n_threads_;
  int n_spins_ = 0;
  std::mutex caller_mutex_;  // one parallel_for at a time

  // Written by the caller while the gate is shut, read by workers that have passed it.
  Job job_;
  std::atomic<int64_t> next_task_{0};
  std::atomic<int> n_finished_{0};

  // Job number, whether the job still accepts workers, and how many are inside; see the source.
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int> n_sleeping_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  std::mutex sleep_mutex_;
  std::condition_variable job_ready_;
  std::condition_variable workers_at_rest_;

  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::atomic<int64_t> error_task_{std::numeric_limits<int64_t>::max()};

  std::vector<std::thread> workers_;
};

}  // namespace llmq::quant
