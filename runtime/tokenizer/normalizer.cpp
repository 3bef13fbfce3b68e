#include "runtime/tokenizer/normalizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/nfc.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {

using formats::bad_input;
using formats::Json;

namespace {

constexpr std::string_view kWhere = "tokenizer.json, normalizer";
constexpr int kMaxDepth = 8;

class PrependStep : public NormalizerStep {
 public:
  explicit PrependStep(std::string content) : content_(std::move(content)) {}

  void feed(std::string_view text, std::string& out) override {
    if (text.empty()) return;
    if (!std::exchange(started_, true)) out.append(content_);
    out.append(text);
  }
  void finish(std::string&) override { started_ = false; }

 private:
  std::string content_;
  bool started_ = false;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void feed(std::string_view text, std::string& out) override {
    held_.append(text);
    const size_t pos = replace_all(out);
    // The longest end of the text that may be the beginning of a match has to wait.
    size_t keep = std::min(pattern_.size() - 1, held_.size() - pos);
    while (keep > 0 && !held_.ends_with(std::string_view(pattern_).substr(0, keep))) --keep;
    const size_t end = held_.size() - keep;
    out.append(held_, pos, end - pos);
    held_.erase(0, end);
  }

  void finish(std::string& out) override {
    out.append(held_, replace_all(out));
    held_.clear();
  }

 private:
  /// Appends everything up to the last match, replaced; returns where the rest begins.
  size_t replace_all(std::string& out) const {
    size_t pos = 0;
    for (size_t match = held_.find(pattern_); match != std::string::npos;
         match = held_.find(pattern_, pos)) {
      out.append(held_, pos, match - pos).append(content_);
      pos = match + pattern_.size();
    }
    return pos;
  }

  std::string pattern_;
  std::string content_;
  std::string held_;
};

}  // namespace

void Normalizer::parse_into(const Json& node, int depth) {
  if (node.is_null()) return;
  const std::string type = required_string(node, "type", kWhere);
  if (type == "Sequence") {
    const Json* parts = find_field(node, "normalizers");
    if (parts == nullptr || !parts->is_array() || depth == kMaxDepth) {
      throw bad_input(
          fmt::format("{}: a Sequence needs a list \"normalizers\", nested at most {} "
                      "times",
                      kWhere, kMaxDepth));
    }
    for (const Json& part : *parts) parse_into(part, depth + 1);
  } else if (type == "NFC") {
    steps_.push_back({StepSpec::Kind::kNfc, "", ""});
  } else if (type == "Prepend") {
    steps_.push_back({StepSpec::Kind::kPrepend, "", required_string(node, "prepend", kWhere)});
  } else if (type == "Replace") {
    const Json* pattern = find_field(node, "pattern");
    const auto text =
        pattern == nullptr ? std::nullopt : optional_string(*pattern, "String", kWhere);
    if (!text || text->empty()) {
      throw bad_input(fmt::format(
          "{}: Replace is supported only with a non-empty pattern {{\"String\": ...}}", kWhere));
    }
    steps_.push_back({StepSpec::Kind::kReplace, *text, required_string(node, "content", kWhere)});
  } else {
    throw bad_input(
        fmt::format("{}: the type {} is not supported; supported are NFC, Prepend, "
                    "Replace and Sequence",
                    kWhere, in_quotes(type)));
  }
}

Normalizer Normalizer::parse(const Json& node) {
  Normalizer normalizer;
  normalizer.parse_into(node, 0);
  return normalizer;
}

Normalizer Normalizer::nfc() {
  Normalizer normalizer;
  normalizer.steps_.push_back({StepSpec::Kind::kNfc, "", ""});
  return normalizer;
}

std::vector<std::unique_ptr<NormalizerStep>> Normalizer::new_steps() const {
  std::vector<std::unique_ptr<NormalizerStep>> steps;
  for (const StepSpec& spec : steps_) {
    switch (spec.kind) {
      case StepSpec::Kind::kNfc:
        steps.push_back(new_nfc_step());
        break;
      case StepSpec::Kind::kPrepend:
        steps.push_back(std::make_unique<PrependStep>(spec.content));
        break;
      case StepSpec::Kind::kReplace:
        steps.push_back(std::make_unique<ReplaceStep>(spec.pattern, spec.content));
        break;
    }
  }
  return steps;
}

std::string Normalizer::apply(std::string_view segment) const {
  std::string text(segment);
  for (const auto& step : new_steps()) {
    std::string out;
    step->feed(text, out);
    step->finish(out);
    text = std::move(out);
  }
  return text;
}

}  // namespace llmq::runtime
