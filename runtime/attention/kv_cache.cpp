#include "runtime/attention/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/attention/code_sums.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Error;
using formats::ErrorCode;

constexpr size_t kPageAlignment = 64;
constexpr size_t kMostSpareBytes = size_t{64} << 20;

void check_codes(const KvLayout& layout) {
  if (layout.codes == nullptr)
    throw formats::bad_input("a KV cache of int8 codes needs scales; this model has none");
  const auto n_lanes = static_cast<size_t>(layout.n_layers * layout.n_kv_heads * layout.head_dim);
  for (const std::vector<float>* values :
       {&layout.codes->key_scale, &layout.codes->key_offset, &layout.codes->value_scale,
        &layout.codes->value_offset}) {
    if (values->size() == n_lanes) continue;
    throw formats::bad_input(fmt::format(
        "a KV cache of {} lanes in all layers got {} scales or offsets", n_lanes, values->size()));
  }
}

/// Of codes: whole groups of keys with an even number of lanes, which suffices for values too.
int64_t plane_size_bytes(const KvLayout& layout) {
  constexpr int64_t kGroup = quant::kKeysPerGroup;
  int64_t size = 0;
  if (__builtin_mul_overflow((layout.page_size / kGroup + 1) * kGroup, layout.head_dim + 1, &size))
    throw formats::bad_input(fmt::format("pages of {} tokens are too large", layout.page_size));
  return (layout.page_size + kGroup - 1) / kGroup * kGroup * ((layout.head_dim + 1) / 2 * 2);
}

}  // namespace

uint64_t KvLayout::page_size_bytes() const {
  if (n_layers < 1 || n_kv_heads < 1 || head_dim < 1 || page_size < 1) {
    throw formats::bad_input(
        fmt::format("a KV cache of {} layers, {} heads, {} lanes and pages of {} tokens is not "
                    "possible; each must be at least 1",
                    n_layers, n_kv_heads, head_dim, page_size));
  }
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kI8) {
    throw formats::bad_input(fmt::format("a KV cache of {} is not supported, only F32, BF16 and I8",
                                         formats::dtype_name(dtype)));
  }
  if (dtype != DType::kI8)
    return formats::tensor_size_bytes(dtype, {n_layers, 2, n_kv_heads, page_size, head_dim});
  const uint64_t size =
      formats::tensor_size_bytes(dtype, {n_layers, 2, n_kv_heads, plane_size_bytes(*this)});
  check_codes(*this);
  return size;
}

KvCache::KvCache(const KvLayout& layout)
    : layout_(layout),
      element_size_bytes_(static_cast<int64_t>(formats::dtype_size_bytes(layout.dtype))),
      page_size_bytes_(layout.page_size_bytes()) {}

void KvCache::reserve(int64_t n_tokens) {
  const auto n_pages =
      static_cast<size_t>(n_tokens / layout_.page_size + (n_tokens % layout_.page_size != 0));
  if (n_pages <= pages_.size()) return;
  const size_t rounded = (page_size_bytes_ + kPageAlignment - 1) / kPageAlignment * kPageAlignment;
  pages_.reserve(n_pages);
  const size_t n_held = slabs_.empty() ? 0 : slabs_.back().first_page + slabs_.back().n_pages;
  if (n_pages > n_held) {
    // As many again as there are, so that a growing sequence has few slabs; what nobody writes to
    // takes no memory.
    const size_t n_more = std::max(n_pages - n_held, std::min(n_held, kMostSpareBytes / rounded));
    size_t size_bytes = 0;
    try {
      if (__builtin_mul_overflow(n_more, rounded, &size_bytes)) throw std::bad_alloc();
      slabs_.push_back({quant::allocate_huge(size_bytes), n_held, n_more});
    } catch (const std::bad_alloc&) {
      throw Error(ErrorCode::kMemory,
                  fmt::format("no memory for the keys and values of {} tokens ({} pages of {} "
                              "bytes); use a shorter input or a smaller KV dtype",
                              n_tokens, n_pages, page_size_bytes_));
    }
  }
  for (const Slab& slab : slabs_) {
    while (pages_.size() < std::min(n_pages, slab.first_page + slab.n_pages)) {
      pages_.push_back(reinterpret_cast<std::byte*>(slab.bytes.get()) +
                       (pages_.size() - slab.first_page) * rounded);
    }
  }
}

void KvCache::store(int64_t layer, int64_t position, std::span<const float> key,
                    std::span<const float> value) {
  const auto head_dim = static_cast<size_t>(layout_.head_dim);
  for (int64_t head = 0; head < layout_.n_kv_heads; ++head) {
    const size_t at = static_cast<size_t>(head) * head_dim;
    if (layout_.dtype == DType::kI8) {
      store_codes(layer, head, position, key.subspan(at, head_dim), value.subspan(at, head_dim));
      continue;
    }
    store_row(row(layer, false, head, position), key.subspan(at, head_dim));
    store_row(row(layer, true, head, position), value.subspan(at, head_dim));
  }
}

void KvCache::store_codes(int64_t layer, int64_t head, int64_t position, std::span<const float> key,
                          std::span<const float> value) {
  static thread_local std::vector<int8_t> codes;
  codes.resize(key.size());
  const int64_t slot = position % layout_.page_size;
  const int64_t n_lane_pairs = (layout_.head_dim + 1) / 2;
  quant::encode_lanes(key, key_lanes(layer, head), codes);
  int8_t* keys = plane(layer, false, head, position);
  for (int64_t lane = 0; lane < layout_.head_dim; ++lane)
    keys[quant::key_code_offset(slot, lane, n_lane_pairs)] = codes[static_cast<size_t>(lane)];
  quant::encode_lanes(value, value_lanes(layer, head), codes);
  int8_t* values = plane(layer, true, head, position);
  for (int64_t lane = 0; lane < layout_.head_dim; ++lane)
    values[quant::value_code_offset(slot, lane, n_lane_pairs)] = codes[static_cast<size_t>(lane)];
}

const int8_t* KvCache::key_codes(int64_t layer, int64_t head, int64_t position) const {
  return plane(layer, false, head, position);
}

const int8_t* KvCache::value_codes(int64_t layer, int64_t head, int64_t position) const {
  return plane(layer, true, head, position);
}

int8_t* KvCache::plane(int64_t layer, bool is_value, int64_t head, int64_t position) const {
  const int64_t index = (layer * 2 + (is_value ? 1 : 0)) * layout_.n_kv_heads + head;
  return reinterpret_cast<int8_t*>(pages_[static_cast<size_t>(position / layout_.page_size)]) +
         index * plane_size_bytes(layout_);
}

void KvCache::truncate(int64_t n_tokens) {
  if (n_tokens >= length_) return;
  length_ = n_tokens;
  pages_.resize(
      static_cast<size_t>(n_tokens / layout_.page_size + (n_tokens % layout_.page_size != 0)));
  while (!slabs_.empty() && slabs_.back().first_page >= pages_.size()) slabs_.pop_back();
}

KvRows KvCache::keys(int64_t layer, int64_t head, int64_t position) const {
  return {row(layer, false, head, position), layout_.page_size - position % layout_.page_size};
}

KvRows KvCache::values(int64_t layer, int64_t head, int64_t position) const {
  return {row(layer, true, head, position), layout_.page_size - position % layout_.page_size};
}

quant::LaneParams KvCache::key_lanes(int64_t layer, int64_t head) const {
  return lanes_of(layout_.codes->key_scale, layout_.codes->key_offset, layer, head);
}

quant::LaneParams KvCache::value_lanes(int64_t layer, int64_t head) const {
  return lanes_of(layout_.codes->value_scale, layout_.codes->value_offset, layer, head);
}

quant::LaneParams KvCache::lanes_of(const std::vector<float>& scale,
                                    const std::vector<float>& offset, int64_t layer,
                                    int64_t head) const {
  const auto n = static_cast<size_t>(layout_.head_dim);
  const size_t first = static_cast<size_t>(layer * layout_.n_kv_heads + head) * n;
  return {std::span(scale).subspan(first, n), std::span(offset).subspan(first, n)};
}

uint64_t KvCache::size_bytes() const {
  return pages_.size() * page_size_bytes_;
}

std::byte* KvCache::row(int64_t layer, bool is_value, int64_t head, int64_t position) const {
  const int64_t slot = position % layout_.page_size;
  const int64_t plane = (layer * 2 + (is_value ? 1 : 0)) * layout_.n_kv_heads + head;
  const int64_t element = (plane * layout_.page_size + slot) * layout_.head_dim;
  return pages_[static_cast<size_t>(position / layout_.page_size)] + element * element_size_bytes_;
}

void KvCache::store_row(std::byte* to, std::span<const float> from) const {
  if (layout_.dtype == DType::kF32) {
    std::memcpy(to, from.data(), from.size_bytes());
    return;
  }
  for (const float value : from) {
    const uint16_t bits = formats::float_to_bf16(value);
    std::memcpy(to, &bits, sizeof bits);
    to += sizeof bits;
  }
}

}  // namespace llmq::runtime
