#include "runtime/tokenizer/vocabulary.h"

#include <fmt/format.h>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"

namespace llmq::runtime {

using formats::bad_input;

void Vocabulary::put(const std::string& content, int32_t id, Kind kind) {
  if (id < 0 || id > kMaxTokenId) {
    throw bad_input(fmt::format("the token {} has the id {}, outside of 0 to {}",
                                in_quotes(content), id, kMaxTokenId));
  }
  const auto [entry, is_new] = ids_.try_emplace(content, id);
  if (entry->second != id) {
    throw bad_input(
        fmt::format("the token {} has two ids, {} and {}", in_quotes(content), entry->second, id));
  }
  const auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) tokens_.resize(index + 1);
  if (is_new && tokens_[index].kind != Kind::kHole) {
    throw bad_input(fmt::format("the id {} belongs to two tokens, {} and {}", id,
                                in_quotes(*tokens_[index].content), in_quotes(content)));
  }
  tokens_[index] = {kind, &entry->first};
}

void Vocabulary::add(const std::string& content, int32_t id) {
  put(content, id, Kind::kModel);
}

void Vocabulary::add(const AddedToken& token) {
  put(token.content, token.id, token.special ? Kind::kSpecial : Kind::kAdded);
}

std::optional<int32_t> Vocabulary::find(std::string_view content) const {
  const auto found = ids_.find(content);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::string_view Vocabulary::content(int32_t id) const {
  const Entry& entry = tokens_[static_cast<size_t>(id)];
  return entry.content == nullptr ? std::string_view() : *entry.content;
}

bool Vocabulary::is_added(int32_t id) const {
  const Kind kind = tokens_[static_cast<size_t>(id)].kind;
  return kind == Kind::kAdded || kind == Kind::kSpecial;
}

bool Vocabulary::is_special(int32_t id) const {
  return tokens_[static_cast<size_t>(id)].kind == Kind::kSpecial;
}

bool Vocabulary::is_token(int32_t id) const {
  return tokens_[static_cast<size_t>(id)].kind != Kind::kHole;
}

}  // namespace llmq::runtime
