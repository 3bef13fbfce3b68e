#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "formats/error.h"
#include "formats/json.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/tools/test_files.h"

namespace llmq::runtime {

/// A byte-level tokenizer of line feed and printable ASCII with a few merges: 106 ids, so that the
/// golden models can read it. Other characters have no token. Id 0 is "<s>", BOS where `adds_bos`.
inline Tokenizer ascii_tokenizer(bool adds_bos = true) {
  formats::Json vocab = formats::Json::object();
  int id = 1;
  vocab["\xC4\x8A"] = id++;  // line feed
  vocab["\xC4\xA0"] = id++;  // space
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  formats::Json merges = formats::Json::array();
  const auto merge = [&](const std::string& left, const std::string& right) {
    vocab[left + right] = id++;
    merges.push_back(left + " " + right);
  };
  merge("h", "e");
  merge("T", "he");
  merge("\xC4\xA0", "t");
  merge("\xC4\xA0t", "he");
  merge("e", "r");
  merge("\xC4\xA0", "b");
  merge("\xC4\xA0", "w");
  merge("i", "n");
  merge("o", "r");
  const formats::Json bos{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const formats::Json text{{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const formats::Json file{
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", 0},
         {"content", "<s>"},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false},
         {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", adds_bos ? formats::Json::array({bos, text}) : formats::Json::array({text})},
        {"pair", formats::Json::array()},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {0}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
  return Tokenizer::from_json(file.dump());
}

/// What an action throws, with its code checked; a failure where it throws nothing.
inline std::string error_of(const std::function<void()>& action,
                            formats::ErrorCode code = formats::ErrorCode::kBadInput) {
  return test::error_message(code, action);
}

}  // namespace llmq::runtime
