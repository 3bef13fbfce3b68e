#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/model/model.h"

namespace llmq::runtime {

/// One vector for each text, as embedding models of the Qwen2 form give them (arXiv 2401.00368,
/// section 3.1): the hidden state of the text's last token after the final norm, divided by its
/// Euclidean length. Returns [texts.size()][hidden_size]; lengths are 1 to within float32 rounding.
///
/// `texts` are token ids, with the end-of-text token that a model expects already appended. At most
/// `max_batch_size` (at least 1) are run together; a text's vector has the same bits whatever runs
/// beside it. `on_text` is called with the index of each text when its vector is complete, in
/// order; what it throws ends the call. Throws Error{kUsage} for a text without tokens and for
/// options out of range, Error{kBadInput} as Model::check_tokens and where a hidden state is zero
/// or not finite; each names the text, and all but the last come before anything is run.
std::vector<std::vector<float>> embed(Model& model, std::span<const std::vector<int32_t>> texts,
                                      int64_t max_batch_size = 8,
                                      const std::function<void(int64_t text)>& on_text = {});

/// Cosine of the angle between two vectors of the same extent, in float64: -1 to 1, but for
/// rounding. Throws Error{kInternal} where extents differ.
double cosine_similarity(std::span<const float> a, std::span<const float> b);

}  // namespace llmq::runtime
