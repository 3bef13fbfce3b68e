#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Replaces the lower triangle of `a` [k, k] row-major (symmetric, of which only the lower triangle
/// is read) by L with L·Lᵀ = a, in float64, blocked, with sums in an order that does not depend on
/// the team. The upper triangle is left as it is. Returns false, with `a` spoiled, where a pivot is
/// not positive and finite.
bool cholesky_in_place(std::span<double> a, int64_t k, ThreadTeam& team);

/// The inverse of a lower triangular matrix [k, k] row-major with a diagonal without zeros; its
/// upper triangle is not read. The result is lower triangular with zeros above. Sums as above.
std::vector<double> invert_lower(std::span<const double> lower, int64_t k, ThreadTeam& team);

}  // namespace llmq::quant
