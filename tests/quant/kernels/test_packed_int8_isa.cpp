#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_w8a8/packed_int8.h"

namespace llmq::quant {
namespace {

struct Extents {
  int64_t n;
  int64_t k;
};

// Every code, −128 included.
std::vector<int8_t> random_codes(int64_t size) {
  std::mt19937 random(7);
  std::vector<int8_t> codes(static_cast<size_t>(size));
  for (int8_t& code : codes) code = static_cast<int8_t>(random());
  return codes;
}

TEST(IsaPackedInt8, EveryInstructionSetPacksTheSameCodesAndSums) {
  ThreadTeam team(2);
  for (const Isa isa : supported_isas()) {
    for (const Extents& e : {Extents{1, 1}, {16, 31}, {16, 32}, {16, 33}, {33, 100}, {48, 256}}) {
      const int64_t stride = e.k + 3;  // rows at every alignment
      const std::vector<int8_t> codes = random_codes(e.n * stride);
      const PackedInt8 packed = PackedInt8::pack(codes.data(), e.n, e.k, stride, team, isa);
      for (int64_t row = 0; row < e.n; ++row) {
        int32_t sum = 0;
        for (int64_t column = 0; column < e.k; ++column) {
          const int8_t code = codes[static_cast<size_t>(row * stride + column)];
          ASSERT_EQ(packed.at(row, column), code) << isa_name(isa) << " " << row << " " << column;
          sum += code;
        }
        ASSERT_EQ(packed.row_sums()[row], sum) << isa_name(isa) << " " << row;
      }
      for (int64_t column = e.k; column < packed.padded_k(); ++column)
        ASSERT_EQ(packed.at(0, column), 0) << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace llmq::quant
