#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/tokenizer/splitter.h"

namespace llmq::runtime {

/// What a BPE model consists of, as read from a file.
struct BpeSpec {
  std::vector<std::pair<std::string, int32_t>> vocabulary;  ///< tokens unique, ids unique
  std::vector<std::pair<std::string, std::string>> merges;  ///< by rank, best first
  std::optional<std::string> unk_token;
  bool fuse_unk = false;       ///< neighbouring unknown characters become one unk_token
  bool byte_fallback = false;  ///< unknown characters become tokens <0x00> to <0xFF>
  bool ignore_merges = false;  ///< a word that is a token is taken whole, whatever the merges say
  bool byte_level = false;     ///< tokens are written in the byte-level alphabet; words are bytes
};

/// Working memory of one thread for Bpe::encode_word.
class BpeScratch {
 public:
  /// `n_cached_words` slots remember the ids of recent words (rounded up to a power of two, 64
  /// bytes each, at most 2^16).
  explicit BpeScratch(size_t n_cached_words);

 private:
  friend class Bpe;
  struct Symbol {
    int32_t id;
    uint32_t previous;
    uint32_t next;
  };
  struct Candidate {
    uint32_t rank;
    uint32_t left;    // position in symbols
    int32_t left_id;  // what stood there, to notice that the candidate is stale
    int32_t right_id;
  };
  struct CachedWord {
    static constexpr size_t kMaxBytes = 30;
    static constexpr size_t kMaxIds = 8;
    uint8_t n_bytes = 0;
    uint8_t n_ids = 0;
    std::array<char, kMaxBytes> bytes{};
    std::array<int32_t, kMaxIds> ids{};
  };

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::vector<uint32_t> ranks_;
  std::vector<int32_t> ids_;
  std::vector<CachedWord> cache_;
};

/// Byte-pair encoding: starts from characters (or bytes) and always merges the pair of the best
/// rank, the leftmost first, until no pair of neighbours has a merge. Immutable and thread-safe.
/// Reference: Sennrich et al. 2016, as implemented by the Hugging Face tokenizers.
class Bpe {
 public:
  /// Throws Error{kBadInput} when a merge names a token that the vocabulary lacks, when unk_token
  /// is no token, or when the vocabulary has more than one symbol to a token but there are no
  /// merges.
  explicit Bpe(const BpeSpec& spec);

  /// Appends the ids of one word (valid UTF-8 as far as the model is not byte-level). A word of n
  /// bytes takes O(n log n) time and 40 bytes of memory a byte. Characters without a token, without
  /// byte fallback and without unk_token are dropped, as the Hugging Face library does. Throws
  /// Error{kBadInput} for words of 2^31 bytes and more.
  void encode_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  /// Whether encode_word(a + b) = encode_word(a) + encode_word(b) wherever merge_pairs allows a
  /// cut.
  [[nodiscard]] bool cuts_by_merge_pairs() const { return !ignore_merges_; }
  /// The pairs inside tokens made by merges.
  [[nodiscard]] const MergePairs& merge_pairs() const { return merge_pairs_; }

  /// Tokens of more than one symbol that no merge makes, first by id; the files are incomplete when
  /// ordinary tokens are among them.
  [[nodiscard]] const std::vector<int32_t>& unreachable_ids() const { return unreachable_; }

 private:
  static constexpr int32_t kNoToken = -1;
  static constexpr uint32_t kNoRank = ~0U;
  struct Merge {
    uint32_t rank = kNoRank;
    int32_t id = kNoToken;
  };
  struct MergeSlot {
    uint64_t key = ~uint64_t{0};
    Merge merge;
  };

  using IdOf = std::unordered_map<std::string_view, int32_t>;
  void add_symbols(const BpeSpec& spec);
  void add_merges(const BpeSpec& spec, const IdOf& id_of);
  void find_unreachable(const BpeSpec& spec);
  void insert_merge(int32_t left, int32_t right, Merge merge);
  [[nodiscard]] Merge find_merge(int32_t left, int32_t right) const;

  void encode_uncached(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void append_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void append_fallback(std::string_view character, bool& in_unknown,
                       std::vector<int32_t>& symbols) const;
  void merge_short(BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void merge_long(BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void push_candidate(BpeScratch& scratch, uint32_t left) const;

  bool byte_level_;
  bool fuse_unk_;
  bool ignore_merges_;
  int32_t unk_id_ = kNoToken;
  std::array<int32_t, 256> byte_ids_;                   // of bytes (byte-level) or byte tokens
  std::array<int32_t, 128> ascii_ids_;                  // of characters, else
  std::unordered_map<char32_t, int32_t> char_ids_;      // of characters from U+0080 on, else
  std::unordered_map<std::string, int32_t> whole_ids_;  // ignore_merges: of words
  std::vector<MergeSlot> merges_;                       // open addressing, a power of two of slots
  MergePairs merge_pairs_;
  std::vector<int32_t> unreachable_;
};

}  // namespace llmq::runtime
