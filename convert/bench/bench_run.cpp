#include "convert/bench/bench_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>

#include "convert/interrupt.h"
#include "formats/error.h"
#include "runtime/model/sampler.h"

namespace llmq::convert {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Ids without meaning but of even spread; speed does not depend on which.
std::vector<int32_t> spread_ids(int64_t n_tokens, int64_t vocab_size, int64_t salt) {
  std::vector<int32_t> ids(static_cast<size_t>(n_tokens));
  for (int64_t i = 0; i < n_tokens; ++i) {
    ids[static_cast<size_t>(i)] =
        static_cast<int32_t>((i * 7919 + salt * 104729 + 11) % vocab_size);
  }
  return ids;
}

/// Rows of keys or values that look like nothing in particular, to be stored again and again.
class RandomRows {
 public:
  explicit RandomRows(int64_t n_lanes) : n_lanes_(static_cast<size_t>(n_lanes)) {
    values_.resize(n_lanes_ * kRows);
    uint32_t state = 12345;
    for (float& value : values_) {
      state = state * 1664525U + 1013904223U;
      value = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;  // from −1 to 1
    }
  }

  [[nodiscard]] std::span<const float> row(int64_t index) const {
    return std::span(values_).subspan(static_cast<size_t>(index % kRows) * n_lanes_, n_lanes_);
  }

 private:
  static constexpr int64_t kRows = 61;  // prime, so that pages do not repeat
  size_t n_lanes_;
  std::vector<float> values_;
};

void fill_with_random_rows(runtime::Sequence& sequence, int64_t depth, quant::ThreadTeam& team) {
  runtime::KvCache& cache = sequence.cache();
  const RandomRows rows(cache.layout().n_kv_heads * cache.layout().head_dim);
  cache.reserve(depth);
  team.parallel_for(cache.layout().n_layers, [&](int64_t layer, int) {
    for (int64_t position = 0; position < depth; ++position)
      cache.store(layer, position, rows.row(position + layer), rows.row(3 * position + layer + 1));
  });
  cache.advance(depth);
}

/// The sequences of one case.
class Run {
 public:
  Run(runtime::Model& model, int64_t batch_size)
      : model_(model), logits_(static_cast<size_t>(batch_size * model.config().vocab_size)) {
    for (int64_t i = 0; i < batch_size; ++i)
      sequences_.push_back(std::make_unique<runtime::Sequence>(model.new_sequence()));
  }

  void fill(const BenchCase& one) {
    if (one.depth == 0) return;
    if (one.is_depth_prefilled) {
      std::vector<std::vector<int32_t>> ids;
      model_.forward(items_of(one.depth, ids));
      return;
    }
    for (const auto& sequence : sequences_) {
      throw_if_interrupted();
      fill_with_random_rows(*sequence, one.depth, model_.team());
    }
  }

  void prefill(int64_t n_tokens) {
    std::vector<std::vector<int32_t>> ids;
    const std::vector<runtime::BatchItem> items = items_of(n_tokens, ids);
    model_.last_logits(items, logits());
    choose();
  }

  void decode_one() {
    throw_if_interrupted();
    std::vector<runtime::BatchItem> items;
    for (size_t i = 0; i < sequences_.size(); ++i)
      items.push_back({sequences_[i].get(), std::span(&next_[i], 1), 0, runtime::Phase::kDecode});
    model_.last_logits(items, logits());
    choose();
  }

 private:
  std::vector<runtime::BatchItem> items_of(int64_t n_tokens,
                                           std::vector<std::vector<int32_t>>& ids) {
    std::vector<runtime::BatchItem> items;
    for (size_t i = 0; i < sequences_.size(); ++i)
      ids.push_back(spread_ids(n_tokens, model_.config().vocab_size, static_cast<int64_t>(i)));
    for (size_t i = 0; i < sequences_.size(); ++i)
      items.push_back({sequences_[i].get(), ids[i], 0});
    return items;
  }

  quant::MatrixF32 logits() {
    return {logits_.data(), static_cast<int64_t>(sequences_.size()), model_.config().vocab_size,
            model_.config().vocab_size};
  }

  void choose() {
    const auto vocab_size = static_cast<size_t>(model_.config().vocab_size);
    next_.clear();
    for (size_t i = 0; i < sequences_.size(); ++i)
      next_.push_back(runtime::argmax(std::span(logits_).subspan(i * vocab_size, vocab_size)));
  }

  runtime::Model& model_;
  std::vector<std::unique_ptr<runtime::Sequence>> sequences_;
  std::vector<float> logits_;
  std::vector<int32_t> next_;
};

/// Seconds that operations take at the measured peaks; 0 where one is not known.
double seconds_at_peak(const runtime::ModelCosts::Operations& operations,
                       const quant::MachineLimits& limits) {
  using quant::LimitKind;
  double seconds = 0;
  for (const auto& [amount, kind] :
       {std::pair{operations.int8, LimitKind::kInt8}, std::pair{operations.bf16, LimitKind::kBf16},
        std::pair{operations.f32, LimitKind::kF32}}) {
    const double gops = limits.best_gops(kind);
    if (amount > 0 && gops <= 0) return 0;
    if (amount > 0) seconds += amount / (gops * 1e9);
  }
  return seconds;
}

runtime::ModelCosts::Operations operations_of(const runtime::ModelCosts::Operations& layers,
                                              double n_tokens,
                                              const runtime::ModelCosts::Operations& head,
                                              double n_rows) {
  return {n_tokens * layers.int8 + n_rows * head.int8, n_tokens * layers.bf16 + n_rows * head.bf16,
          n_tokens * layers.f32 + n_rows * head.f32};
}

/// null where there is nothing to say, as JSON has no infinity.
formats::Json number_or_null(double value) {
  return std::isfinite(value) && value > 0 ? formats::Json(value) : formats::Json();
}

void add_prefill(const BenchCase& one, const BenchTimes& measured, const runtime::ModelCosts& costs,
                 const quant::MachineLimits& limits, formats::Json& row) {
  const auto batch = static_cast<double>(one.batch_size);
  const auto n_tokens = static_cast<double>(one.prefill_tokens);
  double attention = 0;
  for (int64_t i = 0; i < one.prefill_tokens; ++i)
    attention += costs.attention_operations(one.depth + i);
  const auto linear = operations_of(costs.layers(), batch * n_tokens, costs.head(), batch);
  row["first_token_ms"] = measured.first_token_s * 1e3;
  row["prefill_tokens_per_s"] = batch * n_tokens / measured.first_token_s;
  row["prefill_linear_operations_per_token"] = linear.total() / (batch * n_tokens);
  row["prefill_attention_operations_per_token"] = attention / n_tokens;
  row["share_of_peak"] = number_or_null(seconds_at_peak(linear, limits) / measured.first_token_s);
}

void add_decode(const BenchCase& one, const BenchTimes& measured, const runtime::ModelCosts& costs,
                const quant::MachineLimits& limits, formats::Json& row) {
  const auto batch = static_cast<double>(one.batch_size);
  const auto n_steps = static_cast<double>(one.decode_tokens);
  double kv = 0;
  double attention = 0;
  for (int64_t i = 0; i < one.decode_tokens; ++i) {
    const int64_t position = one.depth + one.prefill_tokens + i;
    kv += costs.kv_bytes(position);
    attention += costs.attention_operations(position);
  }
  const double bytes = n_steps * costs.weight_bytes(one.batch_size) + batch * kv;
  const auto linear = operations_of(costs.layers(), 1, costs.head(), 1);
  const bool any = one.decode_tokens > 0;
  const double per_step = measured.decode_s / n_steps;
  row["decode_ms_per_token"] = any ? formats::Json(per_step * 1e3) : formats::Json();
  row["decode_tokens_per_s"] = any ? formats::Json(batch / per_step) : formats::Json();
  row["decode_weight_bytes_per_step"] = costs.weight_bytes(one.batch_size);
  row["decode_bytes_per_token"] = any ? formats::Json(bytes / (n_steps * batch)) : formats::Json();
  row["decode_operations_per_token"] =
      linear.total() + (any ? attention / n_steps : costs.attention_operations(one.depth));
  row["share_of_bandwidth"] =
      any ? number_or_null(bytes / (limits.read_gb_per_s * 1e9) / measured.decode_s)
          : formats::Json();
}

}  // namespace

std::vector<BenchCase> parse_case_pairs(const std::string& text) {
  const formats::Json list = formats::parse_json(text, "--case_pair");
  std::vector<BenchCase> cases;
  const auto is_count = [](const formats::Json& value, int64_t least) {
    return value.is_number_integer() && value.get<int64_t>() >= least &&
           value.get<int64_t>() <= 1 << 24;
  };
  for (const formats::Json& pair : list) {
    if (!pair.is_array() || pair.size() != 2 || !is_count(pair[0], 1) || !is_count(pair[1], 0)) {
      throw formats::usage_error("--case_pair: wants [[prefill tokens, decode tokens], ...], not " +
                                 text);
    }
    cases.push_back({pair[0].get<int64_t>(), pair[1].get<int64_t>()});
  }
  if (cases.empty()) throw formats::usage_error("--case_pair: the list is empty");
  return cases;
}

BenchTimes run_bench_case(runtime::Model& model, const BenchCase& one) {
  Run run(model, one.batch_size);
  run.fill(one);
  BenchTimes measured;
  const auto start = Clock::now();
  run.prefill(one.prefill_tokens);
  measured.first_token_s = seconds_since(start);
  const auto decode_start = Clock::now();
  for (int64_t i = 0; i < one.decode_tokens; ++i) run.decode_one();
  if (one.decode_tokens > 0) measured.decode_s = seconds_since(decode_start);
  return measured;
}

formats::Json bench_row(const runtime::Model& model, const BenchCase& one,
                        const BenchTimes& measured, const BenchContext& context) {
  const runtime::ModelCosts costs(model);
  const quant::MachineLimits& limits = context.limits;
  runtime::Sequence sequence = model.new_sequence();
  formats::Json row = {
      {"model", context.name},
      {"quantize", model.config().quantize.empty() ? "float" : model.config().quantize},
      {"kv", formats::dtype_name(sequence.cache().layout().dtype)},
      {"instruction_set", quant::isa_name(quant::active_isa())},
      {"threads", model.n_threads()},
      {"prefill_tokens", one.prefill_tokens},
      {"decode_tokens", one.decode_tokens},
      {"depth", one.depth},
      {"batch_size", one.batch_size}};
  add_prefill(one, measured, costs, limits, row);
  add_decode(one, measured, costs, limits, row);
  row["int8_peak_gops"] = number_or_null(limits.best_gops(quant::LimitKind::kInt8));
  row["bf16_peak_gflops"] = number_or_null(limits.best_gops(quant::LimitKind::kBf16));
  row["fp32_peak_gflops"] = number_or_null(limits.best_gops(quant::LimitKind::kF32));
  row["read_gb_per_s"] = number_or_null(limits.read_gb_per_s);
  row["load_s"] = context.load.seconds;
  row["load_gb_per_s"] = static_cast<double>(context.load.size_bytes) * 1e-9 / context.load.seconds;
  return row;
}

}  // namespace llmq::convert
