#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llmq::runtime {

/// What a Jinja template is made of, without its structure.
struct JinjaWords {
  std::vector<std::string> literals;  ///< string literals, escapes resolved, in order
  std::vector<std::string> names;     ///< identifiers and keywords, in order
  /// Text outside of {{ }}, {% %} and {# #} that reaches the output under the settings of the
  /// transformers library (trim_blocks and lstrip_blocks on).
  std::string outside;
  std::string code;  ///< the code without white space, literals as '…', for looking up phrases
};

/// Takes a template apart. Throws Error{kBadInput} when a tag or a string is not closed.
JinjaWords read_jinja(std::string_view text);

}  // namespace llmq::runtime
