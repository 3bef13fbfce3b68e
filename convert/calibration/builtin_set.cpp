#include "convert/calibration/builtin_set.h"

#include <algorithm>
#include <array>
#include <vector>

#include "convert/calibration/builtin_texts.h"

namespace llmq::convert {
namespace {

/// One kind of texts and how many of them are taken already.
struct Kind {
  std::vector<std::string_view> texts;
  size_t n_taken = 0;

  [[nodiscard]] bool is_empty() const { return n_taken == texts.size(); }
};

/// Whether the next text of `a` lies at a smaller share of its kind than that of `b`: with texts at
/// (i + 1/2) / n, compared without division.
bool comes_before(const Kind& a, const Kind& b) {
  if (a.is_empty() || b.is_empty()) return !a.is_empty();
  return (2 * a.n_taken + 1) * b.texts.size() < (2 * b.n_taken + 1) * a.texts.size();
}

Kind kind_of(std::initializer_list<std::span<const std::string_view>> parts) {
  Kind kind;
  for (const auto part : parts) kind.texts.insert(kind.texts.end(), part.begin(), part.end());
  return kind;
}

/// Every prefix of the result has the kinds in the proportions of the whole, as nearly as it can.
std::vector<std::string_view> interleave(std::span<Kind> kinds) {
  std::vector<std::string_view> texts;
  while (true) {
    Kind& next = *std::min_element(kinds.begin(), kinds.end(), comes_before);
    if (next.is_empty()) return texts;
    texts.push_back(next.texts[next.n_taken++]);
  }
}

}  // namespace

std::span<const std::string_view> builtin_calibration_texts() {
  static const std::vector<std::string_view> texts = [] {
    std::array kinds = {kind_of({builtin_english()}), kind_of({builtin_chinese()}),
                        kind_of({builtin_code_first(), builtin_code_second()}),
                        kind_of({builtin_chat()})};
    return interleave(kinds);
  }();
  return texts;
}

}  // namespace llmq::convert
