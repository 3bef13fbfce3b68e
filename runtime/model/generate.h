#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/model/model.h"
#include "runtime/model/sampler.h"

namespace llmq::runtime {

/// One text to be continued.
struct GenerateRequest {
  /// Token ids, BOS included where the tokenizer adds one. Empty: the model's BOS.
  std::vector<int32_t> prompt;
  int64_t max_new_tokens = 64;  ///< at least 0
  SamplingOptions sampling;
  /// Ids that end the text; absent: those of the model's generation_config.json.
  std::optional<std::vector<int32_t>> stop_ids;
};

enum class FinishReason : uint8_t {
  kStop,      ///< a stop id was chosen
  kLength,    ///< max_new_tokens, or the model's last position, was reached
  kCancelled  ///< the callback asked for it
};

/// "stop", "length" or "cancelled".
std::string_view finish_reason_name(FinishReason reason);

struct GenerateResult {
  std::vector<int32_t> ids;  ///< the new tokens, without the stop id
  FinishReason finish_reason = FinishReason::kLength;
  std::optional<int32_t> stop_id;  ///< which one ended the text
};

/// Called for each new token (stop ids excepted), in the order they are chosen. Returns false to
/// end that request.
using TokenCallback = std::function<bool(int64_t request, int32_t id)>;

/// Continues all requests, at most `max_batch_size` (at least 1) at a time; a finished one makes
/// room for the next. A request's tokens do not depend on the others. Throws Error{kUsage} for an
/// empty prompt of a model without BOS and for options out of range, and Error{kBadInput} for a
/// prompt that is longer than the model's positions or holds an id outside the vocabulary; both
/// before anything is generated, naming the request.
std::vector<GenerateResult> generate(Model& model, std::span<const GenerateRequest> requests,
                                     int64_t max_batch_size = 8,
                                     const TokenCallback& callback = {});

}  // namespace llmq::runtime
