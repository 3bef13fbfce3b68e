#include "quant/matrix_view.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

using formats::DType;

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

void expect_refused(DType dtype, size_t size_bytes, int64_t n_rows, int64_t n_cols,
                    int64_t row_stride) {
  const std::vector<std::byte> bytes(size_bytes);
  try {
    const MatrixView view(dtype, bytes, n_rows, n_cols, row_stride);
    FAIL() << n_rows << " x " << n_cols << " by " << row_stride;
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
  }
}

TEST(MatrixView, AddressesFollowStrideAndElementSize) {
  const std::vector<std::byte> bytes(100);
  const MatrixView view(DType::kBF16, bytes, 3, 5, 20);
  EXPECT_EQ(view.row(2, 3) - bytes.data(), (2 * 20 + 3) * 2);
  const MatrixView floats(DType::kF32, bytes, 5, 5);
  EXPECT_EQ(floats.row(4, 1) - bytes.data(), (4 * 5 + 1) * 4);
}

TEST(MatrixView, NeedsBytesUpToTheEndOfTheLastRowOnly) {
  const std::vector<std::byte> bytes(2 * (2 * 20 + 5));
  EXPECT_NO_THROW(MatrixView(DType::kF16, bytes, 3, 5, 20));
  expect_refused(DType::kF16, bytes.size() - 1, 3, 5, 20);
  EXPECT_NO_THROW(MatrixView(DType::kF16, {}, 0, 5));
  EXPECT_NO_THROW(MatrixView(DType::kF16, {}, 5, 0));
}

TEST(MatrixView, RefusesImpossibleExtents) {
  expect_refused(DType::kF32, 64, -1, 4, 4);
  expect_refused(DType::kF32, 64, 4, -1, 4);
  expect_refused(DType::kF32, 64, 2, 4, 3);
  expect_refused(DType::kF32, 64, kHuge, kHuge, kHuge);
  expect_refused(DType::kF32, 64, 2, 1, kHuge);
  expect_refused(DType::kF32, 64, 1, kHuge / 4 + 1, kHuge);
  expect_refused(DType::kI8, 64, 2, 2, 2);
  expect_refused(DType::kF64, 64, 2, 2, 2);
}

TEST(MatrixView, PartsKeepTheStride) {
  const std::vector<std::byte> bytes(4 * 6 * 4);
  const MatrixView view(DType::kF32, bytes, 4, 6);
  const MatrixView part = view.rows(1, 2).cols(2, 3);
  EXPECT_EQ(part.n_rows(), 2);
  EXPECT_EQ(part.n_cols(), 3);
  EXPECT_EQ(part.row(1, 0), view.row(2, 2));
  EXPECT_EQ(view.rows(4, 0).n_rows(), 0);
  EXPECT_THROW(static_cast<void>(view.rows(3, 2)), formats::Error);
  EXPECT_THROW(static_cast<void>(view.cols(-1, 2)), formats::Error);
  EXPECT_THROW(static_cast<void>(view.cols(1, kHuge)), formats::Error);
}

}  // namespace
}  // namespace llmq::quant
