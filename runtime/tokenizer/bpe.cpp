#include "runtime/tokenizer/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;

uint64_t pair_key(int32_t left, int32_t right) {
  return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
}

size_t hash_of(uint64_t key) {
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15U) >> 20);
}

/// The byte of a token like <0x0A>, or -1.
int byte_of_fallback_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'A' || c > 'F')) return -1;
    value = value * 16 + (digit ? c - '0' : c - 'A' + 10);
  }
  return value;
}

}  // namespace

Bpe::Bpe(const BpeSpec& spec)
    : byte_level_(spec.byte_level),
      fuse_unk_(spec.fuse_unk),
      ignore_merges_(spec.ignore_merges),
      merge_pairs_(spec.byte_level) {
  byte_ids_.fill(kNoToken);
  ascii_ids_.fill(kNoToken);
  IdOf id_of;
  id_of.reserve(spec.vocabulary.size());
  for (const auto& [token, id] : spec.vocabulary) id_of.emplace(token, id);
  if (spec.unk_token) {
    const auto found = id_of.find(*spec.unk_token);
    if (found == id_of.end()) {
      throw bad_input(
          fmt::format("the unk_token {} is not in the vocabulary; add it or set "
                      "unk_token to null",
                      in_quotes(*spec.unk_token)));
    }
    unk_id_ = found->second;
  }
  add_symbols(spec);
  add_merges(spec, id_of);
  find_unreachable(spec);
}

void Bpe::add_symbols(const BpeSpec& spec) {
  for (const auto& [token, id] : spec.vocabulary) {
    if (byte_level_) {
      const auto bytes = byte_level_to_bytes(token);
      if (bytes && bytes->size() == 1) byte_ids_[static_cast<unsigned char>((*bytes)[0])] = id;
      if (bytes && ignore_merges_) whole_ids_.emplace(*bytes, id);
      continue;
    }
    if (ignore_merges_) whole_ids_.emplace(token, id);
    const int byte = byte_of_fallback_token(token);
    if (spec.byte_fallback && byte >= 0) byte_ids_[static_cast<size_t>(byte)] = id;
    if (token.empty() || decode_char(token, 0).n_bytes != token.size()) continue;
    const char32_t c = decode_char(token, 0).code_point;
    if (c < ascii_ids_.size()) {
      ascii_ids_[c] = id;
    } else {
      char_ids_[c] = id;
    }
    merge_pairs_.add_known_char(c);
  }
}

void Bpe::add_merges(const BpeSpec& spec, const IdOf& id_of) {
  merges_.resize(std::bit_ceil(std::max<size_t>(16, spec.merges.size() * 2)));
  std::string merged;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    merged.assign(left).append(right);
    const auto find = [&, left = &left, right = &right](const std::string& token) {
      const auto found = id_of.find(token);
      if (found != id_of.end()) return found->second;
      throw bad_input(
          fmt::format("merge {} ({} {}) needs the token {}, which the vocabulary lacks; "
                      "the files do not belong together",
                      rank + 1, in_quotes(*left), in_quotes(*right), in_quotes(token)));
    };
    const int32_t merged_id = find(merged);
    insert_merge(find(left), find(right), {static_cast<uint32_t>(rank), merged_id});
    const auto bytes = byte_level_ ? byte_level_to_bytes(merged) : std::nullopt;
    merge_pairs_.add_token(bytes ? *bytes : merged);
  }
}

void Bpe::find_unreachable(const BpeSpec& spec) {
  std::vector<bool> made;
  for (const MergeSlot& slot : merges_) {
    if (slot.merge.id == kNoToken) continue;
    const auto id = static_cast<size_t>(slot.merge.id);
    if (id >= made.size()) made.resize(id + 1);
    made[id] = true;
  }
  for (const auto& [token, id] : spec.vocabulary) {
    const bool one_symbol = token.empty() || decode_char(token, 0).n_bytes == token.size();
    if (one_symbol || id == unk_id_ || byte_of_fallback_token(token) >= 0) continue;
    if (static_cast<size_t>(id) >= made.size() || !made[static_cast<size_t>(id)]) {
      unreachable_.push_back(id);
    }
  }
  std::sort(unreachable_.begin(), unreachable_.end());
}

void Bpe::insert_merge(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = pair_key(left, right);
  const size_t mask = merges_.size() - 1;
  size_t slot = hash_of(key) & mask;
  while (merges_[slot].merge.id != kNoToken && merges_[slot].key != key) slot = (slot + 1) & mask;
  merges_[slot] = {key, merge};  // a repeated merge has the rank of its last line
}

Bpe::Merge Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t slot = hash_of(key) & mask;; slot = (slot + 1) & mask) {
    const MergeSlot& found = merges_[slot];
    if (found.key == key || found.merge.id == kNoToken) return found.merge;
  }
}

void Bpe::append_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
  bool in_unknown = false;
  const auto append = [&](int32_t id, std::string_view character) {
    if (id == kNoToken) return append_fallback(character, in_unknown, symbols);
    in_unknown = false;
    symbols.push_back(id);
  };
  for (size_t pos = 0; pos < word.size();) {
    const auto byte = static_cast<unsigned char>(word[pos]);
    size_t n_bytes = 1;
    if (byte_level_) {
      append(byte_ids_[byte], word.substr(pos, 1));
    } else if (byte < ascii_ids_.size()) {
      append(ascii_ids_[byte], word.substr(pos, 1));
    } else {
      const DecodedChar c = decode_char(word, pos);
      n_bytes = c.n_bytes;
      const auto found = char_ids_.find(c.code_point);
      append(found == char_ids_.end() ? kNoToken : found->second, word.substr(pos, n_bytes));
    }
    pos += n_bytes;
  }
}

void Bpe::append_fallback(std::string_view character, bool& in_unknown,
                          std::vector<int32_t>& symbols) const {
  const auto id_of_byte = [&](char c) {
    return byte_level_ ? kNoToken : byte_ids_[static_cast<unsigned char>(c)];
  };
  if (std::all_of(character.begin(), character.end(),
                  [&](char c) { return id_of_byte(c) != kNoToken; })) {
    for (const char c : character) symbols.push_back(id_of_byte(c));
    in_unknown = false;
    return;
  }
  if (unk_id_ == kNoToken) return;
  if (!in_unknown || !fuse_unk_) symbols.push_back(unk_id_);
  in_unknown = true;
}

}  // namespace llmq::runtime
