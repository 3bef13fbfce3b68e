#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/loaders.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;

constexpr std::string_view kWhere = "qwen.tiktoken";
/// The longest token of Qwen's own file has 128 bytes; finding a merge takes the square of this.
constexpr size_t kMaxTokenBytes = 256;
constexpr size_t kMaxLineBytes = 4 * ((kMaxTokenBytes + 2) / 3) + 16;
constexpr std::string_view kEndOfText = "<|endoftext|>";
constexpr std::string_view kTurnBegin = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr int kExtraTokens = 205;

int value_of_base64(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

/// Bytes of a base64 text (RFC 4648, padded); nothing for anything else.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  size_t n_padding = 0;
  while (n_padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++n_padding;
  }
  std::string bytes;
  uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text) {
    const int value = value_of_base64(c);
    if (value < 0) return std::nullopt;
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xFFFFU;
    n_bits += 6;
    if (n_bits < 8) continue;
    n_bits -= 8;
    bytes.push_back(static_cast<char>(bits >> static_cast<unsigned>(n_bits) & 0xFFU));
  }
  return bytes;
}

/// Tokens by rank, as bytes, and the merges that the ranks imply.
class RankedTokens {
 public:
  explicit RankedTokens(std::string_view file) {
    std::vector<std::pair<int32_t, std::string>> lines;
    for (size_t n_line = 1; !file.empty(); ++n_line) {
      const size_t end = std::min(file.find('\n'), file.size());
      std::string_view line = file.substr(0, end);
      file.remove_prefix(std::min(end + 1, file.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty()) lines.push_back(parse_line(line, n_line));
    }
    std::sort(lines.begin(), lines.end());
    for (auto& [rank, token] : lines) {
      if (rank != static_cast<int32_t>(tokens_.size())) {
        throw bad_input(
            fmt::format("{}: rank {} is {}; ranks go from 0 up, each once", kWhere,
                        std::min(rank, static_cast<int32_t>(tokens_.size())),
                        rank > static_cast<int32_t>(tokens_.size()) ? "missing" : "there twice"));
      }
      tokens_.push_back(std::move(token));
    }
    index();
  }

  [[nodiscard]] const std::vector<std::string>& tokens() const { return tokens_; }

  /// The two parts that a token is made of when its bytes are merged, lowest rank first; nothing
  /// for one byte, and for a token that merging never gives.
  [[nodiscard]] std::optional<std::pair<std::string_view, std::string_view>> parts_of(
      std::string_view token) const {
    std::vector<size_t> cuts(token.size() + 1);  // parts are [cuts[i], cuts[i + 1])
    for (size_t i = 0; i < cuts.size(); ++i) cuts[i] = i;
    std::vector<int32_t> ranks(token.size(), kNoRank);  // of parts i and i + 1 joined
    const auto look_up = [&](size_t i) {
      ranks[i] =
          i + 2 < cuts.size() ? rank_of(token.substr(cuts[i], cuts[i + 2] - cuts[i])) : kNoRank;
    };
    for (size_t i = 0; i < ranks.size(); ++i) look_up(i);
    while (ranks.size() > 2) {
      const auto best = std::min_element(ranks.begin(), ranks.end());
      if (*best == kNoRank) return std::nullopt;
      const auto i = best - ranks.begin();
      cuts.erase(cuts.begin() + i + 1);
      ranks.erase(best);
      look_up(static_cast<size_t>(i));
      if (i > 0) look_up(static_cast<size_t>(i) - 1);
    }
    if (ranks.size() < 2) return std::nullopt;
    return std::pair(token.substr(0, cuts[1]), token.substr(cuts[1]));
  }

 private:
  static constexpr int32_t kNoRank = kMaxTokenId + 1;

  static std::pair<int32_t, std::string> parse_line(std::string_view line, size_t n_line) {
    const auto fail = [&](std::string_view what) {
      return bad_input(fmt::format("{}, line {}: {} {}", kWhere, n_line, in_quotes(line), what));
    };
    if (line.size() > kMaxLineBytes) throw fail("is too long for a token and its rank");
    const size_t space = line.find(' ');
    if (space == line.npos) throw fail("is not a token in base64, a space and a rank");
    std::optional<std::string> token = decode_base64(line.substr(0, space));
    if (!token || token->empty()) throw fail("does not begin with base64");
    if (token->size() > kMaxTokenBytes) {
      throw fail(
          fmt::format("is a token of {} bytes; {} are allowed", token->size(), kMaxTokenBytes));
    }
    const std::string_view digits = line.substr(space + 1);
    int32_t rank = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    const bool is_number = error == std::errc() && end == digits.data() + digits.size();
    if (!is_number || rank < 0 || rank > kMaxTokenId) throw fail("does not end with a rank");
    return {rank, std::move(*token)};
  }

  void index() {
    if (tokens_.empty()) throw bad_input(fmt::format("{}: the file is empty", kWhere));
    ranks_.reserve(tokens_.size());
    for (size_t rank = 0; rank < tokens_.size(); ++rank) {
      const auto [earlier, is_new] = ranks_.emplace(tokens_[rank], static_cast<int32_t>(rank));
      if (is_new) continue;
      throw bad_input(
          fmt::format("{}: ranks {} and {} are the same token", kWhere, earlier->second, rank));
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
      const auto c = static_cast<char>(byte);
      if (ranks_.contains({&c, 1})) continue;
      throw bad_input(
          fmt::format("{}: the byte 0x{:02X} is no token; the file is incomplete", kWhere, byte));
    }
  }

  [[nodiscard]] int32_t rank_of(std::string_view token) const {
    const auto found = ranks_.find(token);
    return found == ranks_.end() ? kNoRank : found->second;
  }

  std::vector<std::string> tokens_;
  std::unordered_map<std::string_view, int32_t> ranks_;  // views of tokens_
};

std::string to_byte_level(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) token += byte_level_alphabet()[static_cast<unsigned char>(byte)];
  return token;
}

void add_control_tokens(TokenizerSpec& spec) {
  auto id = static_cast<int32_t>(spec.bpe.vocabulary.size());
  const auto add = [&](std::string content) {
    // Qwen's class normalizes the text before it looks for them.
    spec.added_tokens.push_back(
        {.id = id++, .content = std::move(content), .special = true, .normalized = true});
  };
  for (const auto content : {kEndOfText, kTurnBegin, kTurnEnd}) add(std::string(content));
  spec.eos_ids = {spec.added_tokens[0].id, spec.added_tokens[2].id};
  spec.suffix_ids = {spec.added_tokens[0].id};
  for (int i = 0; i < kExtraTokens; ++i) add(fmt::format("<|extra_{}|>", i));
}

}  // namespace

TokenizerSpec spec_from_tiktoken(std::string_view file, const TokenizerConfig& config) {
  const RankedTokens ranked(file);
  TokenizerSpec spec;
  if (ranked.tokens().size() > static_cast<size_t>(kMaxTokenId) / 2) {
    throw bad_input(fmt::format("{}: {} tokens are too many", kWhere, ranked.tokens().size()));
  }
  for (const std::string& token : ranked.tokens()) {
    spec.bpe.vocabulary.emplace_back(to_byte_level(token), spec.bpe.vocabulary.size());
    if (const auto parts = ranked.parts_of(token)) {
      spec.bpe.merges.emplace_back(to_byte_level(parts->first), to_byte_level(parts->second));
    }
  }
  spec.bpe.byte_level = true;
  spec.bpe.ignore_merges = true;  // tiktoken looks a word up before it merges
  add_control_tokens(spec);
  spec.normalizer = Normalizer::nfc();
  spec.pre_tokenizer.splitters.push_back(new_known_splitter(kQwen2Pattern));
  spec.pre_tokenizer.byte_level = true;
  spec.decoder.byte_level = true;
  apply_config(config, spec);
  return spec;
}

}  // namespace llmq::runtime
