#include "quant/gram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "formats/error.h"
#include "tests/quant/random_matrix.h"

namespace llmq::quant {
namespace {

TEST(Gram, IsTheSumOfFloat64) {
  ThreadTeam team(2);
  for (const int64_t k : {1, 7, 33, 128, 129, 200}) {
    const OwnedMatrix x = random_inputs(71, k, 8);
    GramObserver observer;
    observer.observe({x.values.data(), 40, k, k}, team);
    observer.observe({x.values.data() + 40 * k, 31, k, k}, team);
    const Gram gram = observer.gram();
    EXPECT_EQ(gram.k, k);
    EXPECT_EQ(gram.n_rows, 71);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int64_t row = 0; row < 71; ++row) {
          const double product = static_cast<double>(x.at(row, i)) * x.at(row, j);
          sum += product;
          magnitude += std::abs(product);
        }
        // Any order of a float32 sum of at most 40 products.
        ASSERT_NEAR(gram.values[static_cast<size_t>(i * k + j)], sum, 41.0 * 0x1p-24 * magnitude);
        ASSERT_EQ(gram.values[static_cast<size_t>(i * k + j)],
                  gram.values[static_cast<size_t>(j * k + i)]);
      }
    }
  }
}

TEST(Gram, DependsOnNeitherThreadsNorStride) {
  const OwnedMatrix x = random_inputs(50, 140, 9);
  OwnedMatrix dense{50, 133, {}};
  for (int64_t row = 0; row < 50; ++row) {
    const auto values = x.row(row).first(133);
    dense.values.insert(dense.values.end(), values.begin(), values.end());
  }
  ThreadTeam one(1);
  GramObserver want;
  want.observe(dense.matrix(), one);
  for (const int n_threads : {1, 2, 3}) {
    ThreadTeam team(n_threads);
    GramObserver got;
    got.observe({x.values.data(), 50, 133, 140}, team);
    EXPECT_EQ(got.gram().values, want.gram().values);
  }
}

TEST(Gram, BatchesAreAddedInFloat64) {
  ThreadTeam team(1);
  GramObserver observer;
  const std::vector<float> large(1, 4096.0F);
  const std::vector<float> small(1, 0.5F);
  observer.observe({large.data(), 1, 1, 1}, team);
  for (int i = 0; i < 3; ++i) observer.observe({small.data(), 1, 1, 1}, team);
  EXPECT_EQ(observer.gram().values[0], 4096.0 * 4096.0 + 0.75);
}

TEST(Gram, OtherChannelsAreRefusedAndNoRowsIgnored) {
  ThreadTeam team(1);
  const OwnedMatrix x = random_matrix(4, 6, 10);
  GramObserver observer;
  observer.observe({nullptr, 0, 3, 3}, team);
  EXPECT_EQ(observer.gram().k, 0);
  observer.observe(x.matrix(), team);
  const std::vector<double> before = observer.gram().values;
  try {
    observer.observe({x.values.data(), 4, 5, 6}, team);
    ADD_FAILURE() << "no error";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kInternal);
  }
  EXPECT_EQ(observer.gram().values, before);
  EXPECT_EQ(observer.gram().n_rows, 4);
}

}  // namespace
}  // namespace llmq::quant
