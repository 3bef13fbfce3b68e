#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "formats/dtype.h"
#include "quant/distortion.h"
#include "quant/kernels/rounding/rounding.h"
#include "quant/kernels/thread_team.h"
#include "quant/matrix_view.h"

namespace llmq::quant {

/// Smallest scale that is ever derived from a range: float32's epsilon, which every 16-bit dtype
/// represents (in float16 as a subnormal).
inline constexpr float kScaleFloor = 0x1p-23F;

/// The affine map between codes and values: x̂ = (code − offset)·scale.
struct AffineParams {
  float scale = 1.0F;   ///< positive, finite
  float offset = 0.0F;  ///< integer-valued; the code that stands for zero
};

/// A kind of code and how its parameters are derived.
struct AffineFormat {
  /// 2 to 8; codes are signed and kept one to an int8.
  int n_bits = 8;
  /// True: offset 0 and codes within ±(2^(n_bits−1) − 1). False: codes from −2^(n_bits−1) to
  /// 2^(n_bits−1) − 1, as is the offset.
  bool symmetric = true;
  /// The dtype that consumers round the scale to; scales are rounded to it before anything is
  /// derived from them. None keeps float32.
  std::optional<formats::DType> scale_dtype = std::nullopt;

  [[nodiscard]] float code_min() const;
  [[nodiscard]] float code_max() const;
};

/// `scale` rounded half-to-even to F32, F16 or BF16. Throws Error{kBadInput} when it is not
/// positive and finite, or would become zero or infinite; a subnormal result is allowed.
float round_scale_to(float scale, formats::DType dtype);

/// True when `scale`, a value of `dtype`, is subnormal there: some of its precision is lost.
bool is_subnormal_scale(float scale, formats::DType dtype);

/// Parameters for values in [min, max], which is first extended to contain 0:
/// symmetric: scale = max(−min, max) / (2^(n_bits−1) − 1);
/// asymmetric: scale = max / (2^n_bits − 1) − min / (2^n_bits − 1), offset = rint(−min / scale) −
/// 2^(n_bits−1), kept within the codes.
/// All in float32 with IEEE division; the scale is floored at kScaleFloor and then rounded to
/// scale_dtype. min = +inf, max = −inf (an empty range) count as 0. Throws Error{kBadInput} for
/// another range that is not finite, and as round_scale_to does; Error{kUsage} for n_bits outside
/// 2..8.
AffineParams affine_params(float min, float max, const AffineFormat& format);

/// Which elements of a matrix share their parameters.
enum class Granularity : uint8_t {
  kTensor,   ///< all of them
  kChannel,  ///< those of a row (an output channel of a linear)
  kGroup     ///< group_size consecutive columns of a row; the last group may be shorter
};

/// How to quantize a matrix.
struct AffineSpec {
  AffineFormat format = {};
  Granularity granularity = Granularity::kChannel;
  int64_t group_size = 0;  ///< only for kGroup, positive

  /// Groups in a row of n_cols columns: 1 for kTensor and kChannel. Throws Error{kUsage} for a
  /// group size that is not positive.
  [[nodiscard]] int64_t n_groups(int64_t n_cols) const;
};

/// A matrix [n_rows, n_cols] in codes.
struct AffineMatrix {
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t n_groups = 1;            ///< parameter sets in a row
  int64_t group_size = 0;          ///< columns of a set, fewer in the last one; 0: all of them
  std::vector<int8_t> codes;       ///< [n_rows, n_cols] row-major
  std::vector<float> scales;       ///< [n_rows, n_groups] row-major; one value for kTensor
  std::vector<float> offsets;      ///< as scales
  Distortion distortion;           ///< of the whole matrix
  int64_t n_subnormal_scales = 0;  ///< scales that are subnormal in scale_dtype
};

/// Quantizes `weights` to nearest: parameters from the extremes of each set of elements (see
/// affine_params), codes = clamp(rint(x / scale + offset)). The result does not depend on the
/// number of threads or the instruction set. Throws Error{kBadInput} that names row and column
/// where an element is NaN or infinite, or a scale does not fit into scale_dtype; Error{kUsage} for
/// an impossible spec.
AffineMatrix quantize_affine(const MatrixView& weights, const AffineSpec& spec, ThreadTeam& team);

/// Quantizes `weights` with parameters decided elsewhere: `params` holds n_rows × n_groups sets,
/// row by row (one for kTensor), and codes [n_rows, n_cols] are written to `codes`. Same formula
/// and same promises as quantize_affine; format.scale_dtype is not looked at. Throws
/// Error{kInternal} when a span has another size, Error{kBadInput} where an element is not finite.
Distortion quantize_with_params(const MatrixView& weights, const AffineSpec& spec,
                                std::span<const AffineParams> params, std::span<int8_t> codes,
                                ThreadTeam& team);

}  // namespace llmq::quant
