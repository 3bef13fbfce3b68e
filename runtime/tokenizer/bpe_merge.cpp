#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "formats/error.h"
#include "runtime/tokenizer/bpe.h"

namespace llmq::runtime {
namespace {

constexpr size_t kMaxCachedWords = size_t{1} << 16;
constexpr size_t kMaxWordBytes = size_t{1} << 31;
/// Up to here looking at every pair again after each merge is faster than a heap.
constexpr size_t kShortWord = 48;
constexpr uint32_t kNone = ~0U;

uint64_t hash_word(std::string_view word) {
  uint64_t hash = word.size() * 0x9E3779B97F4A7C15U;
  while (!word.empty()) {
    uint64_t part = 0;
    const size_t n = std::min<size_t>(8, word.size());
    std::memcpy(&part, word.data(), n);
    hash = (hash ^ part) * 0xD6E8FEB86659FD93U;
    hash ^= hash >> 32;
    word.remove_prefix(n);
  }
  return hash;
}

}  // namespace

BpeScratch::BpeScratch(size_t n_cached_words)
    : cache_(std::bit_ceil(std::clamp<size_t>(n_cached_words, 1, kMaxCachedWords))) {}

void Bpe::encode_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  using CachedWord = BpeScratch::CachedWord;
  if (word.size() > CachedWord::kMaxBytes) return encode_uncached(word, scratch, ids);
  CachedWord& slot = scratch.cache_[hash_word(word) & (scratch.cache_.size() - 1)];
  if (slot.n_bytes == word.size() &&
      std::memcmp(slot.bytes.data(), word.data(), word.size()) == 0) {
    ids.insert(ids.end(), slot.ids.begin(), slot.ids.begin() + slot.n_ids);
    return;
  }
  const size_t n_before = ids.size();
  encode_uncached(word, scratch, ids);
  const size_t n_ids = ids.size() - n_before;
  if (n_ids > CachedWord::kMaxIds) return;
  slot.n_bytes = static_cast<uint8_t>(word.size());
  slot.n_ids = static_cast<uint8_t>(n_ids);
  std::copy(word.begin(), word.end(), slot.bytes.begin());
  std::copy(ids.begin() + static_cast<std::ptrdiff_t>(n_before), ids.end(), slot.ids.begin());
}

void Bpe::encode_uncached(std::string_view word, BpeScratch& scratch,
                          std::vector<int32_t>& ids) const {
  if (word.size() >= kMaxWordBytes) {
    throw formats::bad_input("the text has a word of 2 GiB or more; split it");
  }
  if (ignore_merges_) {
    const auto found = whole_ids_.find(std::string(word));
    if (found != whole_ids_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  scratch.ids_.clear();
  append_symbols(word, scratch.ids_);
  if (scratch.ids_.size() <= kShortWord) {
    merge_short(scratch, ids);
  } else {
    merge_long(scratch, ids);
  }
}

void Bpe::merge_short(BpeScratch& scratch, std::vector<int32_t>& ids) const {
  std::vector<int32_t>& word = scratch.ids_;
  std::vector<uint32_t>& ranks = scratch.ranks_;  // of the pair that begins at each symbol
  const auto rank_at = [&](size_t i) {
    return i + 1 < word.size() ? find_merge(word[i], word[i + 1]).rank : kNoRank;
  };
  ranks.resize(word.size());
  for (size_t i = 0; i < word.size(); ++i) ranks[i] = rank_at(i);
  while (!word.empty()) {
    const auto best = std::min_element(ranks.begin(), ranks.end());
    if (*best == kNoRank) break;
    const auto i = static_cast<size_t>(best - ranks.begin());
    word[i] = find_merge(word[i], word[i + 1]).id;
    word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    ranks.erase(ranks.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    ranks[i] = rank_at(i);
    if (i > 0) ranks[i - 1] = rank_at(i - 1);
  }
  ids.insert(ids.end(), word.begin(), word.end());
}

void Bpe::push_candidate(BpeScratch& scratch, uint32_t left) const {
  const auto& symbol = scratch.symbols_[left];
  if (symbol.next == kNone) return;
  const int32_t right_id = scratch.symbols_[symbol.next].id;
  const Merge merge = find_merge(symbol.id, right_id);
  if (merge.id != kNoToken) scratch.heap_.push_back({merge.rank, left, symbol.id, right_id});
}

void Bpe::merge_long(BpeScratch& scratch, std::vector<int32_t>& ids) const {
  using Candidate = BpeScratch::Candidate;
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  symbols.clear();
  heap.clear();
  const auto n = static_cast<uint32_t>(scratch.ids_.size());
  for (uint32_t i = 0; i < n; ++i) {
    symbols.push_back({scratch.ids_[i], i == 0 ? kNone : i - 1, i + 1 == n ? kNone : i + 1});
  }
  for (uint32_t i = 0; i < n; ++i) push_candidate(scratch, i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    auto& left = symbols[best.left];
    // A symbol that was merged away has the id kNoToken, which is no candidate's.
    if (left.id != best.left_id || left.next == kNone) continue;
    auto& right = symbols[left.next];
    if (right.id != best.right_id) continue;
    left.id = find_merge(best.left_id, best.right_id).id;
    right.id = kNoToken;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = best.left;
    const size_t n_heap = heap.size();
    push_candidate(scratch, best.left);
    if (left.previous != kNone) push_candidate(scratch, left.previous);
    for (size_t end = n_heap + 1; end <= heap.size(); ++end) {
      std::push_heap(heap.begin(), heap.begin() + static_cast<std::ptrdiff_t>(end), later);
    }
  }
  for (uint32_t i = 0; i != kNone && n > 0; i = symbols[i].next) ids.push_back(symbols[i].id);
  if (symbols.capacity() > (size_t{1} << 20)) {  // one giant word should not keep its memory
    symbols = {};
    heap = {};
    scratch.ids_ = {};
  }
}

}  // namespace llmq::runtime
