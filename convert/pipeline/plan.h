#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/pipeline/ledger.h"
#include "convert/pipeline/output_layout.h"
#include "convert/pipeline/quantize_folder.h"
#include "formats/checkpoint.h"
#include "formats/json.h"
#include "formats/model_config.h"

namespace llmq::convert {

/// Everything that is decided before the first weight is read.
struct FolderPlan {
  formats::Json config_document;
  formats::ModelConfig config;
  formats::Checkpoint source;
  Recipe recipe;
  Ledger ledger;
  OutputNaming naming;
};

/// Opens the source and decides about every tensor from headers alone. Errors as Checkpoint::open,
/// parse_model_config and make_ledger.
FolderPlan make_folder_plan(const FolderJob& job);

/// What a plan alone cannot decide or does not do, in sentences: the ledger's warnings, the
/// recipe's caveat, and a disable_level, which only a calibration run resolves.
std::vector<std::string> plan_warnings(const FolderPlan& plan);

/// Tensor-parallel sizes from 1 to 64 at which everything that the ledger writes can be cut without
/// padding it: KV heads may be replicated, query heads are padded within their group.
std::vector<int64_t> legal_tp_sizes(const FolderPlan& plan);

/// Bytes of private memory that a run needs at most: its block buffers, what every run has, for
/// recipes that calibrate the activations of a typical set of texts, for those that smooth or
/// rotate float32 copies of a layer's linears, and for GPTQ the second moments of a layer's inputs.
uint64_t expected_peak_memory_bytes(const FolderPlan& plan, int n_threads);

/// Seconds that a run takes on a common machine, to a factor of a few.
double expected_seconds(const FolderPlan& plan, int n_threads);

/// The `tensors` list of plan and report: each source tensor with fate, scheme, sizes and outputs.
formats::Json ledger_json(const Ledger& ledger);

}  // namespace llmq::convert
