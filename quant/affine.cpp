#include "quant/affine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "formats/error.h"
#include "formats/float16.h"

namespace llmq::quant {
namespace {

float power_of_two(int exponent) {
  return static_cast<float>(int64_t{1} << exponent);
}

void check_bits(int n_bits) {
  if (n_bits >= 2 && n_bits <= 8) return;
  throw formats::usage_error("codes of " + std::to_string(n_bits) +
                             " bits are not supported; choose 2 to 8");
}

bool is_empty_range(float min, float max) {
  return min == std::numeric_limits<float>::infinity() &&
         max == -std::numeric_limits<float>::infinity();
}

// How the elements of one matrix are divided into tasks and sets of equal parameters.
struct Layout {
  const MatrixView& weights;
  AffineFormat format;
  Granularity granularity;
  int64_t n_groups;
  int64_t group_cols;  // columns of every group but the last
  int64_t task_rows;

  Layout(const MatrixView& matrix, const AffineSpec& spec)
      : weights(matrix),
        format(spec.format),
        granularity(spec.granularity),
        n_groups(spec.n_groups(matrix.n_cols())),
        group_cols(spec.granularity == Granularity::kGroup ? spec.group_size : matrix.n_cols()) {
    check_bits(format.n_bits);
    if (matrix.n_cols() == 0 && matrix.n_rows() > 0) {
      throw formats::bad_input("a matrix of " + std::to_string(matrix.n_rows()) +
                               " rows without columns cannot be quantized");
    }
    // Depends on the matrix alone, so that sums over tasks do not depend on the threads.
    constexpr int64_t kTaskElements = 1 << 15;
    task_rows = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, weights.n_cols()));
  }

  [[nodiscard]] int64_t n_tasks() const {
    return weights.n_rows() / task_rows + (weights.n_rows() % task_rows != 0 ? 1 : 0);
  }
  [[nodiscard]] int64_t first_row(int64_t task) const { return task * task_rows; }
  [[nodiscard]] int64_t end_row(int64_t task) const {
    return std::min(weights.n_rows(), first_row(task) + task_rows);
  }
  [[nodiscard]] int64_t first_col(int64_t group) const { return group * group_cols; }
  [[nodiscard]] int64_t n_cols_of(int64_t group) const {
    return std::min(group_cols, weights.n_cols() - first_col(group));
  }
  [[nodiscard]] size_t n_params() const {
    if (granularity == Granularity::kTensor) return 1;
    return static_cast<size_t>(weights.n_rows() * n_groups);
  }
  [[nodiscard]] size_t param_index(int64_t row, int64_t group) const {
    if (granularity == Granularity::kTensor) return 0;
    return static_cast<size_t>(row * n_groups + group);
  }
};

std::string place(int64_t row, int64_t col) {
  return "element [" + std::to_string(row) + ", " + std::to_string(col) + "]";
}

// The row kernels for one matrix, applied to one group at a time.
class GroupKernels {
 public:
  explicit GroupKernels(const Layout& layout)
      : layout_(layout),
        kernels_(rounding_kernels()),
        type_index_(float_type_index(layout.weights.dtype())) {}

  [[nodiscard]] RowRange range(int64_t row, int64_t group) const {
    const int64_t first_col = layout_.first_col(group);
    RowRange range;
    kernels_.range[type_index_](layout_.weights.row(row, first_col), layout_.n_cols_of(group),
                                &range);
    if (range.first_non_finite >= 0) {
      throw formats::bad_input(place(row, first_col + range.first_non_finite) +
                               " is NaN or infinite and cannot be quantized");
    }
    return range;
  }

  void quantize(int64_t row, int64_t group, const AffineParams& params, std::span<int8_t> codes,
                Distortion& distortion) const {
    const int64_t first_col = layout_.first_col(group);
    const int64_t n_cols = layout_.n_cols_of(group);
    const RoundingParams rounding{params.scale, params.offset, layout_.format.code_min(),
                                  layout_.format.code_max()};
    RoundingSums sums;
    kernels_.quantize_measured[type_index_](
        layout_.weights.row(row, first_col), n_cols, &rounding,
        codes.data() + row * layout_.weights.n_cols() + first_col, &sums);
    distortion.add(sums, n_cols);
  }

  // Calls fn(row, group, distortion of the task) for every group and merges in order of the rows.
  template <typename Fn>
  Distortion for_each_group(ThreadTeam& team, Fn fn) const {
    std::vector<Distortion> parts(static_cast<size_t>(layout_.n_tasks()));
    team.parallel_for(layout_.n_tasks(), [&](int64_t task, int) {
      Distortion part;
      for (int64_t row = layout_.first_row(task); row < layout_.end_row(task); ++row) {
        for (int64_t group = 0; group < layout_.n_groups; ++group) fn(row, group, part);
      }
      parts[static_cast<size_t>(task)] = part;
    });
    Distortion total;
    for (const Distortion& part : parts) total.merge(part);
    return total;
  }

  // Extremes of the whole matrix.
  [[nodiscard]] RowRange tensor_range(ThreadTeam& team) const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::vector<RowRange> parts(static_cast<size_t>(layout_.n_tasks()),
                                {kInfinity, -kInfinity, 0.0F, -1});
    team.parallel_for(layout_.n_tasks(), [&](int64_t task, int) {
      RowRange& part = parts[static_cast<size_t>(task)];
      for (int64_t row = layout_.first_row(task); row < layout_.end_row(task); ++row) {
        const RowRange one = range(row, 0);
        part.min = std::min(part.min, one.min);
        part.max = std::max(part.max, one.max);
      }
    });
    RowRange total{kInfinity, -kInfinity, 0.0F, -1};
    for (const RowRange& part : parts) {
      total.min = std::min(total.min, part.min);
      total.max = std::max(total.max, part.max);
    }
    return total;
  }

 private:
  const Layout& layout_;
  const RoundingKernels& kernels_;
  size_t type_index_;
};

AffineParams params_at(const RowRange& range, const AffineFormat& format, int64_t row,
                       int64_t col) {
  try {
    return affine_params(range.min, range.max, format);
  } catch (const formats::Error& error) {
    throw error.with_context("row " + std::to_string(row) + ", column " + std::to_string(col));
  }
}

void check_size(const char* what, size_t size, size_t expected) {
  if (size == expected) return;
  throw formats::Error(
      formats::ErrorCode::kInternal,
      std::to_string(size) + " " + what + " were given for " + std::to_string(expected));
}

}  // namespace

float AffineFormat::code_min() const {
  return symmetric ? -code_max() : -power_of_two(n_bits - 1);
}

float AffineFormat::code_max() const {
  return power_of_two(n_bits - 1) - 1.0F;
}

float round_scale_to(float scale, formats::DType dtype) {
  float rounded = scale;
  if (dtype == formats::DType::kF16) {
    rounded = formats::fp16_to_float(formats::float_to_fp16(scale));
  } else if (dtype == formats::DType::kBF16) {
    rounded = formats::bf16_to_float(formats::float_to_bf16(scale));
  } else if (dtype != formats::DType::kF32) {
    throw formats::bad_input("scales cannot be stored as " +
                             std::string(formats::dtype_name(dtype)));
  }
  if (!(rounded > 0.0F) || !std::isfinite(rounded)) {
    throw formats::bad_input(fmt::format(
        "a scale of {:g} becomes {:g} in {}; keep this layer in float or choose another dtype",
        scale, rounded, formats::torch_dtype_name(dtype)));
  }
  return rounded;
}

bool is_subnormal_scale(float scale, formats::DType dtype) {
  const float smallest_normal =
      dtype == formats::DType::kF16 ? 0x1p-14F : std::numeric_limits<float>::min();
  return scale < smallest_normal;
}

AffineParams affine_params(float min, float max, const AffineFormat& format) {
  check_bits(format.n_bits);
  if (is_empty_range(min, max)) min = max = 0.0F;
  if (!std::isfinite(min) || !std::isfinite(max)) {
    throw formats::bad_input(fmt::format(
        "the range [{:g}, {:g}] cannot be quantized: its ends must be finite", min, max));
  }
  min = std::min(min, 0.0F);
  max = std::max(max, 0.0F);
  const float n_steps = power_of_two(format.n_bits) - 1.0F;
  float scale =
      format.symmetric ? std::max(-min, max) / format.code_max() : max / n_steps - min / n_steps;
  scale = std::max(scale, kScaleFloor);
  if (format.scale_dtype) scale = round_scale_to(scale, *format.scale_dtype);
  if (format.symmetric) return {scale, 0.0F};
  // A scale that was rounded down can push the offset one past the codes.
  const float offset = std::rint(-min / scale) - power_of_two(format.n_bits - 1);
  return {scale, std::clamp(offset, format.code_min(), format.code_max())};
}

int64_t AffineSpec::n_groups(int64_t n_cols) const {
  if (granularity != Granularity::kGroup) return 1;
  if (group_size <= 0) {
    throw formats::usage_error("a group size of " + std::to_string(group_size) +
                               " is impossible; choose a positive number of columns");
  }
  return n_cols / group_size + (n_cols % group_size != 0 ? 1 : 0);
}

AffineMatrix quantize_affine(const MatrixView& weights, const AffineSpec& spec, ThreadTeam& team) {
  const Layout layout(weights, spec);
  const GroupKernels kernels(layout);
  AffineMatrix result;
  result.n_rows = weights.n_rows();
  result.n_cols = weights.n_cols();
  result.n_groups = layout.n_groups;
  if (spec.granularity == Granularity::kGroup) result.group_size = spec.group_size;
  result.codes.resize(static_cast<size_t>(weights.n_rows() * weights.n_cols()));
  result.scales.resize(layout.n_params());
  result.offsets.resize(layout.n_params());

  AffineParams tensor_params;
  const bool per_tensor = spec.granularity == Granularity::kTensor;
  if (per_tensor) {
    const RowRange range = kernels.tensor_range(team);
    tensor_params = affine_params(range.min, range.max, spec.format);
    result.scales[0] = tensor_params.scale;
    result.offsets[0] = tensor_params.offset;
  }
  result.distortion =
      kernels.for_each_group(team, [&](int64_t row, int64_t group, Distortion& sum) {
        AffineParams params = tensor_params;
        if (!per_tensor) {
          params = params_at(kernels.range(row, group), spec.format, row, layout.first_col(group));
          result.scales[layout.param_index(row, group)] = params.scale;
          result.offsets[layout.param_index(row, group)] = params.offset;
        }
        kernels.quantize(row, group, params, result.codes, sum);
      });
  const formats::DType scale_dtype = spec.format.scale_dtype.value_or(formats::DType::kF32);
  result.n_subnormal_scales =
      std::count_if(result.scales.begin(), result.scales.end(),
                    [&](float scale) { return is_subnormal_scale(scale, scale_dtype); });
  return result;
}

Distortion quantize_with_params(const MatrixView& weights, const AffineSpec& spec,
                                std::span<const AffineParams> params, std::span<int8_t> codes,
                                ThreadTeam& team) {
  const Layout layout(weights, spec);
  const GroupKernels kernels(layout);
  check_size("parameter sets", params.size(), layout.n_params());
  check_size("codes", codes.size(), static_cast<size_t>(weights.n_rows() * weights.n_cols()));
  return kernels.for_each_group(team, [&](int64_t row, int64_t group, Distortion& sum) {
    static_cast<void>(kernels.range(row, group));  // refuses elements that are not finite
    kernels.quantize(row, group, params[layout.param_index(row, group)], codes, sum);
  });
}

}  // namespace llmq::quant
