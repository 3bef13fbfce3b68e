#include "convert/pipeline/quantize_folder.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <tuple>

#include "convert/calibration/activation_ranges.h"
#include "convert/calibration/unit_preparer.h"
#include "convert/interrupt.h"
#include "convert/pipeline/companions.h"
#include "convert/pipeline/folder_report.h"
#include "convert/pipeline/journal.h"
#include "convert/pipeline/output_layout.h"
#include "convert/pipeline/plan.h"
#include "convert/pipeline/recipe_checks.h"
#include "convert/pipeline/side_files.h"
#include "convert/pipeline/stream.h"
#include "convert/report/memory.h"
#include "convert/selection/select_layers.h"
#include "convert/verify/conformance.h"
#include "formats/description.h"
#include "formats/error.h"
#include "formats/staging.h"

namespace llmq::convert {
namespace {

using formats::Json;
namespace fs = std::filesystem;

/// Bytes of the source that the kernel is asked to read ahead of the unit being worked on.
constexpr uint64_t kPrefetchBytes = uint64_t{512} << 20;
/// Units are recorded in the journal when this much has been written since the last record: each
/// record waits for the disk.
constexpr uint64_t kRecordBytes = uint64_t{1} << 30;

/// Everything that decides the bytes written.
Json fingerprint(const FolderJob& job, const FolderPlan& plan,
                 const CalibrationInput* calibration) {
  Json files = Json::array();
  for (const std::string& name : plan.source.files()) {
    const fs::path path = job.source / name;
    files.push_back({{"name", name},
                     {"size_bytes", fs::file_size(path)},
                     {"modified", fs::last_write_time(path).time_since_epoch().count()}});
  }
  return {{"version", LLMQ_VERSION},
          {"records_hold", "tensors and transformations"},
          {"files", files},
          {"calibration", calibration != nullptr ? calibration->fingerprint() : Json(nullptr)},
          {"config", plan.config_document},
          {"recipe", recipe_json(plan.recipe)},
          {"dtype", formats::dtype_name(plan.ledger.model_dtype)},
          {"keep_tied", job.ledger.keep_tied},
          {"stem", plan.naming.stem},
          {"part_size_bytes", job.part_size_bytes}};
}

void check_disk_space(const FolderJob& job, uint64_t needed_bytes) {
  constexpr uint64_t kReserveBytes = uint64_t{16} << 20;
  const uint64_t free_bytes = formats::free_disk_bytes(job.destination);
  if (free_bytes >= needed_bytes + kReserveBytes) return;
  throw formats::Error(
      formats::ErrorCode::kIo,
      fmt::format(
          "the disk of {} has {} free, but {} are needed; free some space or choose another "
          "destination",
          job.destination.string(), bytes_text(free_bytes),
          bytes_text(needed_bytes + kReserveBytes)));
}

/// A run that will not fit must end before it begins.
void check_memory(const FolderJob& job, const FolderPlan& plan) {
  const uint64_t needed_bytes = expected_peak_memory_bytes(plan, job.n_threads);
  if (job.max_memory_bytes == 0 || needed_bytes <= job.max_memory_bytes) return;
  throw formats::Error(
      formats::ErrorCode::kMemory,
      fmt::format("about {} of memory are needed, but --max-memory allows {}; take fewer --threads "
                  "or a type that keeps less of a layer in memory (--method round, -anti_method "
                  "none)",
                  bytes_text(needed_bytes), bytes_text(job.max_memory_bytes)));
}

/// Statistics are written at the very end; that they cannot be must be known before the work.
void check_statistics_path(const fs::path& file) {
  if (file.empty()) return;
  const fs::path parent = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (fs::is_directory(parent) && !fs::is_directory(file)) return;
  throw formats::Error(
      formats::ErrorCode::kIo,
      fmt::format("--save-stats {}: is no file in a folder that exists", file.string()));
}

/// Says so where options of calibration are given and nothing is calibrated.
void warn_of_idle_calibration(const FolderJob& job, const Recipe& recipe, Console& console) {
  if (!job.recipe || recipe.needs_calibration() || job.selection.is_given()) return;
  const CalibrationJob& calibration = job.calibration;
  const bool is_asked_for = !calibration.texts.empty() || !calibration.load_statistics.empty() ||
                            !calibration.save_statistics.empty() || calibration.is_fast ||
                            recipe.disable_level > 0 ||
                            recipe.act_method != quant::ActMethod::kMinMax;
  if (!is_asked_for) return;
  console.warn(fmt::format(
      "recipe {} has no static activations, so calibration texts, statistics, --fast-calibration, "
      "-act_method and -disable_level change nothing",
      recipe.name));
}

/// Writes one planned folder into its staging folder.
class FolderRun {
 public:
  /// `calibration` is null where the recipe needs none.
  FolderRun(const FolderJob& job, const FolderPlan& plan, CalibrationInput* calibration,
            quant::ThreadTeam& team, Console& console)
      : job_(job),
        plan_(plan),
        calibration_(calibration),
        team_(team),
        console_(console),
        layout_(plan.ledger, plan.naming),
        begins_(plan.ledger.unit_begins()),
        results_(plan.ledger.entries.size(), Json::object()) {
    if (calibration != nullptr) preparer_.emplace(*calibration, plan, team, console);
  }

  /// Per-entry results, in ledger order.
  const std::vector<Json>& run(formats::StagingFolder& staging) {
    Journal journal = open_journal(staging);
    if (journal.is_resumed() && !sizes_match(staging.path())) {
      throw formats::Error(
          formats::ErrorCode::kIo,
          staging.path().string() +
              ": the files of the interrupted run have changed; give --no-resume to start over");
    }
    const auto mode = journal.is_resumed() ? formats::OutputFile::Mode::kReopen
                                           : formats::OutputFile::Mode::kCreate;
    const OutputFiles files(layout_, staging.path(), mode);
    if (journal.is_resumed()) console_.info("going on where the interrupted run stopped");
    stream(files, journal);
    files.sync();
    write_companions(staging.path());
    journal.remove();
    return results_;
  }

  [[nodiscard]] const OutputLayout& layout() const { return layout_; }

  /// What smoothing did, per layer and subgraph, also of layers that an interrupted run finished.
  [[nodiscard]] const Json& transformations() const { return transformations_; }

 private:
  [[nodiscard]] Journal open_journal(const formats::StagingFolder& staging) const {
    const Json print = fingerprint(job_, plan_, calibration_);
    Journal journal(staging.path(), print, job_.may_resume);
    if (journal.is_resumed()) return journal;
    staging.clear();  // what a run with other options left must not come along
    return {staging.path(), print, false};
  }

  [[nodiscard]] bool sizes_match(const fs::path& folder) const {
    for (const OutputLayout::File& file : layout_.files()) {
      std::error_code error;
      if (fs::file_size(folder / file.name, error) != file.size_bytes || error) return false;
    }
    return true;
  }

  void stream(const OutputFiles& files, Journal& journal) {
    const uint64_t total_bytes = plan_.ledger.source_bytes();
    std::atomic<uint64_t> done_bytes{0};
    const auto on_bytes = [&](uint64_t n) {
      done_bytes += n;
      // A calibration run takes far longer than the rounding between its layers, and shows its own.
      if (calibration_ != nullptr && !calibration_->is_loaded) return;
      console_.progress(job_.recipe ? "quantizing" : "converting", done_bytes, total_bytes);
    };
    std::vector<std::pair<size_t, Json>> unrecorded;
    uint64_t unrecorded_bytes = 0;
    const auto record = [&] {
      if (unrecorded.empty()) return;
      files.sync();
      for (const auto& [unit, done] : unrecorded) journal.record(unit, done);
      unrecorded.clear();
      unrecorded_bytes = 0;
    };
    try {
      for (size_t unit = 0; unit + 1 < begins_.size(); ++unit) {
        if (const Json* finished = journal.finished(unit)) {
          // Statistics that are to be saved are those of every layer.
          if (!job_.calibration.save_statistics.empty()) std::ignore = prepare(unit);
          keep(unit, *finished);
          on_bytes(unit_bytes(unit));
          continue;
        }
        const UnitPreparation& preparation = prepare(unit);
        prefetch_after(unit);
        Json results = stream_unit(entries_of(unit), preparation,
                                   {layout_, files, plan_.ledger.model_dtype}, team_, on_bytes);
        if (preparer_) preparer_->add_to_results(entries_of(unit), results);
        Json done = {{"tensors", std::move(results)},
                     {"transformations", preparation.transformations}};
        keep(unit, done);
        unrecorded.emplace_back(unit, std::move(done));
        unrecorded_bytes += unit_bytes(unit);
        if (unrecorded_bytes >= kRecordBytes) record();
      }
    } catch (const formats::Error& error) {
      if (error.code() == formats::ErrorCode::kInterrupted) record();
      throw;
    }
    console_.end_progress();
  }

  /// Runs the model up to the unit's layer where calibration decides something.
  [[nodiscard]] const UnitPreparation& prepare(size_t unit) {
    const std::span<const LedgerEntry> entries = entries_of(unit);
    if (preparer_) return preparer_->prepare(entries);
    plain_.entries.assign(entries.size(), {});
    return plain_;
  }

  [[nodiscard]] std::span<const LedgerEntry> entries_of(size_t unit) const {
    return std::span(plan_.ledger.entries)
        .subspan(begins_[unit], begins_[unit + 1] - begins_[unit]);
  }

  [[nodiscard]] uint64_t unit_bytes(size_t unit) const {
    uint64_t total = 0;
    for (const LedgerEntry& entry : entries_of(unit)) total += entry.source->bytes.size();
    return total;
  }

  void prefetch_after(size_t unit) const {
    uint64_t ahead = 0;
    for (size_t next = unit + 1; next + 1 < begins_.size() && ahead < kPrefetchBytes; ++next) {
      for (const LedgerEntry& entry : entries_of(next)) {
        const uint64_t n = std::min<uint64_t>(entry.source->bytes.size(),
                                              kPrefetchBytes - std::min(ahead, kPrefetchBytes));
        formats::MappedFile::prefetch(entry.source->bytes.first(n));
        ahead += n;
      }
    }
  }

  /// Keeps what the report says of a unit: its record in the journal.
  void keep(size_t unit, const Json& done) {
    for (size_t i = begins_[unit]; i < begins_[unit + 1]; ++i)
      results_[i] = done.at("tensors").at(i - begins_[unit]);
    for (const Json& one : done.at("transformations")) transformations_.push_back(one);
  }

  void write_companions(const fs::path& folder) const {
    formats::write_text_file(folder / "config.json",
                             rewritten_config(plan_, job_.recipe.has_value()).dump(2) + "\n");
    if (!layout_.index_name().empty()) {
      formats::write_text_file(folder / layout_.index_name(), layout_.index_json().dump(2) + "\n");
    }
    if (job_.recipe) {
      formats::write_text_file(folder / formats::kDescriptionFile,
                               description_of(plan_).dump(2) + "\n");
    }
    for (const std::string& name : side_files(job_.source)) {
      formats::copy_file_synced(job_.source / name, folder / name);
    }
  }

  const FolderJob& job_;
  const FolderPlan& plan_;
  CalibrationInput* calibration_;
  quant::ThreadTeam& team_;
  Console& console_;
  OutputLayout layout_;
  std::vector<size_t> begins_;
  std::vector<Json> results_;
  Json transformations_ = Json::array();
  std::optional<UnitPreparer> preparer_;
  UnitPreparation plain_;  // of a unit that needs no calibration
};

/// The written folder must obey every rule before it may appear.
Json require_conformance(const fs::path& folder, quant::ThreadTeam& team) {
  Json conformance = conformance_json(check_conformance(folder, std::nullopt, team));
  for (const Json& rule : conformance["rules"]) {
    if (rule["ok"].get<bool>()) continue;
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("the files written break the rule {}: {}", rule["name"].get<std::string>(),
                    rule["detail"].get<std::string>()));
  }
  return conformance;
}

/// Opens the calibration where the job reads one, and lets it decide which linears stay float: the
/// job's recipe and the plan are changed, `selection` gets what the report says of it. Returns
/// nothing where writing needs no calibration.
std::optional<CalibrationInput> decide_by_calibration(FolderJob& job, FolderPlan& plan,
                                                      Json& selection, const RunContext& context) {
  if (!plan.recipe.needs_calibration() && !job.selection.is_given()) return std::nullopt;
  check_statistics_path(job.calibration.save_statistics);
  std::optional<CalibrationInput> calibration = open_calibration(job, plan, context.console);
  if (plan.recipe.chooses_layers()) {
    keep_widest_float(*calibration, plan, context.team, context.console, *job.recipe);
    plan = make_folder_plan(job);
  }
  if (job.selection.is_given()) {
    selection = select_layers(job, plan, *calibration, context);
    plan = make_folder_plan(job);
  }
  if (!plan.recipe.needs_calibration()) calibration.reset();
  return calibration;
}

Json dry_report(const FolderJob& job, const FolderPlan& plan, const Json& selection) {
  Json report =
      folder_report(job, plan, std::vector<Json>(plan.ledger.entries.size(), Json::object()));
  report.update(selection);
  return report;
}

}  // namespace

Json run_folder_job(const FolderJob& requested, Console& console) {
  const auto started = std::chrono::steady_clock::now();
  const MemorySampler memory;
  FolderJob job = requested;
  FolderPlan plan = make_folder_plan(job);
  formats::check_destination(job.destination, job.source, job.force);
  check_statistics_use(plan.recipe, job.calibration.load_statistics,
                       job.calibration.save_statistics);
  check_memory(job, plan);
  warn_of_idle_calibration(job, plan.recipe, console);
  if (job.dry_run && !job.selection.is_given()) {
    for (const std::string& warning : plan_warnings(plan)) console.warn(warning);
    return dry_report(job, plan, Json::object());
  }

  quant::ThreadTeam team(job.n_threads);
  Json selection = Json::object();
  std::optional<CalibrationInput> calibration =
      decide_by_calibration(job, plan, selection, {team, console});
  for (const std::string& warning : plan_warnings(plan)) console.warn(warning);
  if (job.dry_run) return dry_report(job, plan, selection);
  FolderRun run(job, plan, calibration ? &*calibration : nullptr, team, console);
  check_disk_space(job, run.layout().size_bytes());
  formats::StagingFolder staging(job.destination, job.source, job.force);
  try {
    const std::vector<Json>& results = run.run(staging);
    throw_if_interrupted();
    Json report = folder_report(job, plan, results);
    report.update(selection);
    if (calibration) {
      report["calibration"] = calibration->report();
      if (!run.transformations().empty())
        report["calibration"]["transformations"] = run.transformations();
      report["calibration"].update(expert_report(plan, results));
    }
    report["conformance"] = require_conformance(staging.path(), team);
    if (!job.calibration.save_statistics.empty() && calibration) {
      formats::write_text_file(job.calibration.save_statistics,
                               statistics_json(calibration->statistics).dump() + "\n");
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
    add_run_figures(report, elapsed.count(), memory);
    formats::write_text_file(staging.path() / "llmq_report.json", report.dump(2) + "\n");
    throw_if_interrupted();
    staging.commit();
    tell_warnings(plan, results, console);
    return report;
  } catch (const formats::Error& error) {
    if (error.code() == formats::ErrorCode::kInterrupted && job.may_resume)
      staging.keep_for_resume();
    throw;
  }
}

formats::DType source_dtype(const fs::path& source) {
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(source);
  for (const formats::StoredTensor& tensor : checkpoint.tensors()) {
    if (tensor.shape.size() == 2 && formats::is_weight_float(tensor.dtype)) return tensor.dtype;
  }
  throw formats::bad_input(source.string() + ": holds no float matrix");
}

}  // namespace llmq::convert
