#include "convert/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace llmq::convert {
namespace {

struct ForeignOption {
  std::string_view name;
  bool may_lack_value;  ///< a flag in one of the tools and an option with a value in another
  std::string_view why;
};

constexpr std::array<ForeignOption, 10> kUnnecessary{{
    {"device-type", false, "llmq needs no accelerator"},
    {"device", false, "llmq needs no accelerator"},
    {"use-devices", false, "llmq needs no accelerator"},
    {"msmodelslim-path", false, "llmq needs no other tool"},
    {"trust-remote-code", true, "nothing from a checkpoint is ever executed"},
    {"fa3-use-anti-calib", true, "the calibration set serves both"},
    {"scenario", false, "the files written load in every engine that knows the type"},
    {"config-path", false, "recipes are given with --recipe"},
    {"data-list-index", false, "a calibration file is given with -calib"},
    {"tokenizer-args", false, "the tokenizer's own files decide"},
}};

/// Options whose value is free text that may begin with a dash.
constexpr std::array<std::string_view, 3> kFreeText{"input-texts", "split", "input-dict"};

bool is_option(const std::string& word) {
  const size_t dashes = std::min(word.find_first_not_of('-'), word.size());
  return dashes >= 1 && dashes <= 2 && dashes < word.size() &&
         std::isalpha(static_cast<unsigned char>(word[dashes])) != 0;
}

bool is_boolean_word(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return word == "true" || word == "false" || word == "0" || word == "1";
}

}  // namespace

bool takes_free_text(std::string_view option) {
  return std::find(kFreeText.begin(), kFreeText.end(), option) != kFreeText.end();
}

std::string canonical_option(std::string name) {
  for (char& c : name) {
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return name;
}

Arguments translate_arguments(int argc, const char* const* argv) {
  Arguments arguments;
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  for (size_t i = 0; i < words.size(); ++i) {
    if (!is_option(words[i])) {
      arguments.words.push_back(words[i]);
      continue;
    }
    const size_t name_at = words[i].find_first_not_of('-');
    const size_t equals = std::min(words[i].find('='), words[i].size());
    const std::string name = canonical_option(words[i].substr(name_at, equals - name_at));
    const bool has_value = equals < words[i].size();
    const auto foreign =
        std::find_if(kUnnecessary.begin(), kUnnecessary.end(),
                     [&](const ForeignOption& option) { return option.name == name; });
    if (foreign != kUnnecessary.end()) {
      arguments.notes.push_back(fmt::format("--{} is not needed: {}", name, foreign->why));
      const bool next_is_value = i + 1 < words.size() && !is_option(words[i + 1]) &&
                                 (!foreign->may_lack_value || is_boolean_word(words[i + 1]));
      if (!has_value && next_is_value) ++i;
      continue;
    }
    const std::string spelled = (name.size() == 1 ? "-" : "--") + name;
    if (!takes_free_text(name)) {
      arguments.words.push_back(spelled + words[i].substr(equals));
      continue;
    }
    arguments.words.push_back(spelled);
    if (has_value) {
      arguments.words.push_back(kTextMark + words[i].substr(equals + 1));
    } else if (i + 1 < words.size()) {
      arguments.words.push_back(kTextMark + words[++i]);
    }
  }
  return arguments;
}

}  // namespace llmq::convert
