#include <cstring>

#include "quant/kernels/limits/probes.h"

namespace llmq::quant {

int64_t read_scalar(const unsigned char* data, int64_t size_bytes) {
  constexpr int kWords = 4;
  uint64_t sum[kWords] = {};
  constexpr auto kStep = static_cast<int64_t>(sizeof sum);
  for (int64_t i = 0; i + kStep <= size_bytes; i += kStep) {
    uint64_t words[kWords];
    std::memcpy(words, data + i, sizeof words);
    for (int u = 0; u < kWords; ++u) sum[u] ^= words[u];
  }
  return static_cast<int64_t>(sum[0] ^ sum[1] ^ sum[2] ^ sum[3]);
}

}  // namespace llmq::quant
