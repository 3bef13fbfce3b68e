#pragma once

#include <cstdint>
#include <string>

#include "formats/checkpoint.h"
#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"
#include "quant/kernels/thread_team.h"

namespace llmq::runtime {

/// Which rows of a stored compressed matrix make a linear: all, or some of a fused one.
struct CompressedRows {
  int64_t n_stored = 0;  ///< rows of the stored matrix
  int64_t n_in = 0;      ///< its columns
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

/// Decodes `module`.weight, .index and .info of W8A8SC (docs/w8a8sc.md) to the form that is
/// executed, never the whole matrix as int8. Work is divided over `team`. Throws Error{kBadInput}
/// that names the tensor, and the tile where one is damaged.
quant::PackedW8A8sc load_compressed(const formats::Checkpoint& checkpoint,
                                    const std::string& module, const CompressedRows& rows,
                                    quant::ThreadTeam& team);

}  // namespace llmq::runtime
