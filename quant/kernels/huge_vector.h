#pragma once

#include <cstddef>
#include <new>
#include <vector>

#include "quant/kernels/huge_bytes.h"

namespace llmq::quant {

/// Allocates as allocate_huge does. Stateless, thread safe.
template <typename T>
struct HugeAllocator {
  using value_type = T;

  HugeAllocator() = default;
  template <typename Other>
  HugeAllocator(const HugeAllocator<Other>& /*other*/) {}  // NOLINT(google-explicit-constructor)

  /// Throws std::bad_alloc, std::bad_array_new_length where n elements have no size.
  T* allocate(size_t n) {
    if (n > static_cast<size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return reinterpret_cast<T*>(allocate_huge(n * sizeof(T)).release());
  }
  void deallocate(T* p, size_t /*n*/) { FreeHugeBytes()(reinterpret_cast<int8_t*>(p)); }

  template <typename Other>
  bool operator==(const HugeAllocator<Other>& /*other*/) const {
    return true;
  }
};

/// A vector whose elements begin at a multiple of 64 bytes, in huge pages where it is large: what
/// kernels write row by row then fills whole cache lines, where rows are a multiple of them.
template <typename T>
using HugeVector = std::vector<T, HugeAllocator<T>>;

}  // namespace llmq::quant
