#include "runtime/model/linear.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Scheme;
using quant::ConstMatrixF32;
using quant::MatrixF32;
using quant::ThreadTeam;

/// What it takes to execute a scheme.
struct SchemeKernels {
  Scheme scheme;
  bool (*accepts)(DType dtype);
  bool needs_scale;
  void (*apply)(const LinearWeights&, const ConstMatrixF32&, const MatrixF32&, ThreadTeam&);
  void (*widen)(const LinearWeights&, int64_t row, std::span<float> out);
};

void apply_float(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                 ThreadTeam& team) {
  if (linear.dtype == DType::kF32) {
    quant::gemm_f32({.x = x,
                     .weights = linear.weight.data(),
                     .weight_stride = linear.n_in,
                     .bias = linear.bias,
                     .y = y},
                    team);
    return;
  }
  quant::gemm_f16({.x = x,
                   .weights = linear.weight.data(),
                   .weight_dtype = linear.dtype,
                   .weight_stride = linear.n_in,
                   .bias = linear.bias,
                   .y = y},
                  team);
}

void widen_float(const LinearWeights& linear, int64_t row, std::span<float> out) {
  const size_t n = out.size();
  const size_t element = formats::dtype_size_bytes(linear.dtype);
  const std::byte* from = linear.weight.data() + static_cast<size_t>(row) * n * element;
  if (linear.dtype == DType::kF32) {
    std::memcpy(out.data(), from, n * element);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, from + i * element, element);
    out[i] =
        linear.dtype == DType::kBF16 ? formats::bf16_to_float(bits) : formats::fp16_to_float(bits);
  }
}

void apply_w8a16(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                 ThreadTeam& team) {
  quant::gemm_w8a16({.x = x,
                     .weights = reinterpret_cast<const int8_t*>(linear.weight.data()),
                     .weight_stride = linear.n_in,
                     .scale = linear.scale,
                     .offset = linear.offset,
                     .group_size = linear.group_size,
                     .bias = linear.bias,
                     .y = y},
                    team);
}

void widen_w8a16(const LinearWeights& linear, int64_t row, std::span<float> out) {
  const auto* codes = reinterpret_cast<const int8_t*>(linear.weight.data()) + row * linear.n_in;
  const int64_t group = linear.group_size > 0 ? linear.group_size : linear.n_in;
  const int64_t first = row * (linear.n_in / group);
  for (int64_t i = 0; i < linear.n_in; ++i) {
    const int64_t at = first + i / group;
    const float offset = linear.offset == nullptr ? 0.0F : linear.offset[at];
    out[static_cast<size_t>(i)] = (static_cast<float>(codes[i]) - offset) * linear.scale[at];
  }
}

bool is_int8(DType dtype) {
  return dtype == DType::kI8;
}

/// A scheme that can be executed is one row here.
constexpr std::array<SchemeKernels, 2> kSchemeKernels{{
    {Scheme::kFloat, formats::is_weight_float, false, apply_float, widen_float},
    {Scheme::kW8A16, is_int8, true, apply_w8a16, widen_w8a16},
}};

const SchemeKernels* find_kernels(Scheme scheme) {
  for (const SchemeKernels& kernels : kSchemeKernels) {
    if (kernels.scheme == scheme) return &kernels;
  }
  return nullptr;
}

const SchemeKernels& kernels_of(const LinearWeights& linear) {
  if (const SchemeKernels* kernels = find_kernels(linear.scheme)) return *kernels;
  throw formats::Error(formats::ErrorCode::kInternal, "a linear that cannot be executed");
}

}  // namespace

bool can_execute(Scheme scheme) {
  return find_kernels(scheme) != nullptr;
}

void check_linear(const LinearWeights& linear) {
  const std::string_view tag = formats::scheme_row(linear.scheme).tag;
  const SchemeKernels* kernels = find_kernels(linear.scheme);
  if (kernels == nullptr) {
    throw formats::bad_input(
        fmt::format("scheme {} cannot be executed by this version of llmq", tag));
  }
  if (!kernels->accepts(linear.dtype)) {
    throw formats::bad_input(fmt::format("is stored as {}, which scheme {} does not allow",
                                         formats::dtype_name(linear.dtype), tag));
  }
  const uint64_t size_bytes = formats::tensor_size_bytes(linear.dtype, {linear.n_out, linear.n_in});
  if (linear.weight.size() != size_bytes) {
    throw formats::bad_input(fmt::format("has {} bytes where [{}, {}] of {} needs {}",
                                         linear.weight.size(), linear.n_out, linear.n_in,
                                         formats::dtype_name(linear.dtype), size_bytes));
  }
  if (kernels->needs_scale && linear.scale == nullptr) {
    throw formats::bad_input(fmt::format("has no weight_scale, which scheme {} needs", tag));
  }
  if (linear.group_size < 0 || (linear.group_size > 0 && linear.n_in % linear.group_size != 0)) {
    throw formats::bad_input(
        fmt::format("group_size {} does not divide its {} inputs", linear.group_size, linear.n_in));
  }
}

void apply_linear(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                  ThreadTeam& team) {
  if (x.n_cols != linear.n_in || y.n_cols != linear.n_out || x.n_rows != y.n_rows) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("a linear [{}, {}] applied to [{}, {}] giving [{}, {}]", linear.n_out,
                    linear.n_in, x.n_rows, x.n_cols, y.n_rows, y.n_cols));
  }
  kernels_of(linear).apply(linear, x, y, team);
}

void widen_row(const LinearWeights& linear, int64_t row, std::span<float> out) {
  if (row < 0 || row >= linear.n_out || static_cast<int64_t>(out.size()) != linear.n_in) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("row {} of [{}, {}] into {} floats", row, linear.n_out,
                                     linear.n_in, out.size()));
  }
  kernels_of(linear).widen(linear, row, out);
}

}  // namespace llmq::runtime
