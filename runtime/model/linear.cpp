#include "runtime/model/linear.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/kernels/gemm_w4a16/gemm_w4a16.h"
#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"
#include "runtime/model/coded_linear.h"
#include "runtime/model/partial_linear.h"

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
  /// Throws Error{kBadInput} where the weight has other extents than the view says.
  void (*check_extents)(const LinearWeights&);
  /// The first part that a view lacks; empty when it is complete.
  std::string_view (*missing)(const LinearWeights&);
  /// Of float activations; null where it multiplies codes.
  void (*apply)(const LinearWeights&, const ConstMatrixF32&, const MatrixF32&, ThreadTeam&);
  void (*widen)(const LinearWeights&, int64_t row, std::span<float> out);
  InputForm prefill = InputForm::kFloats;
  InputForm decode = InputForm::kFloats;
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
  if (linear.multiplies_bf16) {
    quant::gemm_bf16({.x = x,
                      .weights = linear.weight.data(),
                      .weight_dtype = linear.dtype,
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

// Row `row` of weights worth (code(i) − offset) · scale.
template <typename Code>
void widen_codes(const LinearWeights& linear, int64_t row, const Code& code, std::span<float> out) {
  const int64_t group = linear.group_size > 0 ? linear.group_size : linear.n_in;
  const int64_t first = row * (linear.n_in / group);
  for (int64_t i = 0; i < linear.n_in; ++i) {
    const int64_t at = first + i / group;
    const float offset = linear.offset == nullptr ? 0.0F : linear.offset[at];
    out[static_cast<size_t>(i)] = (static_cast<float>(code(i)) - offset) * linear.scale[at];
  }
}

void widen_w8a16(const LinearWeights& linear, int64_t row, std::span<float> out) {
  const auto* codes = reinterpret_cast<const int8_t*>(linear.weight.data()) + row * linear.n_in;
  widen_codes(
      linear, row, [&](int64_t i) { return codes[i]; }, out);
}

void apply_w4a16(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                 ThreadTeam& team) {
  quant::gemm_w4a16({.x = x,
                     .weights = linear.packed_int4,
                     .scale = linear.scale,
                     .offset = linear.offset,
                     .group_size = linear.group_size,
                     .bias = linear.bias,
                     .y = y},
                    team);
}

void widen_w4a16(const LinearWeights& linear, int64_t row, std::span<float> out) {
  widen_codes(
      linear, row, [&](int64_t i) { return linear.packed_int4->at(row, i); }, out);
}

void apply_codes(const LinearWeights& linear, InputForm form, const ConstMatrixF32& x,
                 const MatrixF32& y, ThreadTeam& team) {
  const CodedRows codes = coded_room(x.n_rows, x.n_cols);
  write_codes(linear, form, x, codes, 0, team);
  multiply_codes(linear, form, codes, y, team);
}

/// deq_scale is input_scale · weight_scale, and files need not hold the latter.
void widen_static(const LinearWeights& linear, int64_t row, const int8_t* codes,
                  std::span<float> out) {
  const float scale = linear.deq_scale[row] / linear.activation.scale;
  for (int64_t i = 0; i < linear.n_in; ++i)
    out[static_cast<size_t>(i)] = static_cast<float>(codes[i]) * scale;
}

void widen_w8a8(const LinearWeights& linear, int64_t row, std::span<float> out) {
  const auto* codes = reinterpret_cast<const int8_t*>(linear.weight.data()) + row * linear.n_in;
  widen_static(linear, row, codes, out);
}

void widen_compressed(const LinearWeights& linear, int64_t row, std::span<float> out) {
  std::vector<int8_t> codes(out.size());
  linear.packed_sc->read_row(row, codes.data());
  widen_static(linear, row, codes.data(), out);
}

bool is_int8(DType dtype) {
  return dtype == DType::kI8;
}

void check_stored_extents(const LinearWeights& linear) {
  const uint64_t size_bytes = formats::tensor_size_bytes(linear.dtype, {linear.n_out, linear.n_in});
  if (linear.weight.size() == size_bytes) return;
  throw formats::bad_input(fmt::format("has {} bytes where [{}, {}] of {} needs {}",
                                       linear.weight.size(), linear.n_out, linear.n_in,
                                       formats::dtype_name(linear.dtype), size_bytes));
}

/// kPacked: the member that holds the packed weight.
template <auto kPacked>
void check_packed_extents(const LinearWeights& linear) {
  const auto* packed = linear.*kPacked;
  if (packed == nullptr || (packed->n() == linear.n_out && packed->k() == linear.n_in)) return;
  throw formats::bad_input(fmt::format("has [{}, {}] codes where [{}, {}] are needed", packed->n(),
                                       packed->k(), linear.n_out, linear.n_in));
}

std::string_view nothing_missing(const LinearWeights& /*linear*/) {
  return {};
}

std::string_view missing_of_weight_only(const LinearWeights& linear) {
  return linear.scale == nullptr ? "weight_scale" : "";
}

std::string_view missing_of_int4(const LinearWeights& linear) {
  return linear.packed_int4 == nullptr ? "packed weight" : missing_of_weight_only(linear);
}

std::string_view missing_of_static(const LinearWeights& linear) {
  if (linear.packed == nullptr && linear.packed_sc == nullptr) return "packed weight";
  if (linear.quant_bias == nullptr) return "quant_bias";
  if (linear.deq_scale == nullptr) return "deq_scale";
  return linear.activation.scale > 0 ? "" : "input_scale above zero";
}

std::string_view missing_of_compressed(const LinearWeights& linear) {
  return linear.packed_sc == nullptr ? "packed weight" : missing_of_static(linear);
}

std::string_view missing_of_dynamic(const LinearWeights& linear) {
  if (linear.packed == nullptr) return "packed weight";
  if (linear.group_size != 0) return "one scale per output";
  return linear.scale == nullptr ? "weight_scale" : "";
}

std::string_view missing_of_mix(const LinearWeights& linear) {
  const std::string_view missing = missing_of_dynamic(linear);
  return missing.empty() ? missing_of_static(linear) : missing;
}

constexpr auto kStatic = InputForm::kStaticCodes;
constexpr auto kRows = InputForm::kRowCodes;

/// A scheme that can be executed is one row here.
constexpr std::array<SchemeKernels, 8> kSchemeKernels{{
    {Scheme::kFloat, formats::is_weight_float, check_stored_extents, nothing_missing, apply_float,
     widen_float},
    {Scheme::kW8A16, is_int8, check_stored_extents, missing_of_weight_only, apply_w8a16,
     widen_w8a16},
    {Scheme::kW4A16, is_int8, check_packed_extents<&LinearWeights::packed_int4>, missing_of_int4,
     apply_w4a16, widen_w4a16},
    {Scheme::kW8A8, is_int8, check_stored_extents, missing_of_static, nullptr, widen_w8a8, kStatic,
     kStatic},
    {Scheme::kW8A8S, is_int8, check_stored_extents, missing_of_static, nullptr, widen_w8a8, kStatic,
     kStatic},
    {Scheme::kW8A8SC, is_int8, check_packed_extents<&LinearWeights::packed_sc>,
     missing_of_compressed, nullptr, widen_compressed, kStatic, kStatic},
    {Scheme::kW8A8Dynamic, is_int8, check_stored_extents, missing_of_dynamic, nullptr, widen_w8a16,
     kRows, kRows},
    {Scheme::kW8A8Mix, is_int8, check_stored_extents, missing_of_mix, nullptr, widen_w8a16, kRows,
     kStatic},
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

std::string_view reduction_name(Reduction reduction) {
  return reduction == Reduction::kInt32 ? "int32" : "float32";
}

Reduction parse_reduction(std::string_view name) {
  for (const Reduction reduction : {Reduction::kInt32, Reduction::kFloat32}) {
    if (name == reduction_name(reduction)) return reduction;
  }
  throw formats::usage_error(
      fmt::format("unknown reduction \"{}\"; known are int32 and float32", name));
}

bool can_execute(Scheme scheme) {
  return find_kernels(scheme) != nullptr;
}

bool differs_by_phase(Scheme scheme) {
  const SchemeKernels* kernels = find_kernels(scheme);
  return kernels != nullptr && kernels->prefill != kernels->decode;
}

InputForm input_form(const LinearWeights& linear, Phase phase) {
  const SchemeKernels& kernels = kernels_of(linear);
  return phase == Phase::kDecode ? kernels.decode : kernels.prefill;
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
  kernels->check_extents(linear);
  if (const std::string_view missing = kernels->missing(linear); !missing.empty()) {
    throw formats::bad_input(fmt::format("has no {}, which scheme {} needs", missing, tag));
  }
  if (linear.group_size < 0 || (linear.group_size > 0 && linear.n_in % linear.group_size != 0)) {
    throw formats::bad_input(
        fmt::format("group_size {} does not divide its {} inputs", linear.group_size, linear.n_in));
  }
}

void apply_linear(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                  ThreadTeam& team, Phase phase) {
  if (x.n_cols != linear.n_in || y.n_cols != linear.n_out || x.n_rows != y.n_rows) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("a linear [{}, {}] applied to [{}, {}] giving [{}, {}]", linear.n_out,
                    linear.n_in, x.n_rows, x.n_cols, y.n_rows, y.n_cols));
  }
  const InputForm form = input_form(linear, phase);
  const bool is_cut = linear.ranks != nullptr && linear.ranks->size() > 1;
  if (is_cut && linear.reduction == Reduction::kInt32 && form != InputForm::kFloats)
    return apply_codes_over_ranks(linear, form, x, y, team);
  if (form == InputForm::kFloats) {
    kernels_of(linear).apply(linear, x, y, team);
  } else {
    apply_codes(linear, form, x, y, team);
  }
  if (is_cut) sum_over_ranks(*linear.ranks, y);
}

void apply_linear(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                  ThreadTeam& team, std::span<const PhaseRun> runs) {
  if (!differs_by_phase(linear.scheme)) return apply_linear(linear, x, y, team);
  for (const PhaseRun& run : runs) {
    apply_linear(linear,
                 {x.data + run.first_row * x.row_stride, run.n_rows, x.n_cols, x.row_stride},
                 {y.data + run.first_row * y.row_stride, run.n_rows, y.n_cols, y.row_stride}, team,
                 run.phase);
  }
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
