#include "convert/selection/select_layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>

#include "convert/pipeline/folder_report.h"
#include "convert/selection/choice.h"
#include "convert/selection/sensitivity.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::Json;

/// Sets of groups that are tried in one pass; each takes a copy of the hidden states.
constexpr size_t kTriesPerPass = 4;

bool is_quantized_linear(const LedgerEntry& entry) {
  return std::any_of(entry.outputs.begin(), entry.outputs.end(), [](const OutputModule& output) {
    const formats::SchemeRow& row = formats::scheme_row(output.rule.scheme);
    return row.is_linear && row.scheme != formats::Scheme::kFloat;
  });
}

uint64_t output_bytes(const LedgerEntry& entry) {
  uint64_t total = 0;
  for (const OutputModule& output : entry.outputs) {
    for (const OutputTensor& tensor : output.tensors)
      total += formats::tensor_size_bytes(tensor.dtype, tensor.shape);
  }
  return total;
}

/// The module; of an expert, a pattern for this module of all experts of the layer.
std::string keep_pattern(const LedgerEntry& entry) {
  if (entry.expert < 0) return entry.module;
  const std::string number = fmt::format(".{}.", entry.expert);
  std::string pattern = entry.module;
  return pattern.replace(pattern.rfind(number), number.size(), ".*.");
}

using GroupMap = std::map<std::pair<int64_t, formats::FusedGroup>, SelectionGroup>;

/// The groups of decoder layers that the plan quantizes, without their sizes in float.
GroupMap quantized_groups(const FolderPlan& plan) {
  GroupMap groups;
  for (const LedgerEntry& entry : plan.ledger.entries) {
    if (entry.layer < 0 || !is_quantized_linear(entry)) continue;
    const formats::FusedGroup id = selection_group(entry.group);
    SelectionGroup& group = groups[{entry.layer, id}];
    group.layer = entry.layer;
    group.group = id;
    std::string pattern = keep_pattern(entry);
    if (std::find(group.modules.begin(), group.modules.end(), pattern) == group.modules.end())
      group.modules.push_back(std::move(pattern));
  }
  return groups;
}

void keep_float(Recipe& recipe, const SelectionGroup& group) {
  recipe.keep_float.insert(recipe.keep_float.end(), group.modules.begin(), group.modules.end());
}

/// Everything that may stay float, by layer and group, with its sizes from ledgers of both kinds.
std::vector<SelectionGroup> selection_groups(const FolderJob& job, const FolderPlan& plan) {
  GroupMap groups = quantized_groups(plan);
  if (groups.empty()) {
    throw formats::usage_error(fmt::format(
        "--target-bits, --max-kl: recipe {} quantizes no linear of a decoder layer of this model",
        plan.recipe.name));
  }
  FolderJob all_float = job;
  for (const auto& [id, group] : groups) keep_float(*all_float.recipe, group);
  const auto add_sizes = [&](const Ledger& ledger, uint64_t SelectionGroup::*size) {
    for (const LedgerEntry& entry : ledger.entries) {
      const auto group = groups.find({entry.layer, selection_group(entry.group)});
      if (group != groups.end()) group->second.*size += output_bytes(entry);
    }
  };
  add_sizes(plan.ledger, &SelectionGroup::bytes_quantized);
  add_sizes(make_folder_plan(all_float).ledger, &SelectionGroup::bytes_float);
  std::vector<SelectionGroup> list;
  for (auto& [id, group] : groups) list.push_back(std::move(group));
  return list;
}

/// Sizes in bits per weight, as reports have them.
class BitCount {
 public:
  explicit BitCount(const Ledger& ledger)
      : n_parameters_(static_cast<double>(std::max<int64_t>(1, parameter_count(ledger)))),
        bytes_quantized_(static_cast<int64_t>(ledger.output_bytes())) {}

  /// Of the folder, with so many bytes more than where everything is quantized.
  [[nodiscard]] double bits(int64_t extra_bytes) const {
    return 8.0 * static_cast<double>(bytes_quantized_ + extra_bytes) / n_parameters_;
  }

  /// The most bytes beside bytes_quantized with which bits() is at most `target`.
  [[nodiscard]] int64_t budget(double target) const {
    constexpr double kMostBytes = 0x1p62;
    const double bytes = std::floor(std::min(kMostBytes, target * n_parameters_ / 8.0));
    int64_t extra = static_cast<int64_t>(bytes) - bytes_quantized_;
    // The product may be off by its last bit.
    if (bits(extra) > target) --extra;
    if (bits(extra + 1) <= target) ++extra;
    return extra;
  }

 private:
  double n_parameters_;
  int64_t bytes_quantized_;
};

int64_t extra_bytes(std::span<const SelectionGroup> groups, const std::vector<bool>& kept) {
  int64_t total = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (kept[i]) total += groups[i].extra_bytes();
  }
  return total;
}

/// What was decided, and the KL where it was measured.
struct Choice {
  std::vector<bool> kept;  ///< of each group
  std::optional<double> kl;
};

/// The first `n` groups in order_of_keeping.
std::vector<bool> first_kept(std::span<const SelectionGroup> groups, size_t n) {
  const std::vector<size_t> order = order_of_keeping(groups);
  std::vector<bool> kept(groups.size(), false);
  for (size_t i = 0; i < n; ++i) kept[order[i]] = true;
  return kept;
}

FloatGroups ids_of(std::span<const SelectionGroup> groups, const std::vector<bool>& kept) {
  FloatGroups ids;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (kept[i]) ids.insert({groups[i].layer, groups[i].group});
  }
  return ids;
}

/// The fewest leading groups with which the KL is at most `max_kl`; `kl_quantized` is the KL with
/// none. With all of them the layers are the float model's.
Choice choose_by_kl(std::span<const SelectionGroup> groups, double max_kl, double kl_quantized,
                    SensitivityMeter& meter, Console& console) {
  if (kl_quantized <= max_kl) return {first_kept(groups, 0), kl_quantized};
  PrefixSearch search(groups.size());
  std::map<size_t, double> measured{{groups.size(), 0.0}};
  while (!search.is_done()) {
    const std::vector<size_t> tried = search.next(kTriesPerPass);
    std::vector<FloatGroups> sets;
    sets.reserve(tried.size());
    for (const size_t n : tried) sets.push_back(ids_of(groups, first_kept(groups, n)));
    const std::vector<double> kls = meter.divergences(sets);
    std::vector<bool> was_enough;
    for (size_t i = 0; i < tried.size(); ++i) {
      measured[tried[i]] = kls[i];
      was_enough.push_back(kls[i] <= max_kl);
      console.info(
          fmt::format("{} of {} groups float: KL {:.3g}", tried[i], groups.size(), kls[i]));
    }
    search.narrow(tried, was_enough);
  }
  return {first_kept(groups, search.n_enough()), measured.at(search.n_enough())};
}

/// Says what the measured KL leaves out of what will be written.
void warn_of_uncounted(const SelectionGoal& goal, const FolderPlan& plan, Console& console) {
  if (!goal.max_kl) return;
  const bool has_head = std::any_of(
      plan.ledger.entries.begin(), plan.ledger.entries.end(),
      [](const LedgerEntry& entry) { return entry.layer < 0 && is_quantized_linear(entry); });
  if (has_head)
    console.warn("--max-kl is measured with lm_head in float, which the recipe quantizes too");
  if (plan.recipe.attention != formats::Scheme::kFloat) {
    console.warn(
        "--max-kl is measured with keys and values in float, which the recipe quantizes too");
  }
}

void require_reachable(const SelectionGoal& goal, std::span<const SelectionGroup> groups,
                       const BitCount& count) {
  if (!goal.target_bits) return;
  const double least = count.bits(least_extra_bytes(groups));
  if (least <= *goal.target_bits) return;
  throw formats::usage_error(
      fmt::format("--target-bits {}: with everything quantized that the recipe quantizes, the "
                  "model has {:.4f} bits per weight, and not less",
                  *goal.target_bits, least));
}

void require_agreement(const SelectionGoal& goal, double bits) {
  if (!goal.target_bits || !goal.max_kl || bits <= *goal.target_bits) return;
  throw formats::usage_error(
      fmt::format("--max-kl {} takes {:.4f} bits per weight, more than --target-bits {} permits",
                  *goal.max_kl, bits, *goal.target_bits));
}

Json sensitivity_json(std::span<const SelectionGroup> groups, const std::vector<bool>& kept) {
  Json list = Json::array();
  for (size_t i = 0; i < groups.size(); ++i) {
    list.push_back({{"layer", groups[i].layer},
                    {"group", selection_group_name(groups[i].group)},
                    {"score", groups[i].score},
                    {"bytes_float", groups[i].bytes_float},
                    {"bytes_quantized", groups[i].bytes_quantized},
                    {"kept_float", static_cast<bool>(kept[i])}});
  }
  return list;
}

Json selection_json(const SelectionGoal& goal, const Choice& choice, double bits) {
  Json json = Json::object();
  if (goal.target_bits) json["target_bits"] = *goal.target_bits;
  if (goal.max_kl) json["max_kl"] = *goal.max_kl;
  json["groups"] = choice.kept.size();
  json["groups_kept_float"] = std::count(choice.kept.begin(), choice.kept.end(), true);
  json["bits_per_weight"] = bits;
  if (choice.kl) json["kl"] = *choice.kl;
  return json;
}

}  // namespace

Json select_layers(FolderJob& job, const FolderPlan& plan, const CalibrationInput& calibration,
                   const RunContext& context) {
  const SelectionGoal& goal = job.selection;
  std::vector<SelectionGroup> groups = selection_groups(job, plan);
  const BitCount count(plan.ledger);
  require_reachable(goal, groups, count);
  warn_of_uncounted(goal, plan, context.console);
  context.console.info(
      fmt::format("measuring what quantizing each of {} groups does", groups.size()));
  SensitivityMeter meter(plan, calibration, context);
  const double kl_quantized = meter.score(groups, goal.max_kl.has_value());
  const Choice choice =
      goal.max_kl ? choose_by_kl(groups, *goal.max_kl, kl_quantized, meter, context.console)
                  : Choice{choose_within(groups, count.budget(*goal.target_bits)), std::nullopt};
  const double bits = count.bits(extra_bytes(groups, choice.kept));
  require_agreement(goal, bits);
  for (size_t i = 0; i < groups.size(); ++i) {
    if (choice.kept[i]) keep_float(*job.recipe, groups[i]);
  }
  context.console.info(fmt::format(
      "{} of {} groups stay float: {:.4f} bits per weight{}",
      std::count(choice.kept.begin(), choice.kept.end(), true), groups.size(), bits,
      choice.kl ? fmt::format(", KL {:.3g} on the calibration samples", *choice.kl) : ""));
  Json selection = selection_json(goal, choice, bits);
  selection["measured_on"] = calibration.report();
  return {{"selection", std::move(selection)},
          {"sensitivity", sensitivity_json(groups, choice.kept)}};
}

}  // namespace llmq::convert
