#include "quant/kernels/huge_vector.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <new>
#include <numeric>
#include <utility>

namespace llmq::quant {
namespace {

TEST(HugeVector, elements_begin_at_a_cache_line_whatever_their_number) {
  for (const size_t n : {1U, 15U, 1000U, (1U << 19U) - 1U, (1U << 19U), (1U << 20U) + 3U}) {
    HugeVector<float> vector(n, 2.5F);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(vector.data()) % 64, 0U) << n;
    EXPECT_EQ(vector.front(), 2.5F);
    EXPECT_EQ(vector.back(), 2.5F);
  }
}

TEST(HugeVector, growing_and_moving_keeps_the_elements) {
  HugeVector<int32_t> vector(1000);
  std::iota(vector.begin(), vector.end(), 0);
  vector.resize(size_t{1} << 20U);
  const HugeVector<int32_t> moved = std::move(vector);
  for (int32_t i = 0; i < 1000; ++i) EXPECT_EQ(moved[static_cast<size_t>(i)], i);
  EXPECT_EQ(moved.back(), 0);
}

TEST(HugeVector, a_size_that_no_memory_has_is_refused) {
  HugeAllocator<double> allocator;
  EXPECT_THROW((void)allocator.allocate(SIZE_MAX / 4), std::bad_array_new_length);
}

}  // namespace
}  // namespace llmq::quant
