#include "convert/calibration/unit_preparer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "formats/attention_tensors.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::Json;
using runtime::ObservedGroup;

ObservedGroup id_of(const LedgerEntry& entry) {
  return {entry.group, entry.expert};
}

/// The scheme that a linear's weights get, or null for a tensor that stays float.
const RecipeRule* quantizing_rule(const LedgerEntry& entry) {
  for (const OutputModule& output : entry.outputs) {
    const formats::SchemeRow& row = formats::scheme_row(output.rule.scheme);
    if (row.is_linear && row.scheme != formats::Scheme::kFloat) return &output.rule;
  }
  return nullptr;
}

bool has_static_activations(const RecipeRule* rule) {
  return rule != nullptr && formats::has_tensor(rule->scheme, ".input_scale");
}

}  // namespace

UnitPreparer::UnitPreparer(CalibrationInput& calibration, const FolderPlan& plan,
                           quant::ThreadTeam& team, Console& console)
    : calibration_(calibration),
      plan_(plan),
      team_(team),
      console_(console),
      transformer_(plan, team) {}

runtime::LayerWants UnitPreparer::wants(int64_t layer) const {
  runtime::LayerWants wants;
  std::set<ObservedGroup> fitted;
  for (const LedgerEntry& entry : plan_.ledger.entries) {
    if (entry.layer != layer) continue;
    const RecipeRule* rule = quantizing_rule(entry);
    if (rule != nullptr && quant::looks_at_inputs(rule->method)) fitted.insert(id_of(entry));
  }
  wants.ranges = plan_.recipe.has_static_activations();
  wants.histograms = needs_histogram(plan_.recipe);
  if (!fitted.empty())
    wants.gram = [fitted](const ObservedGroup& id) { return fitted.contains(id); };
  wants.kv_cache = plan_.recipe.attention == formats::Scheme::kC8;
  wants.attention = plan_.recipe.attention == formats::Scheme::kFaQuant;
  return wants;
}

void UnitPreparer::keep(int64_t layer, runtime::LayerStatistics seen) {
  for (const auto& [id, ranges] : seen.ranges)
    calibration_.statistics.groups[{layer, id.group, id.expert}] = ranges;
  for (const auto& [id, n_rows] : seen.n_rows) {
    if (id.expert >= 0) expert_tokens_[{layer, id.group, id.expert}] = n_rows;
  }
  seen_ = std::move(seen);
  seen_layer_ = layer;
}

/// Second moments of a layer are large: they make room before those of the next are gathered.
void UnitPreparer::forget() {
  seen_ = {};
  seen_layer_.reset();
  inputs_.clear();
}

/// True where nothing but ranges is wanted, which are kept for all layers.
bool UnitPreparer::keeps_ranges_alone() const {
  return !plan_.recipe.changes_weights() && plan_.recipe.attention == formats::Scheme::kFloat;
}

void UnitPreparer::begin_pass() {
  const int64_t n_looks = transformer_.is_needed() ? transformer_.passes_per_layer() : 1;
  const int64_t n_total = calibration_.statistics.n_tokens * plan_.config.n_layers * n_looks;
  calibrator_ = std::make_unique<runtime::Calibrator>(
      float_source(plan_), calibration_.windows,
      runtime::CalibratorOptions{.with_histogram = needs_histogram(plan_.recipe),
                                 .keeps_inputs = transformer_.is_needed(),
                                 .on_tokens = show_progress(console_, "calibrating", n_total),
                                 .is_fast = calibration_.is_fast()},
      team_);
}

void UnitPreparer::look_at_next_layer() {
  forget();
  const int64_t layer = calibrator_->next_layer();
  runtime::LayerStatisticsObserver observer(fmt::format("layer {}, ", layer), plan_.config,
                                            wants(layer), team_);
  const runtime::LayerWeights weights = calibrator_->next_weights();
  if (transformer_.is_needed()) {
    calibrator_->run_next(weights, {});
    transformer_.transform(weights, *calibrator_);
    calibrator_->look_back(transformer_.view(), observer.observer(),
                           transformer_.change_of_hidden());
  } else {
    calibrator_->run_next(weights, observer.observer());
  }
  keep(layer, observer.statistics());
}

/// Runs a layer that is not asked for: what it needs is looked at when it is.
void UnitPreparer::pass_next_layer() {
  if (keeps_ranges_alone()) {
    look_at_next_layer();
  } else {
    calibrator_->run_next(calibrator_->next_weights(), {});
  }
}

void UnitPreparer::look_at_head() {
  forget();
  runtime::LayerStatisticsObserver observer("", plan_.config, wants(-1), team_);
  calibrator_->show_head(observer.observer(), transformer_.change_of_hidden());
  keep(-1, observer.statistics());
}

/// Runs the model up to and including `layer` (-1: the head), which is looked at in full.
void UnitPreparer::run_layer(int64_t layer) {
  if (calibration_.is_loaded || seen_layer_ == layer) return;
  const bool is_past = calibrator_ != nullptr && layer >= 0 && calibrator_->next_layer() > layer;
  if (is_past && keeps_ranges_alone()) return;
  if (calibrator_ == nullptr || is_past) begin_pass();
  if (layer < 0) {
    while (calibrator_->next_layer() < plan_.config.n_layers) pass_next_layer();
    look_at_head();
    return;
  }
  while (calibrator_->next_layer() < layer) pass_next_layer();
  look_at_next_layer();
}

const UnitPreparation& UnitPreparer::prepare(std::span<const LedgerEntry> entries) {
  unit_ = {};
  unit_.entries.resize(entries.size());
  const int64_t layer = entries.empty() ? -1 : entries.front().layer;
  const bool needs_run = std::any_of(entries.begin(), entries.end(), [&](const auto& entry) {
    const RecipeRule* rule = quantizing_rule(entry);
    return entry.layer >= 0 || has_static_activations(rule) ||
           (rule != nullptr && quant::looks_at_inputs(rule->method));
  });
  if (needs_run) run_layer(layer);
  for (size_t i = 0; i < entries.size(); ++i) {
    try {
      prepare_entry(entries[i], unit_.entries[i]);
    } catch (const formats::Error& error) {
      throw error.with_context(entries[i].module);
    }
  }
  if (layer >= 0) {
    compute_attention(layer);
    unit_.transformations = transformer_.report();
  }
  return unit_;
}

void UnitPreparer::prepare_entry(const LedgerEntry& entry, EntryPreparation& preparation) {
  if (transformer_.is_needed()) transformer_.prepare_entry(entry, preparation);
  const RecipeRule* rule = quantizing_rule(entry);
  if (rule == nullptr) return;
  if (has_static_activations(rule)) set_activation(entry, *rule, preparation);
  if (quant::looks_at_inputs(rule->method)) set_inputs(entry, *rule, preparation);
}

void UnitPreparer::set_activation(const LedgerEntry& entry, const RecipeRule& rule,
                                  EntryPreparation& preparation) {
  const GroupKey key{entry.layer, entry.group, entry.expert};
  auto& ranges = calibration_.statistics.ranges;
  auto range = ranges.find(key);
  if (range == ranges.end()) {
    range = ranges
                .emplace(key, quant::choose_range(statistics_of(entry), plan_.recipe.act_method,
                                                  rule.activation_symmetric))
                .first;
  }
  preparation.activation =
      quant::activation_params(range->second, rule.activation_symmetric, plan_.ledger.model_dtype);
}

/// Tokens that an entry's expert read in calibration.
int64_t UnitPreparer::n_tokens_of(const LedgerEntry& entry) const {
  const GroupKey key{entry.layer, entry.group, entry.expert};
  if (const auto counted = expert_tokens_.find(key); counted != expert_tokens_.end())
    return counted->second;
  const auto& groups = calibration_.statistics.groups;
  const auto loaded = groups.find(key);
  return loaded == groups.end() ? 0 : loaded->second.n / entry.source->shape[1];
}

const quant::RangeStatistics& UnitPreparer::statistics_of(const LedgerEntry& entry) {
  if (entry.expert >= 0 && n_tokens_of(entry) < kFewestExpertTokens) {
    if (const quant::RangeStatistics* all = range_of_all_experts(entry)) return *all;
  }
  const auto& groups = calibration_.statistics.groups;
  const auto found = groups.find({entry.layer, entry.group, entry.expert});
  if (found != groups.end()) return found->second;
  throw formats::bad_input("the statistics hold nothing about its inputs; calibrate again");
}

/// What any expert of the layer read: the range that an expert with too few tokens is given. Null
/// where none read anything.
const quant::RangeStatistics* UnitPreparer::range_of_all_experts(const LedgerEntry& entry) {
  few_tokens_[entry.module] =
      "weights alone, with the activation range of all experts of the layer: too few tokens were "
      "routed to this expert";
  const auto& groups = calibration_.statistics.groups;
  quant::RangeStatistics& all = borrowed_[{entry.layer, entry.group, -1}];
  if (all.n > 0) return &all;
  float min = 0.0F;
  float max = 0.0F;
  for (const auto& [key, seen] : groups) {
    if (key.layer != entry.layer || key.group != entry.group || seen.n == 0) continue;
    min = std::min(min, seen.min);
    max = std::max(max, seen.max);
    if (all.n == 0 || seen.absmax() > all.absmax()) all = seen;
  }
  all.min = min;
  all.max = max;
  return all.n > 0 ? &all : nullptr;
}

void UnitPreparer::set_inputs(const LedgerEntry& entry, const RecipeRule& rule,
                              EntryPreparation& preparation) {
  const ObservedGroup id = id_of(entry);
  const auto gram = seen_.grams.find(id);
  const bool is_seen =
      gram != seen_.grams.end() && (entry.expert < 0 || gram->second.n_rows >= kFewestExpertTokens);
  if (!is_seen) {
    if (entry.expert >= 0) {
      few_tokens_.try_emplace(entry.module,
                              "weights alone: too few tokens were routed to this expert");
    }
    return;
  }
  auto [inputs, is_new] = inputs_.try_emplace(id);
  if (is_new) {
    inputs->second.gram = std::move(gram->second);
    inputs->second.factor = quant::gptq_factor(
        inputs->second.gram, {rule.method.activation_order, rule.group_size}, team_);
    gram->second = {};
    gram->second.n_rows = inputs->second.gram.n_rows;
  }
  preparation.inputs = &inputs->second;
}

void UnitPreparer::compute_attention(int64_t layer) {
  const formats::Scheme scheme = plan_.recipe.attention;
  if (scheme == formats::Scheme::kFloat) return;
  if (!seen_.attention.kv && !seen_.attention.fa) {
    throw formats::usage_error(
        "saved statistics hold no scales of keys and values; calibrate without --stats");
  }
  const formats::DType dtype = plan_.ledger.model_dtype;
  std::map<formats::AttentionOperand, std::vector<float>> scales;
  std::map<formats::AttentionOperand, std::vector<float>> offsets;  // those that are not zeros
  using enum formats::AttentionOperand;
  try {
    if (scheme == formats::Scheme::kC8) {
      quant::KvCacheScales kv = quant::kv_cache_scales(*seen_.attention.kv, dtype);
      scales[kKey] = std::move(kv.key);
      offsets[kKey] = std::move(kv.key_offset);
      scales[kValue] = std::move(kv.value);
    } else {
      quant::FaHeadScales heads = quant::fa_head_scales(*seen_.attention.fa, dtype);
      scales[kQuery] = std::move(heads.q);
      scales[kKey] = std::move(heads.k);
      scales[kValue] = std::move(heads.v);
    }
  } catch (const formats::Error& error) {
    throw error.with_context(fmt::format("layer {}, attention", layer));
  }
  for (const formats::AttentionTensor& tensor :
       formats::attention_tensors(plan_.config, scheme, layer, dtype)) {
    std::vector<float>& values = unit_.computed[tensor.name];
    values = scales.at(tensor.operand);
    if (tensor.is_scale) continue;
    const auto given = offsets.find(tensor.operand);
    if (given != offsets.end()) {
      values = given->second;
    } else {
      std::fill(values.begin(), values.end(), 0.0F);
    }
  }
}

void UnitPreparer::add_to_results(std::span<const LedgerEntry> entries, Json& results) const {
  for (size_t i = 0; i < entries.size(); ++i) {
    const EntryPreparation& preparation = unit_.entries.at(i);
    if (has_static_activations(quantizing_rule(entries[i]))) {
      const GroupKey key{entries[i].layer, entries[i].group, entries[i].expert};
      const quant::ActivationRange& range = calibration_.statistics.ranges.at(key);
      results[i]["input_min"] = range.min;
      results[i]["input_max"] = range.max;
      results[i]["act_method"] = static_cast<int>(range.chosen);
      results[i]["input_scale"] = preparation.activation.scale;
      results[i]["input_offset"] = preparation.activation.offset;
    }
    if (preparation.inputs != nullptr) {
      const quant::GptqFactor& factor = preparation.inputs->factor;
      results[i]["calibration_rows"] = preparation.inputs->gram.n_rows;
      if (factor.is_usable) {
        results[i]["damping"] = factor.damping;
        if (factor.n_dead > 0) results[i]["dead_channels"] = factor.n_dead;
      } else {
        results[i]["fallback"] = "rounded without GPTQ: " + factor.reason;
      }
    }
    if (entries[i].expert >= 0 && entries[i].source->shape.size() == 2)
      results[i]["calibration_tokens"] = n_tokens_of(entries[i]);
    if (const auto few = few_tokens_.find(entries[i].module); few != few_tokens_.end())
      results[i]["calibrated_from"] = few->second;
  }
}

}  // namespace llmq::convert
