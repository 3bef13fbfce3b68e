#include "convert/pipeline/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "convert/pipeline/stream.h"
#include "formats/dialect.h"
#include "formats/slicing.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "runtime/calibrate/calibrator.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::Scheme;

Recipe float_recipe() {
  Recipe recipe;
  recipe.name = "float";
  recipe.summary = "all weights stay float";
  return recipe;
}

OutputNaming naming_of(const FolderJob& job, const Recipe& recipe) {
  OutputNaming naming;
  naming.part_size_bytes = job.part_size_bytes;
  naming.stem = job.recipe ? "quant_model_weight_" +
                                 std::string(formats::scheme_row(recipe.main_scheme()).quantize)
                           : "model";
  return naming;
}

/// Tokens of a calibration set of the usual size: 50 to 240 short samples.
constexpr int64_t kTypicalCalibrationTokens = 24'000;

/// Hidden states of all tokens, the matrices of one batch between the linears of a layer, and the
/// scratch of gemm_bf16 for its widest inputs.
uint64_t calibration_bytes(const formats::ModelConfig& config) {
  const int64_t heads = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim;
  const int64_t row = 2 * config.hidden_size + 2 * heads + 2 * config.intermediate_size;
  const int64_t widest =
      std::max({config.hidden_size, config.intermediate_size, config.n_heads * config.head_dim});
  return sizeof(float) * static_cast<uint64_t>(kTypicalCalibrationTokens * config.hidden_size +
                                               runtime::Calibrator::kRowsPerBatch * row) +
         static_cast<uint64_t>(quant::kBf16ScratchBytesPerChannel * widest);
}

/// Rows and channels of linears, layer by layer.
using LayerExtents = std::map<int64_t, uint64_t>;

uint64_t largest_of(const LayerExtents& layers) {
  uint64_t largest = 0;
  for (const auto& [layer, size_bytes] : layers) largest = std::max(largest, size_bytes);
  return largest;
}

/// Float32 copies of the linears of a layer that smoothing and rotation change, a transposed one of
/// the largest, and the hidden states that the layer is run again from.
uint64_t draft_bytes(const FolderPlan& plan) {
  if (!plan.recipe.smooth && !plan.recipe.rotate) return 0;
  LayerExtents layers;
  uint64_t largest_linear = 0;
  for (const LedgerEntry& entry : plan.ledger.entries) {
    const bool is_changed = entry.layer >= 0 && entry.expert < 0 &&
                            entry.group != formats::FusedGroup::kNone &&
                            entry.source->shape.size() == 2;
    if (!is_changed) continue;
    const uint64_t size_bytes =
        sizeof(float) * static_cast<uint64_t>(formats::shape_elements(entry.source->shape));
    layers[entry.layer] += size_bytes;
    largest_linear = std::max(largest_linear, size_bytes);
  }
  return largest_of(layers) + (plan.recipe.rotate ? largest_linear : 0) +
         sizeof(float) * static_cast<uint64_t>(kTypicalCalibrationTokens * plan.config.hidden_size);
}

/// Gram matrices of a layer's inputs, float64 [k, k] each: once where they are summed and once
/// where they are kept, beside the batch that is added; then the factors, float32 [k, k] each, and
/// what the largest one is made in.
uint64_t gram_bytes(const FolderPlan& plan) {
  std::map<int64_t, std::map<std::pair<formats::FusedGroup, int64_t>, uint64_t>> layers;
  for (const LedgerEntry& entry : plan.ledger.entries) {
    const bool looks =
        std::any_of(entry.outputs.begin(), entry.outputs.end(), [](const OutputModule& output) {
          return output.rule.scheme != Scheme::kFloat && quant::looks_at_inputs(output.rule.method);
        });
    if (!looks || entry.fate == Fate::kAdded || entry.source->shape.size() != 2) continue;
    layers[entry.layer][{entry.group, entry.expert}] =
        static_cast<uint64_t>(entry.source->shape[1]);
  }
  LayerExtents totals;
  for (const auto& [layer, groups] : layers) {
    uint64_t squares = 0;
    uint64_t batches = 0;
    uint64_t widest = 0;
    for (const auto& [group, k] : groups) {
      squares += k * k;
      batches += k * static_cast<uint64_t>(runtime::Calibrator::kRowsPerBatch);
      widest = std::max(widest, k);
    }
    const uint64_t seen = 2 * sizeof(double) * squares + 2 * sizeof(float) * batches;
    const uint64_t factored =
        (sizeof(double) + sizeof(float)) * squares + 2 * sizeof(double) * widest * widest;
    totals[layer] = std::max(seen, factored);
  }
  return largest_of(totals);
}

}  // namespace

FolderPlan make_folder_plan(const FolderJob& job) {
  formats::Checkpoint source = formats::Checkpoint::open(job.source);
  const std::filesystem::path config_path = job.source / "config.json";
  FolderPlan plan{formats::read_json_file(config_path), {}, std::move(source), {}, {}, {}};
  plan.config = formats::parse_model_config(plan.config_document, config_path.string());
  plan.config.bare_names = formats::has_bare_names(plan.source);
  plan.recipe = job.recipe.value_or(float_recipe());
  LedgerOptions options = job.ledger;
  if (!options.dtype) options.dtype = plan.recipe.dtype;
  plan.ledger = make_ledger(plan.source, plan.config, plan.recipe, options);
  plan.naming = naming_of(job, plan.recipe);
  return plan;
}

std::vector<std::string> plan_warnings(const FolderPlan& plan) {
  std::vector<std::string> warnings = plan.ledger.warnings;
  if (!plan.recipe.caveat.empty()) warnings.push_back(plan.recipe.caveat);
  if (plan.recipe.needs_calibration() && plan.recipe.disable_level > 0) {
    warnings.push_back(fmt::format(
        "disable_level {}: calibration decides which linears these are; until then they are listed "
        "as quantized",
        plan.recipe.disable_level));
  }
  if (plan.recipe.needs_calibration() && plan.recipe.disable_threshold > 0) {
    warnings.push_back(
        "calibration decides which of the candidates stay float (disable_threshold); until then "
        "they are listed as quantized");
  }
  return warnings;
}

std::vector<int64_t> legal_tp_sizes(const FolderPlan& plan) {
  const formats::CutFinder finder(plan.config, formats::EmbeddingCut::kVocabulary);
  std::vector<formats::NamedCut> cuts;
  for (const LedgerEntry& entry : plan.ledger.entries) {
    for (const OutputModule& output : entry.outputs) {
      for (const OutputTensor& tensor : output.tensors) {
        const formats::LinearScheme scheme{tensor.scheme, output.rule.group_size};
        cuts.push_back({tensor.name, finder.find(tensor.name, tensor.shape, scheme)});
      }
    }
  }
  return formats::legal_tp_sizes(plan.config, cuts);
}

uint64_t expected_peak_memory_bytes(const FolderPlan& plan, int n_threads) {
  constexpr uint64_t kProgramBytes = uint64_t{24} << 20;
  constexpr uint64_t kBytesPerTensor = 4096;
  return kProgramBytes + stream_buffer_bytes(plan.ledger, n_threads) +
         plan.ledger.entries.size() * kBytesPerTensor +
         (plan.recipe.needs_calibration() ? calibration_bytes(plan.config) : 0) +
         draft_bytes(plan) + gram_bytes(plan);
}

double expected_seconds(const FolderPlan& plan, int n_threads) {
  // What common machines reach: rounding and writing, and float32 products of one thread.
  constexpr double kBytesPerSecond = 1.0e9;
  constexpr double kOperationsPerSecond = 5.0e10;
  double seconds = static_cast<double>(plan.ledger.source_bytes()) / kBytesPerSecond;
  if (!plan.recipe.needs_calibration()) return seconds;
  double layer_parameters = 0;
  for (const LedgerEntry& entry : plan.ledger.entries) {
    if (entry.layer >= 0)
      layer_parameters += static_cast<double>(formats::shape_elements(entry.source->shape));
  }
  seconds += 2 * layer_parameters * static_cast<double>(kTypicalCalibrationTokens) /
             (kOperationsPerSecond * n_threads);
  return seconds;
}

Json ledger_json(const Ledger& ledger) {
  Json tensors = Json::array();
  for (const LedgerEntry& entry : ledger.entries) {
    Json item = {{"name", entry.source->name},
                 {"fate", fate_name(entry.fate)},
                 {"dtype", formats::dtype_name(entry.source->dtype)},
                 {"shape", entry.source->shape},
                 {"size_bytes", entry.source->bytes.size()}};
    if (!entry.reason.empty()) item["reason"] = entry.reason;
    uint64_t output_bytes = 0;
    Json outputs = Json::array();
    for (const OutputModule& output : entry.outputs) {
      for (const OutputTensor& tensor : output.tensors) {
        const uint64_t size_bytes = formats::tensor_size_bytes(tensor.dtype, tensor.shape);
        output_bytes += size_bytes;
        outputs.push_back({{"name", tensor.name},
                           {"scheme", formats::scheme_row(tensor.scheme).tag},
                           {"dtype", formats::dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"size_bytes", size_bytes}});
      }
    }
    const Scheme scheme = entry.outputs.empty() ? Scheme::kFloat : entry.outputs.back().rule.scheme;
    item["scheme"] = formats::scheme_row(scheme).tag;
    item["output_bytes"] = output_bytes;
    item["outputs"] = std::move(outputs);
    tensors.push_back(std::move(item));
  }
  return tensors;
}

}  // namespace llmq::convert
