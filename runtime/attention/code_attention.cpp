#include "runtime/attention/code_attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quant/kernels/attention/code_sums.h"
#include "quant/kernels/cpu.h"
#include "quant/lane_codes.h"

namespace llmq::runtime {
namespace {

constexpr float kQuerySteps = 32767.0F;
constexpr float kRoundMagic = 12582912.0F;  // 1.5 · 2^23
constexpr float kWeightSteps = 32767.0F;
constexpr float kFaWeightSteps = 127.0F;

template <typename T>
void grow(std::vector<T>& vector, int64_t size) {
  if (vector.size() < static_cast<size_t>(size)) vector.resize(static_cast<size_t>(size));
}

/// Of a call over `positions`, the page that follows that of `part` there: its first position, or
/// `otherwise` behind the last.
template <typename Codes>
const int8_t* next_codes(const PositionRange& positions, const PositionRange& part,
                         const Codes& codes_of, const int8_t* otherwise) {
  const int64_t next = part.first + part.n;
  return next < positions.first + positions.n ? codes_of(next) : otherwise;
}

/// Calls fn(range of positions, first slot in its page) for the part of each page.
template <typename Fn>
void for_pages(const KvCache& cache, const PositionRange& positions, const Fn& fn) {
  const int64_t page_size = cache.layout().page_size;
  const int64_t end = positions.first + positions.n;
  for (int64_t at = positions.first; at < end;) {
    const int64_t slot = at % page_size;
    const int64_t n = std::min(end - at, page_size - slot);
    fn(PositionRange{at, n}, slot);
    at += n;
  }
}

double inverse_root(int64_t head_dim) {
  return 1.0 / std::sqrt(static_cast<double>(head_dim));
}

}  // namespace

void CodeAttention::take_queries(const CodeHead& head, std::span<const float> queries,
                                 int64_t group) {
  const int64_t head_dim = head.cache->layout().head_dim;
  n_rows_ = static_cast<int64_t>(queries.size()) / head_dim;
  n_lane_pairs_ = (head_dim + 1) / 2;
  grow(queries_, n_rows_ * 2 * n_lane_pairs_);
  grow(factors_, n_rows_);
  grow(offset_sums_, n_rows_);
  const std::span<const float> offset = head.cache->key_lanes(head.layer, head.kv_head).offset;
  for (int64_t row = 0; row < n_rows_; ++row) {
    const auto query =
        queries.subspan(static_cast<size_t>(row * head_dim), static_cast<size_t>(head_dim));
    int16_t* codes = queries_.data() + row * 2 * n_lane_pairs_;
    codes[2 * n_lane_pairs_ - 1] = 0;  // of an odd number of lanes the last pair has one
    if (head.fa != nullptr) {
      encode_codes(head, query, row, group);
    } else {
      encode_float(head, query, row);
    }
    int32_t sum = 0;
    for (int64_t lane = 0; lane < head_dim; ++lane)
      sum += codes[lane] * static_cast<int32_t>(offset[static_cast<size_t>(lane)]);
    offset_sums_[static_cast<size_t>(row)] = sum;
  }
}

void CodeAttention::encode_float(const CodeHead& head, std::span<const float> query, int64_t row) {
  const std::span<const float> scale = head.cache->key_lanes(head.layer, head.kv_head).scale;
  std::array<float, kMaxLanes> room;
  float* const scaled = room.data();
  float largest = 0.0F;
  for (size_t i = 0; i < query.size(); ++i) {
    scaled[i] = query[i] * scale[i];
    largest = std::max(largest, std::fabs(scaled[i]));
  }
  // A row of zeros has any step.
  const float step = largest > 0.0F ? largest / kQuerySteps : 1.0F;
  int16_t* codes = queries_.data() + row * 2 * n_lane_pairs_;
  for (size_t i = 0; i < query.size(); ++i) {
    // To nearest even, as a sum that has no place for a fraction. NaN compares false and becomes
    // the lower limit, whatever the instruction set.
    float code = (scaled[i] / step + kRoundMagic) - kRoundMagic;
    code = code > -kQuerySteps ? code : -kQuerySteps;
    code = code < kQuerySteps ? code : kQuerySteps;
    codes[i] = static_cast<int16_t>(code);
  }
  factors_[static_cast<size_t>(row)] =
      step * static_cast<float>(inverse_root(head.cache->layout().head_dim));
}

void CodeAttention::encode_codes(const CodeHead& head, std::span<const float> query, int64_t row,
                                 int64_t group) {
  const auto q_head = static_cast<size_t>(head.kv_head * group + row % group);
  const float scale = head.fa->q_scale[q_head];
  const float offset = head.fa->q_offset[q_head];
  std::array<float, kMaxLanes> scales{};
  std::array<float, kMaxLanes> offsets{};
  std::array<int8_t, kMaxLanes> stored{};
  const size_t n = query.size();
  std::fill_n(scales.begin(), n, scale);
  std::fill_n(offsets.begin(), n, offset);
  quant::encode_lanes(query, {std::span(scales).first(n), std::span(offsets).first(n)},
                      std::span(stored).first(n));
  int16_t* codes = queries_.data() + row * 2 * n_lane_pairs_;
  for (size_t i = 0; i < n; ++i)
    codes[i] = static_cast<int16_t>(stored.at(i) - static_cast<int32_t>(offset));
  const double k_scale = head.fa->k_scale[static_cast<size_t>(head.kv_head)];
  const double root = std::sqrt(static_cast<double>(head.cache->layout().head_dim));
  factors_[static_cast<size_t>(row)] =
      static_cast<float>(static_cast<double>(scale) * k_scale / root);
}

void CodeAttention::score(const CodeHead& head, const PositionRange& positions, float* scores,
                          int64_t stride) {
  constexpr int64_t kGroup = quant::kKeysPerGroup;
  const quant::CodeSumsKernels& kernels = quant::code_sums_kernels(quant::active_isa());
  const auto keys_at = [&](int64_t position) {
    return head.cache->key_codes(head.layer, head.kv_head, position);
  };
  // The same positions' values are read next.
  const int8_t* values = head.cache->value_codes(head.layer, head.kv_head, positions.first);
  for_pages(*head.cache, positions, [&](const PositionRange& part, int64_t slot) {
    const int64_t first_group = slot / kGroup;
    const int64_t n_groups = (slot + part.n + kGroup - 1) / kGroup - first_group;
    grow(key_sums_, n_rows_ * n_groups * kGroup);
    kernels.key_sums({.queries = queries_.data(),
                      .query_stride = 2 * n_lane_pairs_,
                      .m = n_rows_,
                      .n_lane_pairs = n_lane_pairs_,
                      .keys = keys_at(part.first) +
                              quant::key_code_offset(first_group * kGroup, 0, n_lane_pairs_),
                      .n_groups = n_groups,
                      .next = next_codes(positions, part, keys_at, values),
                      .sums = key_sums_.data(),
                      .sums_stride = n_groups * kGroup});
    kernels.scores({.sums = key_sums_.data() + slot % kGroup,
                    .sums_stride = n_groups * kGroup,
                    .m = n_rows_,
                    .n = part.n,
                    .offset = offset_sums_.data(),
                    .factor = factors_.data(),
                    .scores = scores + (part.first - positions.first),
                    .scores_stride = stride});
  });
}

void CodeAttention::mix(const CodeHead& head, const PositionRange& positions, const float* weights,
                        int64_t stride, float* mix) {
  const int64_t n_lanes = 2 * n_lane_pairs_;
  grow(weights_, n_rows_ * kWeightStride);
  grow(page_weights_, n_rows_ * kWeightStride);
  grow(weight_sums_, n_rows_);
  value_sums_.assign(static_cast<size_t>(n_rows_ * n_lanes), 0);
  const quant::CodeSumsKernels& kernels = quant::code_sums_kernels(quant::active_isa());
  const float steps = head.fa != nullptr ? kFaWeightSteps : kWeightSteps;
  kernels.weight_codes({.weights = weights,
                        .weights_stride = stride,
                        .m = n_rows_,
                        .n = positions.n,
                        .steps = steps,
                        .carries = head.fa == nullptr,
                        .codes = weights_.data(),
                        .codes_stride = kWeightStride,
                        .sums = weight_sums_.data()});
  const auto values_at = [&](int64_t position) {
    return head.cache->value_codes(head.layer, head.kv_head, position);
  };
  // The keys of the positions behind are read next.
  const int64_t end = positions.first + positions.n;
  const int8_t* keys =
      head.cache->key_codes(head.layer, head.kv_head, head.cache->has(end) ? end : positions.first);
  for_pages(*head.cache, positions, [&](const PositionRange& part, int64_t slot) {
    const int64_t first_slot = slot / 2 * 2;
    const int64_t n_pairs = (slot + part.n + 1 - first_slot) / 2;
    const PairWeights pairs = pair_weights(positions, part, slot);
    kernels.value_sums(
        {.weights = pairs.data,
         .weight_stride = pairs.stride,
         .m = n_rows_,
         .n_position_pairs = n_pairs,
         .values = values_at(part.first) + quant::value_code_offset(first_slot, 0, n_lane_pairs_),
         .n_lane_pairs = n_lane_pairs_,
         .next = next_codes(positions, part, values_at, keys),
         .sums = value_sums_.data(),
         .sums_stride = n_lanes});
  });
  write_mix(head.cache->value_lanes(head.layer, head.kv_head), steps, mix);
}

CodeAttention::PairWeights CodeAttention::pair_weights(const PositionRange& positions,
                                                       const PositionRange& part, int64_t slot) {
  const int64_t first = part.first - positions.first;
  const bool is_last = first + part.n == positions.n;
  if (is_last) {
    for (int64_t row = 0; row < n_rows_; ++row)
      weights_[static_cast<size_t>(row * kWeightStride + positions.n)] = 0;
  }
  if (slot % 2 == 0 && (part.n % 2 == 0 || is_last))
    return {weights_.data() + first, kWeightStride};
  const int64_t stride = (slot % 2 + part.n + 1) / 2 * 2;
  std::fill_n(page_weights_.begin(), n_rows_ * stride, int16_t{0});
  for (int64_t row = 0; row < n_rows_; ++row) {
    std::copy_n(weights_.data() + row * kWeightStride + first, part.n,
                page_weights_.data() + row * stride + slot % 2);
  }
  return {page_weights_.data(), stride};
}

void CodeAttention::write_mix(const quant::LaneParams& lanes, float steps, float* mix) {
  const size_t head_dim = lanes.scale.size();
  std::array<float, kMaxLanes> factor{};
  for (size_t lane = 0; lane < head_dim; ++lane) factor.at(lane) = lanes.scale[lane] / steps;
  for (int64_t row = 0; row < n_rows_; ++row, mix += head_dim) {
    const int32_t* sums = value_sums_.data() + row * 2 * n_lane_pairs_;
    const auto total = static_cast<float>(weight_sums_[static_cast<size_t>(row)]);
    for (size_t lane = 0; lane < head_dim; ++lane) {
      const float difference = static_cast<float>(sums[lane]) - lanes.offset[lane] * total;
      mix[lane] = difference * factor[lane];
    }
  }
}

}  // namespace llmq::runtime
