#include "convert/pipeline/folder_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "convert/calibration/unit_preparer.h"
#include "quant/kernels/cpu.h"

namespace llmq::convert {

using formats::Json;

int64_t parameter_count(const Ledger& ledger) {
  int64_t total = 0;
  for (const LedgerEntry& entry : ledger.entries) {
    if (entry.fate != Fate::kAdded) total += formats::shape_elements(entry.source->shape);
  }
  return total;
}

namespace {

/// Experts of which some linear was calibrated from weights alone.
size_t count_experts_with_few_tokens(const FolderPlan& plan, const std::vector<Json>& results) {
  std::set<std::pair<int64_t, int64_t>> experts;
  for (size_t i = 0; i < results.size(); ++i) {
    const LedgerEntry& entry = plan.ledger.entries[i];
    if (results[i].contains("calibrated_from")) experts.emplace(entry.layer, entry.expert);
  }
  return experts.size();
}

}  // namespace

Json expert_report(const FolderPlan& plan, const std::vector<Json>& results) {
  std::map<int64_t, std::map<int64_t, Json>> tokens;
  Json few = Json::array();
  for (size_t i = 0; i < results.size(); ++i) {
    const LedgerEntry& entry = plan.ledger.entries[i];
    if (results[i].contains("calibration_tokens"))
      tokens[entry.layer][entry.expert] = results[i]["calibration_tokens"];
    if (results[i].contains("calibrated_from")) few.push_back(entry.module);
  }
  Json report = Json::object();
  for (const auto& [layer, experts] : tokens) {
    Json counts = Json::array();
    for (const auto& [expert, count] : experts) counts.push_back(count);
    report["expert_tokens"].push_back({{"layer", layer}, {"tokens", std::move(counts)}});
  }
  if (!few.empty()) report["experts_with_few_tokens"] = std::move(few);
  return report;
}

Json folder_report(const FolderJob& job, const FolderPlan& plan, const std::vector<Json>& results) {
  Json report = {{"llmq_version", LLMQ_VERSION},
                 {"instruction_set", quant::isa_name(quant::active_isa())},
                 {"threads", job.n_threads},
                 {"source", job.source.string()},
                 {"destination", job.destination.string()},
                 {"dry_run", job.dry_run},
                 {"recipe", recipe_json(plan.recipe)},
                 {"model_type", plan.config.model_type},
                 {"dtype", formats::torch_dtype_name(plan.ledger.model_dtype)},
                 {"warnings", plan.ledger.warnings}};
  const uint64_t output_bytes = plan.ledger.output_bytes();
  report["totals"] = {{"parameters", parameter_count(plan.ledger)},
                      {"source_bytes", plan.ledger.source_bytes()},
                      {"output_bytes", output_bytes},
                      {"bits_per_weight", 8.0 * static_cast<double>(output_bytes) /
                                              static_cast<double>(std::max<int64_t>(
                                                  1, parameter_count(plan.ledger)))}};
  if (job.dry_run)
    report["totals"]["expected_peak_memory_bytes"] =
        expected_peak_memory_bytes(plan, job.n_threads);
  report["tensors"] = ledger_json(plan.ledger);
  for (size_t i = 0; i < results.size(); ++i) {
    for (const auto& [key, value] : results[i].items()) report["tensors"][i][key] = value;
  }
  return report;
}

void add_run_figures(Json& report, double seconds, const MemorySampler& memory) {
  Json& totals = report["totals"];
  totals["seconds"] = seconds;
  totals["bytes_per_second"] = static_cast<uint64_t>(
      static_cast<double>(totals["source_bytes"].get<uint64_t>()) / std::max(seconds, 1e-9));
  totals["peak_memory_bytes"] = memory.peak().private_bytes;
  totals["peak_mapped_bytes"] = memory.peak().mapped_bytes;
}

void tell_warnings(const FolderPlan& plan, const std::vector<Json>& results, Console& console) {
  if (const size_t n_experts = count_experts_with_few_tokens(plan, results); n_experts > 0) {
    console.warn(fmt::format(
        "{} experts saw fewer than {} tokens in calibration and were calibrated from "
        "their weights alone; llmq_report.json names them, more texts reach more experts",
        n_experts, kFewestExpertTokens));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].contains("near_overflow")) continue;
    console.warn(
        fmt::format("tensor {} has {} values up to {:.6g}, {}", plan.ledger.entries[i].source->name,
                    results[i]["near_overflow"].get<int64_t>(), results[i]["absmax"].get<double>(),
                    results[i]["advice"].get<std::string>()));
  }
}

}  // namespace llmq::convert
