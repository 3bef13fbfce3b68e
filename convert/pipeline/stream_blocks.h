#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "convert/pipeline/ledger.h"
#include "convert/pipeline/unit_preparation.h"
#include "formats/checkpoint.h"

namespace llmq::convert {

/// Source bytes of a block, unless a single pair of rows has more. Large enough that a write call
/// costs nothing, small enough that blocks spread evenly over threads.
inline constexpr uint64_t kBlockBytes = uint64_t{4} << 20;

/// A tensor as rows: a matrix as it is, anything else as rows of at most a block.
struct RowExtents {
  int64_t n_rows = 0;
  int64_t n_cols = 0;
};

RowExtents row_extents(const formats::StoredTensor& tensor);

/// A run of rows of one entry.
struct Block {
  size_t entry_index = 0;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

/// The blocks of a unit's entries in order, of about kBlockBytes each and an even number of rows
/// but for the last: int4 codes of neighbouring rows may share a byte. Entries without outputs and
/// computed ones have none.
std::vector<Block> make_blocks(std::span<const LedgerEntry> entries);

/// True where the values of an entry's outputs are computed by calibration, not read.
bool is_computed(const LedgerEntry& entry);

/// The source of an entry as it is read: stored, or the float32 values that were prepared in its
/// place. Throws Error{kInternal} where those are of another size.
formats::StoredTensor prepared_source(const LedgerEntry& entry,
                                      const EntryPreparation& preparation);

/// Throws Error{kBadInput} naming the first value of a float tensor that is NaN or infinite.
void require_finite(const formats::StoredTensor& tensor);

}  // namespace llmq::convert
