#include "convert/report/table.h"

#include <algorithm>

#include "formats/error.h"

namespace llmq::convert {
namespace {

/// Terminal columns of UTF-8 text without wide characters: bytes that do not continue a character.
size_t display_width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool is_number(const std::string& text) {
  if (text.empty()) return true;
  const size_t at = text.front() == '-' || text.front() == '+' ? 1 : 0;
  return at < text.size() && text[at] >= '0' && text[at] <= '9';
}

}  // namespace

void Table::add(std::vector<std::string> cells) {
  if (cells.size() > rows_.front().size()) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         "a table row has more cells than the heading");
  }
  cells.resize(rows_.front().size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  const size_t n_columns = rows_.front().size();
  std::vector<size_t> widths(n_columns, 0);
  std::vector<bool> numeric(n_columns, rows_.size() > 1);
  for (size_t row = 0; row < rows_.size(); ++row) {
    for (size_t column = 0; column < n_columns; ++column) {
      widths[column] = std::max(widths[column], display_width(rows_[row][column]));
      if (row > 0 && !is_number(rows_[row][column])) numeric[column] = false;
    }
  }
  std::string text;
  for (size_t row = 0; row < rows_.size(); ++row) {
    std::string line;
    for (size_t column = 0; column < n_columns; ++column) {
      const std::string& cell = rows_[row][column];
      const std::string padding(widths[column] - display_width(cell), ' ');
      line += (column > 0 ? "  " : "") + (numeric[column] ? padding + cell : cell + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
    if (row > 0) continue;
    for (size_t column = 0; column < n_columns; ++column) {
      text += (column > 0 ? "  " : "") + std::string(widths[column], '-');
    }
    text += "\n";
  }
  return text;
}

}  // namespace llmq::convert
