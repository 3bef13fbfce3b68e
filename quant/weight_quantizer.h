#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "quant/affine.h"
#include "quant/gptq.h"
#include "quant/gram.h"
#include "quant/kernels/thread_team.h"
#include "quant/matrix_view.h"
#include "quant/sparse.h"

namespace llmq::quant {

/// How weights become codes.
struct WeightMethod {
  enum class Kind : uint8_t {
    kRound,  ///< to nearest on the scale of the extremes
    kSsz,    ///< to nearest, scale and codes fitted to each other by least squares
    kGptq    ///< errors spread over the columns to come (arXiv 2210.17323)
  };
  Kind kind = Kind::kRound;
  /// The range of a row or group is shrunk where that loses less, weighted by the inputs' second
  /// moments where they are known.
  bool clip = false;
  bool activation_order = false;  ///< kGptq: channels with the largest inputs first
  /// kGptq: afterwards so many sweeps in which scales and then single codes are fitted to the
  /// others, each step lowering the error of the outputs on the calibration inputs.
  int n_refine_sweeps = 0;
  std::optional<SparseSpec> sparse = std::nullopt;  ///< scales of W8A8S
};

/// True when the method looks at what the linear read in calibration.
bool looks_at_inputs(const WeightMethod& method);

/// Codes of a linear's weights [n, k].
struct WeightSpec {
  AffineFormat format = {};
  int64_t group_size = 0;  ///< 0: one scale per row
  WeightMethod method = {};
};

/// What is known about the inputs of a linear.
struct LinearInputs {
  Gram gram;
  GptqFactor factor;
};

/// Quantizes rows of a linear. Rows do not depend on each other, so that any block of them gives
/// the same codes. kRound without clip and sparse gives exactly quantize_affine. Where `inputs` is
/// null or its factor not usable, kGptq falls back to kSsz (kRound for asymmetric or sparse codes).
/// Work is divided over the team; the result depends on neither threads nor instruction set.
///
/// Scales are rounded to format.scale_dtype before codes are computed. Sparse rows have the scale
/// threshold / 7 (see sparse.h) and codes within ±127.
///
/// Throws as quantize_affine, and Error{kInternal} where inputs are those of other columns.
AffineMatrix quantize_weight(const MatrixView& rows, const WeightSpec& spec,
                             const LinearInputs* inputs, ThreadTeam& team);

/// Σ over rows of (w − ŵ)·H·(w − ŵ)ᵀ for weights w [n, k] and their codes: the squared error of the
/// outputs summed over the calibration rows that H holds, in float64.
double output_error(const MatrixView& rows, const AffineMatrix& quantized, const Gram& gram,
                    ThreadTeam& team);

}  // namespace llmq::quant
