#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace llmq::convert {

/// Memory of this process in bytes, as the kernel counts it.
struct MemoryUse {
  uint64_t private_bytes = 0;  ///< anonymous plus shared-memory pages in RAM: what can run out
  uint64_t mapped_bytes = 0;   ///< file pages mapped: the kernel drops them when it needs room
};

/// Memory now, from /proc/self/status; zeros where that cannot be read.
MemoryUse memory_now();

/// Samples memory_now every few milliseconds on a thread of its own and keeps the largest values.
class MemorySampler {
 public:
  MemorySampler();
  ~MemorySampler();
  MemorySampler(const MemorySampler&) = delete;
  MemorySampler& operator=(const MemorySampler&) = delete;

  /// Largest of each so far.
  [[nodiscard]] MemoryUse peak() const;

 private:
  void sample();

  std::atomic<uint64_t> peak_private_{0};
  std::atomic<uint64_t> peak_mapped_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace llmq::convert
