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
    if (entry.is_discarded() || !entry.contains("unit")) break;
    finished[entry["unit"].get<size_t>()] = entry["result"];
  }
  return finished;
}

}  // namespace

Journal::Journal(const std::filesystem::path& folder, const Json& fingerprint, bool may_resume)
    : path_(folder / kFileName) {
  if (may_resume) finished_ = read_finished(path_, fingerprint);
  if (finished_.empty()) {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
    formats::write_text_file(path_, fingerprint.dump() + "\n");
  }
}

const Json* Journal::finished(size_t unit) const {
  const auto it = finished_.find(unit);
  return it == finished_.end() ? nullptr : &it->second;
}

void Journal::record(size_t unit, const Json& result) {
  std::ofstream file(path_, std::ios::app);
  file << Json{{"unit", unit}, {"result", result}}.dump() << '\n';
  file.flush();
  if (!file) throw formats::io_error("cannot write " + path_.string(), errno);
}

void Journal::remove() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace llmq::convert
