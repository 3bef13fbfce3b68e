#pragma once

#include <array>
#include <cstdint>

/// The shapes at which other libraries are compared, as docs/performance.md lists them.
namespace llmq::bench {

struct PeerShape {
  int64_t m;
  int64_t k;
  int64_t n;
};

inline constexpr std::array kPeerShapes{PeerShape{256, 1536, 8960}, PeerShape{2048, 1536, 8960},
                                        PeerShape{256, 8960, 1536}, PeerShape{2048, 8960, 1536},
                                        PeerShape{256, 4096, 4096}, PeerShape{2048, 4096, 4096}};

}  // namespace llmq::bench
