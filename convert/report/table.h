#pragma once

#include <string>
#include <vector>

namespace llmq::convert {

/// A plain-text table: columns padded with spaces, a rule under the heading, numbers right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> heading) : rows_{std::move(heading)} {}

  /// Adds a row; missing cells are empty. Throws Error{kInternal} for more cells than the heading
  /// has.
  void add(std::vector<std::string> cells);

  /// The table with a newline after each row.
  [[nodiscard]] std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace llmq::convert
