#include <algorithm>
#include <cstring>

#include "formats/error.h"
#include "formats/slicing.h"

namespace llmq::formats {
namespace {

/// Part of a run of rows that lies in a range of rows.
struct Overlap {
  int64_t in_run = 0;  ///< first row, counted within the run
  int64_t n = 0;       ///< 0 or less: none
};

Overlap overlap(int64_t run_begin, int64_t run_n, RowRange rows) {
  const int64_t first = std::max(run_begin, rows.first);
  const int64_t end = std::min(run_begin + run_n, rows.first + rows.n);
  return {first - run_begin, end - first};
}

std::byte* at(std::span<std::byte> bytes, int64_t offset) {
  return bytes.data() + static_cast<size_t>(offset);
}

const std::byte* at(std::span<const std::byte> bytes, int64_t offset) {
  return bytes.data() + static_cast<size_t>(offset);
}

/// Calls visit(bytes in the part, bytes in the rows of the whole tensor, number of bytes) for every
/// piece of a part that lies in `rows` of the whole tensor and has a source.
template <typename Visit>
void visit_pieces(const MergeTarget& target, const TensorSlice& slice, RowRange rows,
                  const Visit& visit) {
  const auto element = static_cast<int64_t>(target.element_bytes);
  const int64_t whole_row = target.extents.columns * element;
  const int64_t part_row = matrix_extents(slice.shape).columns * element;
  int64_t begin = 0;  // of the run, in the part
  for (const SliceRun& run : slice.runs) {
    const int64_t run_begin = begin;
    begin += run.n;
    if (run.source_begin == SliceRun::kZeros) continue;
    if (slice.by_columns) {
      for (int64_t row = rows.first; row < rows.first + rows.n; ++row) {
        visit(row * part_row + run_begin * element,
              (row - rows.first) * whole_row + run.source_begin * element, run.n * element);
      }
      continue;
    }
    const Overlap part = overlap(run.source_begin, run.n, rows);
    if (part.n <= 0) continue;
    visit((run_begin + part.in_run) * whole_row,
          (run.source_begin + part.in_run - rows.first) * whole_row, part.n * whole_row);
  }
}

/// The last rank that holds a byte of the rows.
int64_t last_holder(const MergeTarget& target, std::span<const RankPart> parts, RowRange rows,
                    int64_t byte) {
  int64_t last = 0;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    visit_pieces(target, parts[rank].slice, rows, [&](int64_t, int64_t into, int64_t n) {
      if (byte >= into && byte < into + n) last = static_cast<int64_t>(rank);
    });
  }
  return last;
}

}  // namespace

MatrixExtents matrix_extents(const Shape& shape) {
  if (shape.empty()) return {};
  return {shape[0], shape_elements(Shape(shape.begin() + 1, shape.end()))};
}

void copy_slice_rows(const WholeTensor& source, const TensorSlice& slice, RowRange rows,
                     std::span<std::byte> to) {
  if (to.empty()) return;
  const auto element = static_cast<int64_t>(source.element_bytes);
  const int64_t whole_row = source.extents.columns * element;
  const int64_t part_row = matrix_extents(slice.shape).columns * element;
  std::memset(to.data(), 0, to.size());
  int64_t begin = 0;
  for (const SliceRun& run : slice.runs) {
    const int64_t run_begin = begin;
    begin += run.n;
    if (run.source_begin == SliceRun::kZeros) continue;
    if (slice.by_columns) {
      for (int64_t row = 0; row < rows.n; ++row) {
        std::memcpy(at(to, row * part_row + run_begin * element),
                    at(source.bytes, (rows.first + row) * whole_row + run.source_begin * element),
                    static_cast<size_t>(run.n * element));
      }
      continue;
    }
    const Overlap part = overlap(run_begin, run.n, rows);
    if (part.n <= 0) continue;
    std::memcpy(at(to, (run_begin + part.in_run - rows.first) * whole_row),
                at(source.bytes, (run.source_begin + part.in_run) * whole_row),
                static_cast<size_t>(part.n * whole_row));
  }
}

std::optional<DifferingRanks> merge_rows(const MergeTarget& target, std::span<const RankPart> parts,
                                         RowRange rows, std::span<std::byte> to) {
  if (to.empty()) return std::nullopt;
  for (const RankPart& part : parts) {
    visit_pieces(target, part.slice, rows, [&](int64_t from, int64_t into, int64_t n) {
      std::memcpy(at(to, into), at(part.bytes, from), static_cast<size_t>(n));
    });
  }
  // Of ranks that hold the same rows the last one's are there now.
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    std::optional<int64_t> differs;
    visit_pieces(target, parts[rank].slice, rows, [&](int64_t from, int64_t into, int64_t n) {
      const std::byte* stored = at(parts[rank].bytes, from);
      const auto [found, merged] = std::mismatch(stored, stored + n, at(to, into));
      if (!differs && found != stored + n) differs = into + (found - stored);
    });
    if (differs) {
      return DifferingRanks{static_cast<int64_t>(rank), last_holder(target, parts, rows, *differs)};
    }
  }
  return std::nullopt;
}

bool is_padding_zero(const RankPart& part, size_t element_bytes) {
  const auto element = static_cast<int64_t>(element_bytes);
  const MatrixExtents extents = matrix_extents(part.slice.shape);
  const int64_t row_bytes = extents.columns * element;
  const auto is_zero = [&](int64_t from, int64_t n) {
    return std::all_of(at(part.bytes, from), at(part.bytes, from + n),
                       [](std::byte value) { return value == std::byte{0}; });
  };
  int64_t begin = 0;
  for (const SliceRun& run : part.slice.runs) {
    const int64_t run_begin = begin;
    begin += run.n;
    if (run.source_begin != SliceRun::kZeros) continue;
    if (!part.slice.by_columns) {
      if (!is_zero(run_begin * row_bytes, run.n * row_bytes)) return false;
      continue;
    }
    for (int64_t row = 0; row < extents.rows; ++row) {
      if (!is_zero(row * row_bytes + run_begin * element, run.n * element)) return false;
    }
  }
  return true;
}

}  // namespace llmq::formats
