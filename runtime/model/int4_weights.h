#pragma once

#include <cstdint>

#include "formats/checkpoint.h"
#include "quant/kernels/gemm_w4a16/packed_int4.h"
#include "quant/kernels/thread_team.h"

namespace llmq::runtime {

/// The int4 codes of a stored weight [n, k] in the order in which they are executed. Takes every
/// layout of formats::Int4Layout, told apart by the tensor's shape: pairs of columns where
/// `group_size` is 0 (a scale per output), pairs of rows where it is not. Work is divided over
/// `team`. Throws Error{kBadInput} naming the tensor for another shape, a dtype that is not I8, or
/// an unpacked code beyond 4 bits.
quant::PackedInt4 packed_int4(const formats::StoredTensor& tensor, int64_t n, int64_t k,
                              int64_t group_size, quant::ThreadTeam& team);

}  // namespace llmq::runtime
