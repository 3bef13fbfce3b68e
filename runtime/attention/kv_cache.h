#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "formats/dtype.h"
#include "quant/kernels/huge_bytes.h"
#include "quant/lane_codes.h"
#include "runtime/attention/kv_codes.h"

namespace llmq::runtime {

/// What a KV cache stores per token.
struct KvLayout {
  int64_t n_layers = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t page_size = 128;  ///< tokens per page, at least 1
  /// kF32 keeps what attention computes with; kBF16 rounds keys (after RoPE) and values to nearest
  /// even when they are stored, before anything reads them; kI8 stores codes (see
  /// quant::encode_lanes), a quarter of the memory.
  formats::DType dtype = formats::DType::kF32;
  /// Of kI8, and then required.
  std::shared_ptr<const KvCodeTable> codes{};

  /// Bytes of one page: keys and values of page_size tokens in all layers. Throws Error{kBadInput}
  /// when an extent is not positive, dtype is another one, the product overflows, or kI8 has no
  /// codes or some of another extent.
  [[nodiscard]] uint64_t page_size_bytes() const;
};

/// Consecutive stored keys or values of one head: row i begins at data + i·head_dim elements.
struct KvRows {
  const std::byte* data = nullptr;  ///< [n_rows, head_dim] of KvLayout::dtype
  int64_t n_rows = 0;
};

/// Keys and values of one sequence, in pages that are allocated as the sequence grows and never
/// move. Positions are 0-based. Not thread-safe, but different (layer, position) may be stored, and
/// anything read, by several threads at a time.
class KvCache {
 public:
  /// Allocates nothing yet. Throws as KvLayout::page_size_bytes.
  explicit KvCache(const KvLayout& layout);

  [[nodiscard]] const KvLayout& layout() const { return layout_; }

  /// Tokens whose keys and values are complete in all layers.
  [[nodiscard]] int64_t length() const { return length_; }

  /// Makes room for positions below `n_tokens`. Throws Error{kMemory} when it cannot be had; the
  /// cache is unchanged then.
  void reserve(int64_t n_tokens);

  /// Whether there is room for `position`.
  [[nodiscard]] bool has(int64_t position) const {
    return position / layout_.page_size < static_cast<int64_t>(pages_.size());
  }

  /// Stores key and value of every head at `position` (reserved) of `layer`; both are
  /// [n_kv_heads, head_dim].
  void store(int64_t layer, int64_t position, std::span<const float> key,
             std::span<const float> value);

  /// Marks `n_tokens` more tokens as complete.
  void advance(int64_t n_tokens) { length_ += n_tokens; }

  /// Forgets everything from position `n_tokens` on; pages that become empty are freed.
  void truncate(int64_t n_tokens);

  /// The first code of the page that holds `position`, in the order of
  /// quant/kernels/attention/code_sums.h, of a cache of kI8.
  [[nodiscard]] const int8_t* key_codes(int64_t layer, int64_t head, int64_t position) const;
  [[nodiscard]] const int8_t* value_codes(int64_t layer, int64_t head, int64_t position) const;

  /// Keys (values) of `head` from `position` to the end of its page, of a cache of floats.
  [[nodiscard]] KvRows keys(int64_t layer, int64_t head, int64_t position) const;
  [[nodiscard]] KvRows values(int64_t layer, int64_t head, int64_t position) const;

  /// How the codes of a head's keys (values) are read, of a cache of kI8. [head_dim]
  [[nodiscard]] quant::LaneParams key_lanes(int64_t layer, int64_t head) const;
  [[nodiscard]] quant::LaneParams value_lanes(int64_t layer, int64_t head) const;

  /// Bytes of the pages held.
  [[nodiscard]] uint64_t size_bytes() const;

 private:
  /// Memory of consecutive pages, in huge pages where the system has them: reading a long sequence
  /// in pages of 4 KiB would miss the TLB at every one.
  struct Slab {
    quant::HugeBytes bytes;
    size_t first_page;
    size_t n_pages;
  };

  void store_codes(int64_t layer, int64_t head, int64_t position, std::span<const float> key,
                   std::span<const float> value);
  [[nodiscard]] int8_t* plane(int64_t layer, bool is_value, int64_t head, int64_t position) const;
  [[nodiscard]] std::byte* row(int64_t layer, bool is_value, int64_t head, int64_t position) const;
  void store_row(std::byte* to, std::span<const float> from) const;
  [[nodiscard]] quant::LaneParams lanes_of(const std::vector<float>& scale,
                                           const std::vector<float>& offset, int64_t layer,
                                           int64_t head) const;

  KvLayout layout_;
  int64_t element_size_bytes_ = 0;
  uint64_t page_size_bytes_ = 0;
  int64_t length_ = 0;
  std::vector<Slab> slabs_;
  /// [n_layers, n_kv_heads] planes of keys and as many of values behind each layer's; a plane is
  /// [page_size, head_dim] of floats, or codes as code_sums.h orders them.
  std::vector<std::byte*> pages_;
};

}  // namespace llmq::runtime
