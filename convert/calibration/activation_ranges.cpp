#include "convert/calibration/activation_ranges.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "convert/interrupt.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "runtime/attention/rope.h"
#include "runtime/calibrate/calibrator.h"

namespace llmq::convert {
namespace {

using formats::Json;
using quant::ActMethod;

/// Samples that disable_level looks at, as the vendor's tool does.
constexpr size_t kFirstSamples = 5;

/// The rule of an entry whose activations are quantized statically, or null.
const RecipeRule* static_rule(const LedgerEntry& entry) {
  for (const OutputModule& output : entry.outputs) {
    if (formats::has_tensor(output.rule.scheme, ".input_scale")) return &output.rule;
  }
  return nullptr;
}

GroupKey key_of(const LedgerEntry& entry) {
  return {entry.layer, entry.group, entry.expert};
}

std::string path_or(const std::filesystem::path& path, std::string_view fallback) {
  return path.empty() ? std::string(fallback) : path.string();
}

void check_loaded(const CalibrationStatistics& statistics, const Recipe& recipe,
                  const std::string& file) {
  const bool lacks_histogram =
      needs_histogram(recipe) &&
      std::any_of(statistics.groups.begin(), statistics.groups.end(),
                  [](const auto& group) { return !group.second.histogram.has_value(); });
  if (lacks_histogram) {
    throw formats::usage_error(fmt::format(
        "{}: holds no histograms, which act_method {} needs; calibrate again with "
        "-act_method {} --save-stats",
        file, static_cast<int>(recipe.act_method), static_cast<int>(recipe.act_method)));
  }
  if (recipe.disable_level > 0 && statistics.first_samples.empty()) {
    throw formats::usage_error(
        fmt::format("{}: was saved without -disable_level, which needs the spread of the first "
                    "samples; calibrate again with -disable_level L{} --save-stats",
                    file, recipe.disable_level));
  }
}

void set_model(const formats::ModelConfig& config, CalibrationStatistics& statistics) {
  statistics.model_type = config.model_type;
  statistics.n_layers = config.n_layers;
  statistics.hidden_size = config.hidden_size;
  statistics.intermediate_size = config.intermediate_size;
}

runtime::Tokenizer load_tokenizer(const std::filesystem::path& source) {
  try {
    return runtime::Tokenizer::load(source);
  } catch (const formats::Error& error) {
    throw error.with_context("calibration reads texts with the model's tokenizer");
  }
}

/// max|x| / std of what the linears of each group read on the first samples.
std::map<GroupKey, double> first_samples_spread(const std::vector<std::vector<int32_t>>& windows,
                                                const FolderPlan& plan, bool is_fast,
                                                quant::ThreadTeam& team, Console& console) {
  const auto n_first = static_cast<std::ptrdiff_t>(std::min(kFirstSamples, windows.size()));
  std::vector<std::vector<int32_t>> first(windows.begin(), windows.begin() + n_first);
  int64_t n_tokens = 0;
  for (const std::vector<int32_t>& window : first) n_tokens += static_cast<int64_t>(window.size());
  runtime::Calibrator calibrator(float_source(plan), std::move(first),
                                 {.with_histogram = false,
                                  .keeps_inputs = false,
                                  .on_tokens = show_progress(console, "choosing layers",
                                                             n_tokens * (plan.config.n_layers + 1)),
                                  .is_fast = is_fast},
                                 team);
  std::map<GroupKey, double> spread;
  for (int64_t layer = 0; layer < plan.config.n_layers; ++layer) {
    for (const auto& [group, seen] : calibrator.advance())
      spread[{layer, group.group, group.expert}] = seen.max_over_std();
  }
  for (const auto& [group, seen] : calibrator.head())
    spread[{-1, group.group}] = seen.max_over_std();
  console.end_progress();
  return spread;
}

}  // namespace

bool needs_histogram(const Recipe& recipe) {
  return recipe.act_method != ActMethod::kMinMax;
}

std::function<void(int64_t)> show_progress(Console& console, std::string_view what,
                                           int64_t n_total) {
  return [&console, what, n_total, n_done = int64_t{0}](int64_t n_tokens) mutable {
    throw_if_interrupted();
    n_done += n_tokens;
    console.progress(what, static_cast<uint64_t>(n_done), static_cast<uint64_t>(n_total),
                     ProgressUnit::kTokens);
  };
}

runtime::WeightSource float_source(const FolderPlan& plan) {
  return {&plan.source, &plan.config, nullptr};
}

Json CalibrationInput::fingerprint() const {
  uLong checksum = crc32(0, nullptr, 0);
  for (const std::vector<int32_t>& window : windows) {
    checksum = crc32_z(checksum, reinterpret_cast<const Bytef*>(window.data()),
                       window.size() * sizeof(int32_t));
  }
  if (is_loaded) {
    const std::string loaded = statistics_json(statistics).dump();
    checksum = crc32_z(checksum, reinterpret_cast<const Bytef*>(loaded.data()), loaded.size());
  }
  Json print = {{"texts", statistics.texts},
                {"samples", statistics.n_samples},
                {"tokens", statistics.n_tokens},
                {"checksum", checksum},
                {"from_statistics", is_loaded}};
  if (!statistics.fast_order.empty()) print["fast_calibration"] = statistics.fast_order;
  return print;
}

Json CalibrationInput::report() const {
  Json report = {{"texts", statistics.texts},
                 {"samples", statistics.n_samples},
                 {"tokens", statistics.n_tokens},
                 {"from_statistics", is_loaded}};
  if (!statistics.fast_order.empty()) report["fast_calibration"] = statistics.fast_order;
  return report;
}

CalibrationInput open_calibration(const FolderJob& job, const FolderPlan& plan, Console& console) {
  CalibrationInput input;
  if (!job.calibration.load_statistics.empty()) {
    input.is_loaded = true;
    input.statistics = read_statistics(job.calibration.load_statistics, plan.config);
    check_loaded(input.statistics, plan.recipe, job.calibration.load_statistics.string());
    console.info(fmt::format("activation ranges from {} ({}, {} samples)",
                             job.calibration.load_statistics.string(), input.statistics.texts,
                             input.statistics.n_samples));
    return input;
  }
  const CalibrationTexts texts = job.calibration.texts.empty()
                                     ? builtin_calibration()
                                     : read_calibration_file(job.calibration.texts);
  input.windows = calibration_windows(texts, load_tokenizer(job.source),
                                      runtime::max_positions(plan.config), job.calibration.options);
  input.statistics.texts = texts.name;
  input.statistics.n_samples = static_cast<int64_t>(input.windows.size());
  for (const std::vector<int32_t>& window : input.windows)
    input.statistics.n_tokens += static_cast<int64_t>(window.size());
  set_model(plan.config, input.statistics);
  if (job.calibration.is_fast) {
    const bool has_tiles = quant::gemm_bf16_implementation(quant::active_isa()) == quant::Isa::kAmx;
    input.statistics.fast_order = has_tiles ? "tiles" : "lanes";
  }
  console.info(fmt::format("calibrating on {}: {} samples, {} tokens",
                           path_or(job.calibration.texts, texts.name + " (built in)"),
                           input.statistics.n_samples, input.statistics.n_tokens));
  return input;
}

namespace {

struct WidthCandidate {
  double spread;
  std::string module;
};

/// The linears that disable_level and disable_threshold may choose from, widest inputs first.
std::vector<WidthCandidate> width_candidates(const CalibrationStatistics& statistics,
                                             const FolderPlan& plan, const Recipe& recipe) {
  std::vector<WidthCandidate> candidates;
  const auto& patterns = recipe.disable_candidates;
  for (const LedgerEntry& entry : plan.ledger.entries) {
    const auto spread = statistics.first_samples.find(key_of(entry));
    const bool is_candidate =
        patterns.empty() ||
        std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
          return matches_pattern(pattern, entry.module) ||
                 matches_pattern(pattern, formats::table_name(plan.config, entry.module));
        });
    if (is_candidate && static_rule(entry) != nullptr && spread != statistics.first_samples.end())
      candidates.push_back({spread->second, entry.module});
  }
  std::stable_sort(
      candidates.begin(), candidates.end(),
      [](const WidthCandidate& a, const WidthCandidate& b) { return a.spread > b.spread; });
  return candidates;
}

/// How many of the candidates exceed their mean by `threshold` standard deviations.
size_t count_above(const std::vector<WidthCandidate>& candidates, double threshold) {
  double sum = 0.0;
  double squares = 0.0;
  for (const WidthCandidate& candidate : candidates) sum += candidate.spread;
  const auto n = static_cast<double>(std::max<size_t>(1, candidates.size()));
  const double mean = sum / n;
  for (const WidthCandidate& candidate : candidates)
    squares += (candidate.spread - mean) * (candidate.spread - mean);
  const double limit = mean + threshold * std::sqrt(squares / n);
  const auto above = std::find_if(candidates.begin(), candidates.end(),
                                  [&](const auto& candidate) { return candidate.spread <= limit; });
  return static_cast<size_t>(above - candidates.begin());
}

}  // namespace

void keep_widest_float(CalibrationInput& calibration, const FolderPlan& plan,
                       quant::ThreadTeam& team, Console& console, Recipe& recipe) {
  CalibrationStatistics& statistics = calibration.statistics;
  if (!calibration.is_loaded)
    statistics.first_samples =
        first_samples_spread(calibration.windows, plan, calibration.is_fast(), team, console);
  std::vector<WidthCandidate> candidates = width_candidates(statistics, plan, recipe);
  auto n_kept = static_cast<size_t>(recipe.disable_level);
  if (recipe.disable_threshold > 0)
    n_kept = std::max(n_kept, count_above(candidates, recipe.disable_threshold));
  candidates.resize(std::min(candidates.size(), n_kept));
  for (const WidthCandidate& candidate : candidates) {
    console.info(fmt::format("{} stays float: max|x|/std of its inputs is {:.1f}", candidate.module,
                             candidate.spread));
    recipe.keep_float.push_back(candidate.module);
  }
  recipe.disable_level = 0;
  recipe.disable_threshold = 0.0;
  recipe.disable_candidates.clear();
}

}  // namespace llmq::convert
