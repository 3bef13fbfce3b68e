#pragma once

#include <cstdint>
#include <vector>

#include "formats/checkpoint.h"

namespace llmq::runtime {

/// The int4 codes of a stored weight, one a byte: [n, k] row-major, each from −8 to 7. Takes every
/// layout of formats::Int4Layout, told apart by the tensor's shape: pairs of columns where
/// `group_size` is 0 (a scale per output), pairs of rows where it is not. Throws Error{kBadInput}
/// naming the tensor for another shape, a dtype that is not I8, or an unpacked code beyond 4 bits.
std::vector<int8_t> int4_codes(const formats::StoredTensor& tensor, int64_t n, int64_t k,
                               int64_t group_size);

}  // namespace llmq::runtime
