#include "convert/shard/quantize_shards.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "convert/pipeline/plan.h"
#include "convert/shard/shard_folder.h"
#include "convert/shard/shard_manifest.h"
#include "convert/shard/stored_layout.h"
#include "formats/description.h"
#include "formats/file.h"
#include "formats/scheme.h"
#include "formats/staging.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;

/// The manifest that the folder which a plan writes will have, as far as cutting depends on it.
ShardManifest expected_manifest(const FolderPlan& plan, const ShardOptions& options) {
  ShardManifest manifest;
  manifest.tp = options.tp;
  manifest.layout = options.layout;
  manifest.is_padded = options.pad;
  manifest.bare_names = plan.config.bare_names;
  formats::Description description;
  description.model_quant_type = formats::scheme_row(plan.recipe.main_scheme()).tag;
  description.group_size = plan.recipe.group_size();
  ManifestFile file{plan.naming.stem + ".safetensors", {}, {}};
  for (const OutputModule* output : plan.ledger.modules_in_order()) {
    for (const OutputTensor& tensor : output->tensors) {
      file.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0});
      description.tensors.emplace_back(tensor.name, formats::scheme_row(tensor.scheme).tag);
    }
  }
  manifest.files.push_back(std::move(file));
  manifest.originals["config.json"] = plan.config_document.dump();
  manifest.originals[std::string(formats::kDescriptionFile)] =
      formats::description_json(description).dump();
  return manifest;
}

fs::path unsharded_path(const fs::path& destination) {
  fs::path path = destination.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.parent_path() / ("." + path.filename().string() + ".llmq-unsharded");
}

/// A folder that is removed whatever happens.
class TemporaryResult {
 public:
  explicit TemporaryResult(fs::path path) : path_(std::move(path)) {}
  ~TemporaryResult() {
    std::error_code error;  // what cannot be removed is in nobody's way
    fs::remove_all(path_, error);
  }
  TemporaryResult(const TemporaryResult&) = delete;
  TemporaryResult& operator=(const TemporaryResult&) = delete;

 private:
  fs::path path_;
};

}  // namespace

formats::Json run_sharded_folder_job(const FolderJob& job, const ShardOptions& options,
                                     Console& console) {
  formats::check_destination(job.destination, job.source, job.force);
  {
    const FolderPlan plan = make_folder_plan(job);
    const ShardManifest manifest = expected_manifest(plan, options);
    make_stored_layout(manifest, make_shard_plan(manifest));
  }
  if (job.dry_run) return run_folder_job(job, console);
  FolderJob unsharded = job;
  unsharded.destination = unsharded_path(job.destination);
  unsharded.force = true;
  const TemporaryResult remover(unsharded.destination);
  formats::Json report = run_folder_job(unsharded, console);
  report["destination"] = job.destination.string();
  formats::write_text_file(unsharded.destination / "llmq_report.json", report.dump(2) + "\n");
  const ShardJob shard{unsharded.destination, job.destination, options.tp,   options.layout,
                       options.pad,           job.force,       job.n_threads};
  report["shards"] = run_shard_job(shard, console);
  return report;
}

}  // namespace llmq::convert
