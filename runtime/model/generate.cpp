#include "runtime/model/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

/// A request that is being continued.
struct Active {
  int64_t request;
  Sequence sequence;
  Sampler sampler;
  std::vector<int32_t> pending;  // tokens not fed yet
  int64_t n_left;                // new tokens still allowed
  Phase phase = Phase::kPrefill;
};

std::vector<int32_t> full_prompt(const Model& model, const GenerateRequest& request) {
  if (!request.prompt.empty()) return request.prompt;
  const std::optional<int32_t> bos = model.generation_config().bos_token_id;
  if (!bos) {
    throw formats::usage_error(
        "the prompt is empty and the model has no bos_token_id to begin with; give it a text");
  }
  return {*bos};
}

/// Everything that could fail for reasons of the request, before anything is generated.
void check(const Model& model, const GenerateRequest& request) {
  const std::vector<int32_t> prompt = full_prompt(model, request);
  model.check_tokens(prompt, 0);
  if (request.max_new_tokens < 0) {
    throw formats::usage_error(
        fmt::format("max_new_tokens is {}; it must be 0 or above", request.max_new_tokens));
  }
  const Sampler checks_options(request.sampling);
}

bool is_stop(const Model& model, const GenerateRequest& request, int32_t id) {
  const std::vector<int32_t>& ids =
      request.stop_ids ? *request.stop_ids : model.generation_config().stop_ids;
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

class Generation {
 public:
  Generation(Model& model, std::span<const GenerateRequest> requests, const TokenCallback& callback)
      : model_(model), requests_(requests), callback_(callback), results_(requests.size()) {}

  std::vector<GenerateResult> run(size_t max_batch_size) {
    size_t next = 0;
    while (next < requests_.size() || !active_.empty()) {
      for (; next < requests_.size() && active_.size() < max_batch_size; ++next)
        admit(static_cast<int64_t>(next));
      if (!active_.empty()) step();
    }
    return std::move(results_);
  }

 private:
  void admit(int64_t index) {
    const GenerateRequest& request = requests_[static_cast<size_t>(index)];
    if (request.max_new_tokens == 0) return;  // its result says "length" and no ids already
    active_.push_back({index, model_.new_sequence(), Sampler(request.sampling),
                       full_prompt(model_, request), request.max_new_tokens});
  }

  void step() {
    std::vector<BatchItem> items;
    items.reserve(active_.size());
    for (Active& active : active_)
      items.push_back({&active.sequence, active.pending, 0, active.phase});
    const int64_t vocab = model_.config().vocab_size;
    const auto n_rows = static_cast<int64_t>(items.size());
    logits_.resize(static_cast<size_t>(n_rows * vocab));
    model_.last_logits(items, {logits_.data(), n_rows, vocab, vocab});
    std::vector<bool> finished(active_.size());
    for (size_t i = 0; i < active_.size(); ++i) {
      finished[i] = choose(active_[i], {logits_.data() + i * static_cast<size_t>(vocab),
                                        static_cast<size_t>(vocab)});
    }
    size_t kept = 0;
    for (size_t i = 0; i < active_.size(); ++i) {
      if (finished[i]) continue;
      if (kept != i) active_[kept] = std::move(active_[i]);
      ++kept;
    }
    active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(kept), active_.end());
  }

  /// True when the request has ended.
  bool choose(Active& active, std::span<const float> logits) {
    GenerateResult& result = results_[static_cast<size_t>(active.request)];
    const int32_t id = active.sampler.next(logits);
    if (is_stop(model_, requests_[static_cast<size_t>(active.request)], id)) {
      result.finish_reason = FinishReason::kStop;
      result.stop_id = id;
      return true;
    }
    result.ids.push_back(id);
    if (callback_ && !callback_(active.request, id)) {
      result.finish_reason = FinishReason::kCancelled;
      return true;
    }
    active.pending.assign(1, id);
    active.phase = Phase::kDecode;
    return --active.n_left == 0 || active.sequence.length() >= model_.length_limit();
  }

  Model& model_;
  std::span<const GenerateRequest> requests_;
  const TokenCallback& callback_;
  std::vector<GenerateResult> results_;
  std::vector<Active> active_;
  std::vector<float> logits_;  // [active, vocab]
};

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

std::vector<GenerateResult> generate(Model& model, std::span<const GenerateRequest> requests,
                                     int64_t max_batch_size, const TokenCallback& callback) {
  if (max_batch_size < 1) {
    throw formats::usage_error(
        fmt::format("max_batch_size is {}; it must be at least 1", max_batch_size));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    try {
      check(model, requests[i]);
    } catch (const formats::Error& error) {
      if (requests.size() == 1) throw;
      throw error.with_context(fmt::format("request {}", i));
    }
  }
  return Generation(model, requests, callback).run(static_cast<size_t>(max_batch_size));
}

}  // namespace llmq::runtime
