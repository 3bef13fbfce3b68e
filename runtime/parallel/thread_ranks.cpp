#include "runtime/parallel/thread_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

using formats::Error;
using formats::ErrorCode;

constexpr int64_t kMaxRanks = 1024;

/// What the ranks of one run share.
class Meeting {
 public:
  explicit Meeting(int64_t n_ranks) : n_ranks_(n_ranks), places_(static_cast<size_t>(n_ranks)) {}

  [[nodiscard]] int64_t n_ranks() const { return n_ranks_; }

  /// Waits for all ranks. Throws when one has failed.
  void wait() {
    std::unique_lock lock(mutex_);
    throw_if_failed();
    const uint64_t round = round_;
    if (++n_arrived_ == n_ranks_) {
      n_arrived_ = 0;
      ++round_;
      all_here_.notify_all();
      return;
    }
    all_here_.wait(lock, [&] { return round_ != round || failed_rank_ >= 0; });
    if (round_ == round) throw_if_failed();
  }

  /// Remembers the first failure and wakes everybody.
  void fail(int64_t rank, std::exception_ptr error) {
    const std::scoped_lock lock(mutex_);
    if (failed_rank_ >= 0) return;
    failed_rank_ = rank;
    error_ = std::move(error);
    all_here_.notify_all();
  }

  [[nodiscard]] std::exception_ptr error() const { return error_; }

  /// Where a rank's operand lies, for the others, between two waits.
  const void*& place(int64_t rank) { return places_[static_cast<size_t>(rank)]; }

  /// Room for results of `size_bytes` that all ranks write parts of; grown by rank 0.
  std::vector<std::byte>& room() { return room_; }

 private:
  void throw_if_failed() const {
    if (failed_rank_ < 0) return;
    throw Error(ErrorCode::kInternal, fmt::format("stopped because rank {} failed", failed_rank_));
  }

  const int64_t n_ranks_;
  std::vector<const void*> places_;
  std::vector<std::byte> room_;
  std::mutex mutex_;
  std::condition_variable all_here_;
  int64_t n_arrived_ = 0;
  uint64_t round_ = 0;
  int64_t failed_rank_ = -1;
  std::exception_ptr error_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(Meeting& meeting, int64_t rank) : meeting_(meeting), rank_(rank) {}

  [[nodiscard]] int64_t rank() const override { return rank_; }
  [[nodiscard]] int64_t size() const override { return meeting_.n_ranks(); }

  void sum(std::span<int32_t> values) override {
    combine(values, [](int32_t a, int32_t b) {
      return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
    });
  }
  void sum(std::span<float> values) override {
    combine(values, [](float a, float b) { return a + b; });
  }
  void max(std::span<float> values) override {
    combine(values, [](float a, float b) { return std::max(a, b); });
  }

  void gather(std::span<const float> mine, std::span<float> all) override {
    meeting_.place(rank_) = mine.data();
    meeting_.wait();
    for (int64_t rank = 0; rank < size(); ++rank) {
      const auto* from = static_cast<const float*>(meeting_.place(rank));
      std::copy_n(from, mine.size(), all.data() + static_cast<size_t>(rank) * mine.size());
    }
    meeting_.wait();
  }

  void barrier() override { meeting_.wait(); }

 private:
  // Every rank combines a part of the elements over all ranks, in their order, and then takes the
  // parts of the others.
  template <typename T, typename Fn>
  void combine(std::span<T> values, const Fn& fn) {
    meeting_.place(rank_) = values.data();
    if (rank_ == 0 && meeting_.room().size() < values.size_bytes())
      meeting_.room().resize(values.size_bytes());
    meeting_.wait();
    auto* combined = reinterpret_cast<T*>(meeting_.room().data());
    const auto n = static_cast<int64_t>(values.size());
    const int64_t begin = n * rank_ / size();
    const int64_t end = n * (rank_ + 1) / size();
    for (int64_t i = begin; i < end; ++i) {
      T total = static_cast<const T*>(meeting_.place(0))[i];
      for (int64_t rank = 1; rank < size(); ++rank)
        total = fn(total, static_cast<const T*>(meeting_.place(rank))[i]);
      combined[i] = total;
    }
    meeting_.wait();
    std::copy_n(combined, values.size(), values.data());
    meeting_.wait();
  }

  Meeting& meeting_;
  int64_t rank_;
};

}  // namespace

void run_thread_ranks(int64_t n_ranks, const std::function<void(Communicator&)>& fn) {
  if (n_ranks < 1 || n_ranks > kMaxRanks) {
    throw formats::usage_error(
        fmt::format("the number of ranks is {}; it must be from 1 to {}", n_ranks, kMaxRanks));
  }
  Meeting meeting(n_ranks);
  const auto run = [&](int64_t rank) {
    try {
      ThreadCommunicator communicator(meeting, rank);
      fn(communicator);
    } catch (...) {
      meeting.fail(rank, std::current_exception());
    }
  };
  std::vector<std::thread> threads;
  try {
    for (int64_t rank = 1; rank < n_ranks; ++rank) threads.emplace_back(run, rank);
  } catch (const std::system_error& error) {
    const auto rank = static_cast<int64_t>(threads.size()) + 1;
    meeting.fail(rank, std::make_exception_ptr(
                           Error(ErrorCode::kMemory, fmt::format("no thread for rank {} of {}: {}",
                                                                 rank, n_ranks, error.what()))));
  }
  run(0);
  for (std::thread& thread : threads) thread.join();
  if (meeting.error()) std::rethrow_exception(meeting.error());
}

}  // namespace llmq::runtime
