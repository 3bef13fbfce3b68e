#pragma once

#include <cstdint>
#include <span>

namespace llmq::runtime {

/// How the ranks of a tensor-parallel model talk to each other: threads of one process, or
/// processes. Every rank must make the same calls with the same sizes in the same order; each call
/// returns when all ranks have made it. What a call gives has the same bits on every rank and for
/// every implementation, because floats are added in the order of the ranks.
///
/// An object belongs to one rank and is used by one thread at a time. Calls throw
/// Error{kInternal} ("stopped because ...") once another rank has failed, so that nobody waits for
/// it.
class Communicator {
 public:
  Communicator() = default;
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] virtual int64_t rank() const = 0;  ///< 0 <= rank() < size()
  [[nodiscard]] virtual int64_t size() const = 0;  ///< at least 1

  /// Replaces each element by its sum over ranks, modulo 2^32.
  virtual void sum(std::span<int32_t> values) = 0;
  /// Replaces each element by ((x_0 + x_1) + x_2) + ..., each addition rounded to float32.
  virtual void sum(std::span<float> values) = 0;
  /// Replaces each element by the largest over ranks. None may be NaN.
  virtual void max(std::span<float> values) = 0;
  /// all[r · mine.size(), ...) becomes what rank r gave; all.size() must be size() · mine.size().
  virtual void gather(std::span<const float> mine, std::span<float> all) = 0;
  /// Returns when every rank has called it.
  virtual void barrier() = 0;
};

}  // namespace llmq::runtime
