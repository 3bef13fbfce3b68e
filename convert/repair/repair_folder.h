#pragma once

#include <filesystem>
#include <string>

#include "convert/repair/repair_plan.h"
#include "convert/report/console.h"
#include "formats/json.h"

namespace llmq::convert {

/// A quantized folder to be repaired into another one.
struct RepairJob {
  RepairRequest request;  ///< holds the source, which is only read
  std::filesystem::path destination;
  bool force = false;  ///< replace a destination that is not empty
  int n_threads = 1;
};

/// Writes a repaired copy of a quantized folder; the destination appears only complete. Where
/// nothing is wrong the copy is the same but for the header's spelling. Returns {"repairs":
/// [{"name", "detail", "count", "where"}], "conformance": {"ok", "rules"}}, the conformance being
/// that of what was written; a rule that is still broken does not keep the folder from appearing.
/// Throws as make_repair_plan, and Error{kIo}, Error{kInterrupted}, also Error{kBadInput} where a
/// cast overflows.
formats::Json run_repair_job(const RepairJob& job, Console& console);

/// The report of run_repair_job for people: one line a repair, then the rules.
std::string repair_text(const formats::Json& report);

}  // namespace llmq::convert
