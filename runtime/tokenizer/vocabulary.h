#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/tokenizer/added_tokens.h"

namespace llmq::runtime {

/// Tokens by id and by content. Ids may have holes. Immutable once built, then thread-safe.
class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  Vocabulary(const Vocabulary&) = delete;  // the entries point into the map
  Vocabulary& operator=(const Vocabulary&) = delete;
  ~Vocabulary() = default;

  /// Adds a token of the model. Throws Error{kBadInput} when its id belongs to another token.
  void add(const std::string& content, int32_t id);

  /// Adds an added token, which may be a token of the model already, with the same id. Throws
  /// Error{kBadInput} where id and content contradict each other.
  void add(const AddedToken& token);

  /// Largest id + 1; 0 when empty.
  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  [[nodiscard]] std::optional<int32_t> find(std::string_view content) const;
  /// Whether `id` is in 0..size()-1.
  [[nodiscard]] bool in_range(int32_t id) const { return id >= 0 && id < size(); }
  /// Content as the file writes it, "" for a hole. `id` must be in range.
  [[nodiscard]] std::string_view content(int32_t id) const;
  [[nodiscard]] bool is_added(int32_t id) const;
  [[nodiscard]] bool is_special(int32_t id) const;
  /// Whether a token has this id; `id` must be in range.
  [[nodiscard]] bool is_token(int32_t id) const;

 private:
  enum class Kind : uint8_t { kHole, kModel, kAdded, kSpecial };
  struct Entry {
    Kind kind = Kind::kHole;
    const std::string* content = nullptr;  // the key in ids_, which never moves
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  void put(const std::string& content, int32_t id, Kind kind);

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<Entry> tokens_;
};

}  // namespace llmq::runtime
