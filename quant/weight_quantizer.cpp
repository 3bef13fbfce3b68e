#include "quant/weight_quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "formats/error.h"
#include "quant/kernels/rounding/rounding.h"
#include "quant/row_quantizer.h"

namespace llmq::quant {
namespace {

// Rows of one task: their number depends on nothing but the matrix.
constexpr int64_t kRowsPerTask = 8;

AffineSpec plain_spec(const WeightSpec& spec) {
  AffineSpec plain;
  plain.format = spec.format;
  if (spec.group_size > 0) {
    plain.granularity = Granularity::kGroup;
    plain.group_size = spec.group_size;
  }
  return plain;
}

void widen(const MatrixView& rows, int64_t row, std::vector<float>& to) {
  CastReport report{};
  rounding_kernels().cast[float_type_index(rows.dtype())][float_type_index(formats::DType::kF32)](
      rows.row(row), rows.n_cols(), to.data(), &report);
  if (report.first_non_finite < 0) return;
  throw formats::bad_input(fmt::format(
      "element [{}, {}] is NaN or infinite and cannot be quantized", row, report.first_non_finite));
}

// What a row lost, measured as quantize_affine does: whether a value is clipped depends on where it
// lies, not on what its code became once errors were spread over it.
void measure(std::span<const float> row, std::span<const int8_t> codes, const AffineParams* params,
             const WeightSpec& spec, Distortion& distortion) {
  const int64_t group_cols =
      spec.group_size > 0 ? spec.group_size : static_cast<int64_t>(row.size());
  const float least = spec.method.sparse ? -127.0F : spec.format.code_min();
  const float most = spec.method.sparse ? 127.0F : spec.format.code_max();
  Distortion part;
  part.n = static_cast<int64_t>(row.size());
  for (size_t i = 0; i < row.size(); ++i) {
    const AffineParams& group = params[static_cast<int64_t>(i) / group_cols];
    const float step = static_cast<float>(codes[i]) - group.offset;
    const float error = row[i] - step * group.scale;
    part.sum_squares += static_cast<double>(row[i]) * row[i];
    part.sum_squared_errors += static_cast<double>(error) * error;
    part.max_abs_error = std::max(part.max_abs_error, std::abs(error));
    const float rounded = std::rint(row[i] / group.scale + group.offset);
    if (rounded < least || rounded > most) ++part.n_clipped;
    if (step == 0.0F) ++part.n_zeros;
  }
  distortion.merge(part);
}

bool is_plain(const WeightMethod& method) {
  return method.kind == WeightMethod::Kind::kRound && !method.clip && !method.sparse;
}

}  // namespace

bool looks_at_inputs(const WeightMethod& method) {
  return method.kind == WeightMethod::Kind::kGptq;
}

AffineMatrix quantize_weight(const MatrixView& rows, const WeightSpec& spec,
                             const LinearInputs* inputs, ThreadTeam& team) {
  if (is_plain(spec.method)) return quantize_affine(rows, plain_spec(spec), team);
  const int64_t k = rows.n_cols();
  if (inputs != nullptr && inputs->gram.k != k) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("inputs of {} channels for weights of {}", inputs->gram.k, k));
  }
  AffineMatrix result;
  result.n_rows = rows.n_rows();
  result.n_cols = k;
  result.n_groups = plain_spec(spec).n_groups(k);
  result.group_size = std::max<int64_t>(spec.group_size, 0);
  result.codes.resize(static_cast<size_t>(rows.n_rows() * k));
  std::vector<AffineParams> params(static_cast<size_t>(rows.n_rows() * result.n_groups));
  const int64_t n_tasks = (rows.n_rows() + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<Distortion> parts(static_cast<size_t>(n_tasks));
  team.parallel_for(n_tasks, [&](int64_t task, int) {
    RowQuantizer quantizer(spec, k, inputs);
    std::vector<float> row(static_cast<size_t>(k));
    const int64_t end = std::min(rows.n_rows(), (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < end; ++i) {
      widen(rows, i, row);
      const auto codes = std::span(result.codes).subspan(static_cast<size_t>(i * k), row.size());
      const auto own = std::span(params).subspan(static_cast<size_t>(i * result.n_groups),
                                                 static_cast<size_t>(result.n_groups));
      try {
        quantizer.run(row, codes, own);
      } catch (const formats::Error& error) {
        throw error.with_context(fmt::format("row {}", i));
      }
      measure(row, codes, own.data(), spec, parts[static_cast<size_t>(task)]);
    }
  });
  for (const Distortion& part : parts) result.distortion.merge(part);
  const formats::DType scale_dtype = spec.format.scale_dtype.value_or(formats::DType::kF32);
  for (const AffineParams& one : params) {
    result.scales.push_back(one.scale);
    result.offsets.push_back(one.offset);
    result.n_subnormal_scales += is_subnormal_scale(one.scale, scale_dtype) ? 1 : 0;
  }
  return result;
}

double output_error(const MatrixView& rows, const AffineMatrix& quantized, const Gram& gram,
                    ThreadTeam& team) {
  const int64_t k = rows.n_cols();
  const int64_t group_cols =
      quantized.group_size > 0 ? quantized.group_size : std::max<int64_t>(k, 1);
  std::vector<double> parts(static_cast<size_t>(rows.n_rows()));
  team.parallel_for(rows.n_rows(), [&](int64_t row, int) {
    std::vector<float> values(static_cast<size_t>(k));
    widen(rows, row, values);
    std::vector<double> error(values.size());
    for (int64_t i = 0; i < k; ++i) {
      const auto group = static_cast<size_t>(row * quantized.n_groups + i / group_cols);
      const double code = quantized.codes[static_cast<size_t>(row * k + i)];
      error[static_cast<size_t>(i)] =
          values[static_cast<size_t>(i)] -
          (code - quantized.offsets[group]) * static_cast<double>(quantized.scales[group]);
    }
    double total = 0.0;
    for (int64_t i = 0; i < k; ++i) {
      double sum = 0.0;
      for (int64_t j = 0; j < k; ++j)
        sum += gram.values[static_cast<size_t>(i * k + j)] * error[static_cast<size_t>(j)];
      total += error[static_cast<size_t>(i)] * sum;
    }
    parts[static_cast<size_t>(row)] = total;
  });
  double total = 0.0;
  for (const double part : parts) total += part;
  return total;
}

}  // namespace llmq::quant
