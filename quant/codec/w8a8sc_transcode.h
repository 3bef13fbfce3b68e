#pragma once

#include <cstdint>

#include "quant/codec/w8a8sc.h"
#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"

namespace llmq::quant {

/// Packs rows [first_row, first_row + n_rows) of a compressed matrix for gemm_w8a8sc. Tiles are
/// decoded as they are packed, PackedW8A8sc::kSourceRows rows per thread at a time, so that the
/// matrix is never there as int8; tiles that hold other rows as well are decoded whole. Work is
/// divided over `team`. Throws Error{kBadInput} that names a damaged tile, Error{kInternal} for
/// rows that the matrix does not have.
PackedW8A8sc pack_compressed(const CompressedReader& reader, int64_t first_row, int64_t n_rows,
                             ThreadTeam& team, Isa isa = active_isa());

}  // namespace llmq::quant
