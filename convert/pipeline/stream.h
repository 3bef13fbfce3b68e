#pragma once

#include <functional>
#include <span>

#include "convert/pipeline/ledger.h"
#include "convert/pipeline/output_layout.h"
#include "convert/pipeline/unit_preparation.h"
#include "formats/json.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// Bytes of buffers that streaming this ledger with this many threads needs.
uint64_t stream_buffer_bytes(const Ledger& ledger, int n_threads);

/// Where a unit's bytes go.
struct StreamTarget {
  const OutputLayout& layout;
  const OutputFiles& files;
  /// dtype that consumers round scales to; they are rounded to it before codes are computed.
  formats::DType model_dtype;
};

/// Reads, rounds and writes the entries of one unit in blocks of rows spread over the team. The
/// bytes written do not depend on the number of threads or the instruction set. `unit` has one
/// element per entry. Returns one object per entry with what rounding or casting did to it (in the
/// order of the entries): `sqnr_db`, `max_error`, `clipped_share`, `zero_share`, ... Calls
/// `on_bytes` with source bytes as they are done (from any thread). Throws Error{kBadInput} naming
/// tensor, row and column of a value that is not finite or does not fit the dtype written;
/// Error{kIo} when writing fails; Error{kInterrupted} after a signal.
formats::Json stream_unit(std::span<const LedgerEntry> entries, const UnitPreparation& unit,
                          const StreamTarget& target, quant::ThreadTeam& team,
                          const std::function<void(uint64_t)>& on_bytes);

}  // namespace llmq::convert
