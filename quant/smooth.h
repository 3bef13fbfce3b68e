#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "quant/channel_statistics.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// How the outliers of activations are moved into weights: x ← (x − z) / s, W ← W·s, so that both
/// are easier to round and W·x stays what it was. The names are those of the vendor's anti_method.
/// With A the largest magnitude of a channel in calibration and C that of its column in all linears
/// that read it (at least 1e-5), s is at least 1e-5 and:
enum class SmoothMethod : uint8_t {
  kM1,  ///< SmoothQuant (arXiv 2211.10438): s = A^α / C^(1−α), α 0.5
  kM2,  ///< shift and scale (arXiv 2304.09145): z = (max + min) / 2, then as kM1 with A of x − z
  /// AWQ (arXiv 2306.00978): s = s₀·(m/√(max m · min m))^r with s₀ of kM1, m the mean magnitude of
  /// x / s₀ and r the best of 21 values from −1 to 1. Beginning from s₀ makes the choice
  /// independent of how a checkpoint divides gains between a norm and its readers.
  kM3,
  kM4,  ///< iterative smooth: as kM1 with α 0.9
  /// Flexible smooth: s = A^α / C^β; α and β as given, else α the best of a grid of 0.1 and then of
  /// 0.02 around it, β = 1 − α.
  kM6
};

/// "m1", "m2", ...
std::string_view smooth_method_name(SmoothMethod method);
/// The method of such a name; nothing for another one.
std::optional<SmoothMethod> find_smooth_method(std::string_view name);

struct SmoothSpec {
  SmoothMethod method = SmoothMethod::kM1;
  std::optional<double> alpha = std::nullopt;
  std::optional<double> beta = std::nullopt;
  int n_bits = 8;             ///< of the weights, for methods that search
  int64_t group_size = 0;     ///< of the weights; 0: per channel
  bool rounds_inputs = true;  ///< search with activations rounded to int8 as well
};

/// Linears that read the same activations.
struct SmoothSubject {
  const ChannelStatistics* inputs = nullptr;
  std::vector<ConstMatrixF32> consumers;  ///< weights [n, k] each
  /// Channels with the same number share a scale (query heads that read one KV head); empty: each
  /// has its own. [k], from 0 on.
  std::vector<int64_t> tied;
};

struct SmoothDecision {
  std::vector<float> scale;  ///< [k] s, positive
  std::vector<float> shift;  ///< [k] z, or empty for none
  double alpha = 0.0;        ///< taken
  double beta = 0.0;         ///< taken
  double ratio = 0.0;        ///< r of kM3
  /// Of methods that search: squared error of the outputs on the kept rows, as they are and with
  /// the scales chosen.
  double loss_before = 0.0;
  double loss_after = 0.0;
};

/// Decides scales and shifts. Channels that were zero in all of calibration get s = 1. Float64
/// inside; the result does not depend on threads or instruction set. Throws Error{kInternal} where
/// extents do not fit.
SmoothDecision choose_smoothing(const SmoothSubject& subject, const SmoothSpec& spec,
                                ThreadTeam& team);

}  // namespace llmq::quant
