#include "quant/fa_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/error.h"
#include "quant/kv_scales.h"

namespace llmq::quant {
namespace {

using formats::DType;
using formats::Error;
using formats::ErrorCode;

constexpr int64_t kMillion = 1'000'000;

/// All values of one head, in the order of the rows.
std::vector<float> head_values(const ConstMatrixF32& x, int64_t head, int64_t head_dim) {
  std::vector<float> values(static_cast<size_t>(x.n_rows * head_dim));
  for (int64_t row = 0; row < x.n_rows; ++row) {
    std::copy_n(x.data + row * x.row_stride + head * head_dim, head_dim,
                values.data() + row * head_dim);
  }
  return values;
}

std::vector<HeadWindow> windows_of(const ConstMatrixF32& x, int64_t head_dim, int64_t left_out,
                                   ThreadTeam& team) {
  std::vector<HeadWindow> windows(static_cast<size_t>(x.n_cols / head_dim));
  std::vector<uint8_t> is_finite(windows.size(), 1);
  team.parallel_for(static_cast<int64_t>(windows.size()), [&](int64_t head, int) {
    std::vector<float> values = head_values(x, head, head_dim);
    const auto i = static_cast<size_t>(head);
    is_finite[i] =
        std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }) ? 1 : 0;
    if (is_finite[i] != 0) windows[i] = smallest_window(values, left_out);
  });
  const auto wrong = std::find(is_finite.begin(), is_finite.end(), 0);
  if (wrong != is_finite.end()) {
    throw formats::bad_input(
        fmt::format("head {} of q, k or v holds a NaN or infinity; the weights overflow or are "
                    "damaged",
                    wrong - is_finite.begin()));
  }
  return windows;
}

void widen(std::vector<HeadWindow>& windows, const std::vector<HeadWindow>& more) {
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i].min = std::min(windows[i].min, more[i].min);
    windows[i].max = std::max(windows[i].max, more[i].max);
  }
}

std::vector<float> scales_of(const std::vector<HeadWindow>& windows, DType dtype) {
  std::vector<float> scales;
  scales.reserve(windows.size());
  for (const HeadWindow& window : windows)
    scales.push_back(symmetric_scale(std::max(std::abs(window.min), std::abs(window.max)), dtype));
  return scales;
}

}  // namespace

HeadWindow smallest_window(std::vector<float>& values, int64_t left_out_per_million) {
  const auto n = static_cast<int64_t>(values.size());
  const int64_t left_out =
      n / kMillion * left_out_per_million + n % kMillion * left_out_per_million / kMillion;
  const auto low_end = values.begin() + left_out;
  const auto high_begin = values.end() - 1 - left_out;
  // Only the ends of the sorted order decide; what lies between stays as it is.
  if (low_end < high_begin) {
    std::nth_element(values.begin(), low_end, values.end());
    std::nth_element(low_end + 1, high_begin, values.end());
    std::sort(values.begin(), low_end + 1);
    std::sort(high_begin, values.end());
  } else {
    std::sort(values.begin(), values.end());
  }
  HeadWindow best{*values.begin(), *high_begin};
  for (int64_t i = 1; i <= left_out; ++i) {
    const HeadWindow window{values[static_cast<size_t>(i)], *(high_begin + i)};
    if (window.max - window.min < best.max - best.min) best = window;
  }
  return best;
}

FaObserver::FaObserver(int64_t n_heads, int64_t n_kv_heads, int64_t head_dim)
    : head_dim_(head_dim) {
  if (n_heads < 1 || n_kv_heads < 1 || head_dim < 1) {
    throw Error(ErrorCode::kInternal,
                fmt::format("attention of {} heads, {} KV heads and {} lanes cannot be observed",
                            n_heads, n_kv_heads, head_dim));
  }
  statistics_.q.resize(static_cast<size_t>(n_heads));
  statistics_.k.resize(static_cast<size_t>(n_kv_heads));
  statistics_.v.resize(static_cast<size_t>(n_kv_heads));
}

void FaObserver::observe(const Batch& batch, ThreadTeam& team) {
  const auto fits = [&](const ConstMatrixF32& x, const std::vector<HeadWindow>& heads) {
    return x.n_rows == batch.q.n_rows && x.n_cols == static_cast<int64_t>(heads.size()) * head_dim_;
  };
  if (!fits(batch.q, statistics_.q) || !fits(batch.k, statistics_.k) ||
      !fits(batch.v, statistics_.v)) {
    throw Error(ErrorCode::kInternal, "q, k and v do not fit the heads that are observed");
  }
  if (batch.q.n_rows == 0) return;
  FaStatistics seen{.n_rows = statistics_.n_rows + batch.q.n_rows,
                    .q = windows_of(batch.q, head_dim_, kFaLeftOutPerMillion, team),
                    .k = windows_of(batch.k, head_dim_, kFaLeftOutPerMillion, team),
                    .v = windows_of(batch.v, head_dim_, 0, team)};
  if (statistics_.n_rows > 0) {
    widen(seen.q, statistics_.q);
    widen(seen.k, statistics_.k);
    widen(seen.v, statistics_.v);
  }
  statistics_ = std::move(seen);
}

FaHeadScales fa_head_scales(const FaStatistics& statistics, DType dtype) {
  if (statistics.n_rows == 0)
    throw formats::bad_input("no attention was observed; FAQuant cannot get scales");
  return {scales_of(statistics.q, dtype), scales_of(statistics.k, dtype),
          scales_of(statistics.v, dtype)};
}

}  // namespace llmq::quant
