#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "formats/dtype.h"
#include "formats/scheme.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/gemm_w4a16/packed_int4.h"
#include "quant/kernels/gemm_w8a8/packed_int8.h"
#include "quant/kernels/gemm_w8a8/quantize_rows.h"
#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/phase.h"
#include "runtime/parallel/communicator.h"

namespace llmq::runtime {

/// How the partial products of a linear whose inputs are cut over ranks become its output.
enum class Reduction : uint8_t {
  /// Schemes with int8 activations add up int32 sums, and tokens with a scale of their own get it
  /// from all their inputs: the output has the bits of the uncut linear. Others as kFloat32.
  kInt32,
  /// Every rank computes float32 outputs from its own inputs, as serving engines do; they are added
  /// in the order of the ranks.
  kFloat32,
};

/// "int32" or "float32".
std::string_view reduction_name(Reduction reduction);
/// The inverse. Throws Error{kUsage} listing the known names.
Reduction parse_reduction(std::string_view name);

/// A linear as it is executed: y = x · Wᵀ + bias. A view; whoever made it owns the memory (a mapped
/// checkpoint, or the pipeline in the middle of quantizing a layer).
struct LinearWeights {
  formats::Scheme scheme = formats::Scheme::kFloat;
  /// Of `weight`: F32, BF16 or F16 for kFloat, I8 for all others.
  formats::DType dtype = formats::DType::kF32;
  /// [n_out, n_in] row-major in `dtype`, at any alignment; kW4A16, kW8A8SC: as stored, and not
  /// read.
  std::span<const std::byte> weight;
  int64_t n_out = 0;
  int64_t n_in = 0;
  /// Inputs that share a scale; 0: one scale per output. Weight-only schemes.
  int64_t group_size = 0;
  /// float32 [n_out], or [n_out, n_in/group_size]; a weight is worth (q − offset)·scale.
  const float* scale = nullptr;
  /// As scale; null for zeros. Weight-only schemes.
  const float* offset = nullptr;
  /// float32 [n_out], or null for none. kW8A8, kW8A8S, kW8A8SC: always null, quant_bias
  /// carries it.
  const float* bias = nullptr;

  /// kW4A16: the weight, [n_out, n_in], as the kernel reads it.
  const quant::PackedInt4* packed_int4 = nullptr;

  // Schemes with int8 activations.
  const quant::PackedInt8* packed = nullptr;  ///< the weight, [n_out, n_in], as the kernel reads it
  /// Instead of `packed`, kW8A8S and kW8A8SC (always).
  const quant::PackedW8A8sc* packed_sc = nullptr;
  // kW8A8, kW8A8S, kW8A8SC and decoding of kW8A8Mix: y = (codes(x) · Wᵀ + quant_bias) · deq_scale.
  // kW8A8Dynamic and prefill of kW8A8Mix, with a scale s per row of x from its largest magnitude:
  // y = (codes(x) · Wᵀ) · scale · s + bias.
  quant::ActivationRule activation = {};  ///< how x becomes codes
  const int32_t* quant_bias = nullptr;    ///< [n_out]
  const float* deq_scale = nullptr;       ///< float32 [n_out]

  /// kFloat of 16 bits: y is that of quant::gemm_bf16, whose activations are bfloat16 and whose
  /// bits depend on whether the instruction set has tiles. Never set by a loader.
  bool multiplies_bf16 = false;

  /// The ranks that this linear's inputs are cut over; null for a whole one. What is added once to
  /// a sum over ranks (quant_bias, bias) is zero on all ranks but the first.
  Communicator* ranks = nullptr;
  Reduction reduction = Reduction::kInt32;

  [[nodiscard]] bool empty() const { return weight.data() == nullptr; }
};

/// True when this build executes linears of `scheme`.
bool can_execute(formats::Scheme scheme);

/// True when linears of `scheme` compute something else in each phase.
bool differs_by_phase(formats::Scheme scheme);

/// Checks that a view is complete: an executable scheme with its dtype, byte count and scales.
/// Throws Error{kBadInput} saying what does not fit (the caller adds the tensor's name).
void check_linear(const LinearWeights& linear);

/// y = x · Wᵀ + bias with float32 activations and accumulation, or with int8 activations and int32
/// accumulation where the scheme says so. Where the inputs are cut over ranks every rank calls this
/// with its columns of x, and all get the sum. x [m, n_in]; y [m, n_out] is
/// overwritten and may not overlap x. The bits of y do not depend on threads, instruction set or on
/// how rows are divided over calls (multiplies_bf16: as gemm_bf16 says). Throws Error{kInternal}
/// where shapes do not fit.
void apply_linear(const LinearWeights& linear, const quant::ConstMatrixF32& x,
                  const quant::MatrixF32& y, quant::ThreadTeam& team,
                  Phase phase = Phase::kPrefill);

/// apply_linear on rows of several phases: `runs` cover the rows of x once and in order. Each row
/// has the bits that it has alone.
void apply_linear(const LinearWeights& linear, const quant::ConstMatrixF32& x,
                  const quant::MatrixF32& y, quant::ThreadTeam& team,
                  std::span<const PhaseRun> runs);

/// Row `row` of W as float32 values (an embedding look-up); `out` has n_in floats. `row` must be in
/// [0, n_out). The bias is not added.
void widen_row(const LinearWeights& linear, int64_t row, std::span<float> out);

}  // namespace llmq::runtime
