#include "runtime/calibrate/layer_statistics.h"

#include <fmt/format.h>

#include <utility>

#include "formats/error.h"
#include "runtime/attention/rope.h"

namespace llmq::runtime {
LayerStatisticsObserver::LayerStatisticsObserver(std::string place,
                                                 const formats::ModelConfig& config,
                                                 LayerWants wants, quant::ThreadTeam& team)
    : place_(std::move(place)), wants_(std::move(wants)), team_(team) {
  if (wants_.kv_cache) {
    const RopeFrequencies rope = rope_frequencies(config);
    kv_cache_.emplace(quant::KvHeads{config.n_kv_heads, config.head_dim, rope.rotary_dim(),
                                     rope.inv_freq, max_positions(config)});
  }
  if (wants_.attention) attention_.emplace(config.n_heads, config.n_kv_heads, config.head_dim);
}

LayerObserver LayerStatisticsObserver::observer() {
  LayerObserver observer;
  observer.linear_input = [this](const LinearInput& input) { see_linear(input); };
  if (wants_.kv_cache || wants_.attention)
    observer.attention_input = [this](const AttentionInput& input) { see_attention(input); };
  return observer;
}

void LayerStatisticsObserver::see_linear(const LinearInput& input) {
  const ObservedGroup id{input.group, input.expert};
  n_rows_[id] += input.x.n_rows;
  try {
    if (wants_.ranges)
      ranges_.try_emplace(id, wants_.histograms).first->second.observe(input.x, team_);
    if (wants_.gram && wants_.gram(id)) grams_[id].observe(input.x, team_);
  } catch (const formats::Error& error) {
    throw error.with_context(
        fmt::format("calibration, {}input of {}{}", place_, formats::fused_group_name(id.group),
                    id.expert < 0 ? "" : fmt::format(" of expert {}", id.expert)));
  }
}

void LayerStatisticsObserver::see_attention(const AttentionInput& input) {
  try {
    if (kv_cache_) kv_cache_->observe({input.k, input.v, input.positions});
    if (attention_) attention_->observe({input.q, input.k, input.v}, team_);
  } catch (const formats::Error& error) {
    throw error.with_context(fmt::format("calibration, {}attention", place_));
  }
}

LayerStatistics LayerStatisticsObserver::statistics() const {
  LayerStatistics result;
  result.n_rows = n_rows_;
  for (const auto& [id, observer] : ranges_) result.ranges.emplace(id, observer.statistics());
  for (const auto& [id, observer] : grams_) result.grams.emplace(id, observer.gram());
  if (kv_cache_) result.attention.kv = kv_cache_->statistics();
  if (attention_) result.attention.fa = attention_->statistics();
  return result;
}

}  // namespace llmq::runtime
