#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "formats/json.h"

namespace llmq::convert {

/// The record of an interrupted run's finished units, one JSON document a line in the staging
/// folder. Its first line is the fingerprint of everything that decides the bytes written (source
/// files, recipe, options, version); a run with the same fingerprint goes on behind the finished
/// units.
class Journal {
 public:
  static constexpr const char* kFileName = "llmq-journal.jsonl";

  /// Reads the journal of `folder` when it has this fingerprint, else starts a new one (the caller
  /// then starts from scratch: see is_resumed). A last line that was cut off is ignored.
  Journal(const std::filesystem::path& folder, const formats::Json& fingerprint, bool may_resume);

  [[nodiscard]] bool is_resumed() const { return !finished_.empty(); }

  /// Result of a finished unit as it was recorded, or null.
  [[nodiscard]] const formats::Json* finished(size_t unit) const;

  /// Records a unit whose bytes are on the disk.
  void record(size_t unit, const formats::Json& result);

  /// Deletes the journal file: the destination is complete.
  void remove();

 private:
  std::filesystem::path path_;
  std::map<size_t, formats::Json> finished_;
};

}  // namespace llmq::convert
