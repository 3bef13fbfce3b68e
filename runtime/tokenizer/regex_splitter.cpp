#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/splitter.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;

constexpr size_t kMaxPatternBytes = 16384;
constexpr uint32_t kMaxNesting = 50;
constexpr size_t kMaxCompiledBytes = size_t{4} << 20;
// Steps of one match: going back over a long run of white space takes a few for each byte.
constexpr size_t kMatchLimit = 1'000'000;
constexpr size_t kMatchLimitPerByte = 16;
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = size_t{4} << 20;

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Freer<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Freer<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freer<pcre2_jit_stack_free>>;

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

/// PCRE2 counts U+180E among \s, Unicode and the Hugging Face tokenizers do not.
std::string with_unicode_space(std::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const bool escape = pattern[i] == '\\' && i + 1 < pattern.size();
    if (!escape) {
      out.push_back(pattern[i]);
      continue;
    }
    ++i;
    if (pattern[i] == 's') {
      out.append("\\p{White_Space}");
    } else if (pattern[i] == 'S') {
      out.append("\\P{White_Space}");
    } else {
      out.append({'\\', pattern[i]});
    }
  }
  return out;
}

Code compile(std::string_view pattern, bool literal) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  pcre2_set_parens_nest_limit(context.get(), kMaxNesting);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const uint32_t options =
      PCRE2_UTF | (literal ? PCRE2_LITERAL : (PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C));
  const std::string text = literal ? std::string(pattern) : with_unicode_space(pattern);
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options, &error,
                          &offset, context.get()));
  if (code == nullptr) {
    throw bad_input(fmt::format("the pre-tokenizer's pattern {} does not compile ({} at byte {})",
                                in_quotes(pattern), message_of(error), offset));
  }
  size_t n_bytes = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_SIZE, &n_bytes);
  if (n_bytes > kMaxCompiledBytes) {
    throw bad_input(fmt::format("the pre-tokenizer's pattern {} compiles to {} bytes, more than {}",
                                in_quotes(pattern), n_bytes, kMaxCompiledBytes));
  }
  // Without a just-in-time compiler for this machine the interpreter does the same work.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  return code;
}

struct RegexState : SplitterState {
  MatchData data;
  MatchContext context;
  JitStack stack;
};

class RegexSplitter : public Splitter {
 public:
  RegexSplitter(std::string_view pattern, GapRule rule, bool literal)
      : pattern_(pattern), rule_(rule), code_(compile(pattern, literal)) {
    uint32_t n_chars = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_MAXLOOKBEHIND, &n_chars);
    // One character at least, so that an anchor does not take a cut for the start of the text.
    look_behind_ = std::max<size_t>(n_chars, 1);
  }

  [[nodiscard]] std::unique_ptr<SplitterState> new_state() const override {
    auto state = std::make_unique<RegexState>();
    state->data.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    state->context.reset(pcre2_match_context_create(nullptr));
    if (state->data == nullptr || state->context == nullptr) throw std::bad_alloc();
    pcre2_set_heap_limit(state->context.get(), kHeapLimitKib);
    state->stack.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr));
    if (state->stack != nullptr) {
      pcre2_jit_stack_assign(state->context.get(), nullptr, state->stack.get());
    }
    return state;
  }

  std::optional<Piece> next(std::string_view text, size_t begin, bool is_last,
                            SplitterState* state) const override {
    auto& regex_state = static_cast<RegexState&>(*state);
    const int result = match(text, begin, is_last, regex_state);
    if (result == PCRE2_ERROR_PARTIAL) return std::nullopt;
    const bool keep_gaps = rule_ != GapRule::kDrop;
    if (result == PCRE2_ERROR_NOMATCH) {
      if (!is_last) return std::nullopt;
      return Piece{text.size(), keep_gaps};
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(regex_state.data.get());
    if (bounds[0] > begin) return Piece{bounds[0], keep_gaps};
    // \K can move the start behind the end; such a match is no piece.
    if (bounds[0] < begin || bounds[1] <= begin) fail("matches outside of the text that is left");
    return Piece{bounds[1], rule_ != GapRule::kDropMatches};
  }

  [[nodiscard]] size_t look_behind() const override { return look_behind_; }

 private:
  int match(std::string_view text, size_t begin, bool is_last, RegexState& state) const {
    const uint32_t options =
        PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | (is_last ? 0U : PCRE2_PARTIAL_HARD);
    const size_t limit = kMatchLimit + kMatchLimitPerByte * (text.size() - begin);
    pcre2_set_match_limit(state.context.get(),
                          static_cast<uint32_t>(std::min<size_t>(limit, UINT32_MAX)));
    const auto run = [&](uint32_t more_options) {
      return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                         options | more_options, state.data.get(), state.context.get());
    };
    int result = run(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
    if (result < 0 && result != PCRE2_ERROR_NOMATCH && result != PCRE2_ERROR_PARTIAL) {
      fail("needs too much work or memory on this text: " + message_of(result));
    }
    return result;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw bad_input(fmt::format("the pre-tokenizer's pattern {} {}", in_quotes(pattern_), reason));
  }

  std::string pattern_;
  GapRule rule_;
  Code code_;
  size_t look_behind_ = 1;
};

}  // namespace

std::unique_ptr<Splitter> new_regex_splitter(std::string_view pattern, GapRule rule, bool literal) {
  return std::make_unique<RegexSplitter>(pattern, rule, literal);
}

}  // namespace llmq::runtime
