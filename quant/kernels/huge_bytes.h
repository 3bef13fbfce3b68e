#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace llmq::quant {

/// Frees what allocate_huge returned.
struct FreeHugeBytes {
  void operator()(int8_t* p) const;
};
using HugeBytes = std::unique_ptr<int8_t, FreeHugeBytes>;

/// Memory for packed weights, KV caches and scratch, not set, aligned to 64 bytes at least: from 2
/// MiB on it asks the operating system for huge pages, except for the last part. Throws
/// std::bad_alloc. Thread safe.
HugeBytes allocate_huge(size_t size_bytes);

}  // namespace llmq::quant
