#include "convert/pipeline/journal.h"

#include <cerrno>
#include <string>

#include "formats/error.h"
#include "formats/file.h"

namespace llmq::convert {
namespace {

using formats::Json;

std::map<size_t, Json> read_finished(const std::filesystem::path& path, const Json& fingerprint) {
  std::map<size_t, Json> finished;
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || Json::parse(line, nullptr, false) != fingerprint)
    return finished;
  while (std::getline(file, line)) {
    const Json entry = Json::parse(line, nullptr, false);
    const bool is_unit = entry.is_object() && entry.contains("unit") && entry.contains("result") &&
                         entry["unit"].is_number_unsigned();
    if (!is_unit) break;
    finished[entry["unit"].get<size_t>()] = entry["result"];
  }
  return finished;
}

std::string unit_line(size_t unit, const Json& result) {
  return Json{{"unit", unit}, {"result", result}}.dump() + "\n";
}

}  // namespace

Journal::Journal(const std::filesystem::path& folder, const Json& fingerprint, bool may_resume)
    : path_(folder / kFileName) {
  if (may_resume) finished_ = read_finished(path_, fingerprint);
  // Written anew also where it goes on: a line that was cut off would swallow the next one.
  std::string text = fingerprint.dump() + "\n";
  for (const auto& [unit, result] : finished_) text += unit_line(unit, result);
  const std::filesystem::path fresh = path_.string() + ".new";
  formats::write_text_file(fresh, text);
  std::filesystem::rename(fresh, path_);
}

const Json* Journal::finished(size_t unit) const {
  const auto it = finished_.find(unit);
  return it == finished_.end() ? nullptr : &it->second;
}

void Journal::record(size_t unit, const Json& result) {
  std::ofstream file(path_, std::ios::app);
  file << unit_line(unit, result);
  file.flush();
  if (!file) throw formats::io_error("cannot write " + path_.string(), errno);
}

void Journal::remove() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace llmq::convert
