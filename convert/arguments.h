#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llmq::convert {

/// A command line in the one form that the parser knows.
struct Arguments {
  std::vector<std::string> words;  ///< without the program's name
  /// Sentences about options of other tools that have no meaning here and were taken out.
  std::vector<std::string> notes;
};

/// Brings the spellings of the tools that users come from to one form: one dash or two before a
/// name ("-src", "--src"), `_` and `-` alike ("--model_path", "--model-path"), lower and upper case
/// alike, with a value behind `=` or in the next word. Options of those tools that have no meaning
/// here are taken out with their values. Values are never changed: a word is taken as an option
/// only where it starts with one or two dashes and a letter and the word before it is not an option
/// that waits for text.
Arguments translate_arguments(int argc, const char* const* argv);

/// First character of a word that is an option's text, whatever it looks like; the parser takes it
/// off again.
inline constexpr char kTextMark = '\x02';

/// Whether an option (by its one form) takes free text, which may begin with a dash or be empty.
bool takes_free_text(std::string_view option);

/// The one form of an option's name without dashes: lower case, '-' for '_'.
std::string canonical_option(std::string name);

}  // namespace llmq::convert
