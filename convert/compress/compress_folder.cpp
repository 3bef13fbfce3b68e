#include "convert/compress/compress_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "convert/compress/compressed_matrix.h"
#include "convert/compress/compressed_note.h"
#include "convert/compress/split_folder.h"
#include "convert/interrupt.h"
#include "convert/pipeline/journal.h"
#include "convert/shard/shard_folder.h"
#include "convert/shard/weight_files.h"
#include "formats/description.h"
#include "formats/error.h"
#include "formats/model_config.h"
#include "formats/scheme.h"
#include "formats/staging.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;
using formats::OutputFile;
using formats::StoredTensor;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// Where the split folder lies while it is needed, where nobody wants to keep it.
constexpr const char* kTemporarySplit = "llmq-split";
/// Bytes of the split folder between two records in the journal: each waits for the disk.
constexpr uint64_t kRecordBytes = uint64_t{256} << 20;
/// The unit of the journal that is the split folder; those of tensors follow.
constexpr size_t kSplitUnit = 0;

/// Codes take less than this share of their bytes at the finest threshold that users may choose.
constexpr double kExpectedRatio = 0.625;

bool is_codes(const StoredTensor& tensor, std::string_view tag) {
  return is_compressible(tensor.name, tag) && !formats::is_weight_float(tensor.dtype);
}

/// What the source must be. Returns the bytes of its codes.
uint64_t check_source(const fs::path& folder, const formats::Checkpoint& source) {
  const auto path = formats::find_description(folder);
  const std::string remedy = "; make one with llmq quant -type qwen_w8a8s";
  if (!path) {
    throw bad_input(fmt::format("{}: is no W8A8S folder, it has no {}{}", folder.string(),
                                formats::kDescriptionFile, remedy));
  }
  const formats::Description description = formats::read_description(*path);
  const std::map<std::string, std::string> tags(description.tensors.begin(),
                                                description.tensors.end());
  uint64_t codes_bytes = 0;
  for (const StoredTensor& tensor : source.tensors()) {
    const auto tag = tags.find(tensor.name);
    if (tag != tags.end() && is_codes(tensor, tag->second)) codes_bytes += tensor.bytes.size();
  }
  if (codes_bytes == 0) {
    throw bad_input(fmt::format(
        "{}: is no W8A8S folder, {} says {} and no weight is tagged W8A8S{}", folder.string(),
        path->filename().string(), description.model_quant_type, remedy));
  }
  const formats::ModelConfig config = formats::read_model_config(folder);
  if (config.torch_dtype != formats::DType::kF16) {
    throw bad_input(fmt::format(
        "{}: torch_dtype is {}; compressed sparse weights go with float16 alone, "
        "quantize again with --dtype float16",
        (folder / "config.json").string(), formats::torch_dtype_name(config.torch_dtype)));
  }
  return codes_bytes;
}

/// Folders that are one step too far get a sentence of their own.
void check_not_cut_yet(const fs::path& folder) {
  if (fs::exists(folder / kCompressedNoteFile) ||
      fs::exists(folder.parent_path() / kCompressedNoteFile)) {
    throw bad_input(
        fmt::format("{}: is compressed already; --decompress goes back", folder.string()));
  }
  if (fs::exists(folder / kShardManifestFile)) {
    throw bad_input(
        fmt::format("{}: is cut for ranks already; give the whole W8A8S folder (llmq merge "
                    "restores it)",
                    folder.string()));
  }
}

/// Everything that decides the bytes written.
Json fingerprint(const CompressJob& job) {
  Json files = Json::array();
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(job.source)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    files.push_back({{"name", path.filename().string()},
                     {"size_bytes", fs::file_size(path)},
                     {"modified", fs::last_write_time(path).time_since_epoch().count()}});
  }
  return {{"version", LLMQ_VERSION},
          {"files", std::move(files)},
          {"tp", job.tp},
          {"layout", shard_layout_name(job.layout)},
          {"pad", job.pad},
          {"codec", quant::codec_mark(job.codec)},
          {"split", job.split.empty() ? "" : fs::absolute(job.split).string()}};
}

/// What became of the codes, as the journal records it.
struct CodedUnit {
  uint64_t n_codes = 0;
  uint64_t weight_bytes = 0;
  uint64_t index_bytes = 0;  ///< with info
  double information_bits = 0.0;
};

Json unit_json(const CodedUnit& unit) {
  return {{"n_codes", unit.n_codes},
          {"weight_bytes", unit.weight_bytes},
          {"index_bytes", unit.index_bytes},
          {"information_bits", unit.information_bits}};
}

CodedUnit parse_unit(const Json& json) {
  return {json.at("n_codes").get<uint64_t>(), json.at("weight_bytes").get<uint64_t>(),
          json.at("index_bytes").get<uint64_t>(), json.at("information_bits").get<double>()};
}

/// Compresses the files of a split folder into the staging folder.
class CompressRun {
 public:
  CompressRun(const CompressJob& job, const SplitFolder& split, const fs::path& staging,
              Journal& journal)
      : job_(job),
        split_(split),
        staging_(staging),
        journal_(journal),
        rank_bytes_(static_cast<size_t>(split.manifest().tp)) {
    for (const SplitFile& file : split.files()) {
      for (const TensorToStore& tensor : file.tensors) total_bytes_ += tensor.tensor->bytes.size();
    }
  }

  void run(quant::ThreadTeam& team, Console& console) {
    CompressedNote note{job_.codec, split_.fingerprint(), {}, {}};
    std::map<std::string, std::vector<formats::TensorEntry>> entries;
    size_t first_unit = kSplitUnit + 1;
    for (const SplitFile& file : split_.files()) {
      fs::create_directories((staging_ / file.name).parent_path());
      entries[file.name] = write_file(file, first_unit, team, console);
      rank_bytes_[static_cast<size_t>(file.rank)] +=
          entries[file.name].empty() ? 0 : entries[file.name].back().end;
      first_unit += file.tensors.size();
      note.weights.push_back({file.split, file.name, {}});
      for (const TensorToStore& tensor : file.tensors)
        note.weights.back().tensors.push_back(tensor.tensor->name);
    }
    console.end_progress();
    split_.write_texts(staging_, note);
    split_.write_indexes(staging_, entries, note);
    formats::write_text_file(staging_ / kCompressedNoteFile,
                             compressed_note_json(note).dump(1) + "\n");
    for (int64_t rank = 0; rank < split_.manifest().tp; ++rank)
      formats::sync_directory(staging_ / rank_folder(job_.layout, rank, job_.tp));
  }

  void add_figures(Json& report) const {
    CodedUnit sum;
    for (const CodedUnit& unit : coded_) {
      sum.n_codes += unit.n_codes;
      sum.weight_bytes += unit.weight_bytes;
      sum.index_bytes += unit.index_bytes;
      sum.information_bits += unit.information_bits;
    }
    const uint64_t compressed_bytes = sum.weight_bytes + sum.index_bytes;
    const auto n_codes = static_cast<double>(std::max<uint64_t>(sum.n_codes, 1));
    report["matrices"] = coded_.size();
    report["int8_bytes"] = sum.n_codes;
    report["compressed_bytes"] = compressed_bytes;
    report["ratio"] = static_cast<double>(compressed_bytes) / n_codes;
    report["bits_per_weight"] = 8.0 * static_cast<double>(compressed_bytes) / n_codes;
    report["entropy_bits"] = sum.information_bits / n_codes;
    report["rank_bytes"] = rank_bytes_;
    if (coding_seconds_ > 0.0)
      report["coded_bytes_per_second"] = static_cast<double>(newly_coded_bytes_) / coding_seconds_;
  }

 private:
  std::vector<formats::TensorEntry> write_file(const SplitFile& file, size_t first_unit,
                                               quant::ThreadTeam& team, Console& console) {
    const fs::path path = staging_ / file.name;
    bool is_begun = false;
    for (size_t i = 0; i < file.tensors.size(); ++i)
      is_begun = is_begun || journal_.finished(first_unit + i) != nullptr;
    const CompressedFileWriter writer(
        path, file.tensors, file.metadata,
        is_begun ? OutputFile::Mode::kReopen : OutputFile::Mode::kCreate);
    std::vector<uint64_t> weight_sizes;
    uint64_t offset_bytes = 0;
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      stop_if_interrupted(writer);
      const TensorToStore& tensor = file.tensors[i];
      const Json result = store(tensor, i, first_unit + i, {&writer, offset_bytes}, team);
      if (tensor.is_coded) {
        coded_.push_back(parse_unit(result));
        weight_sizes.push_back(coded_.back().weight_bytes);
        offset_bytes += weight_sizes.back();
      }
      done_bytes_ += tensor.tensor->bytes.size();
      console.progress("compressing", done_bytes_, total_bytes_);
      if (unrecorded_bytes_ >= kRecordBytes) record(writer);
    }
    std::vector<formats::TensorEntry> entries = writer.finish(weight_sizes);
    record(writer);
    return entries;
  }

  /// Where a coded tensor goes.
  struct CodedPlace {
    const CompressedFileWriter* writer = nullptr;
    uint64_t offset_bytes = 0;
  };

  /// Stores a tensor unless the journal has it; returns what the journal says of it.
  Json store(const TensorToStore& tensor, size_t i, size_t unit, const CodedPlace& place,
             quant::ThreadTeam& team) {
    if (const Json* finished = journal_.finished(unit)) return *finished;
    Json result = Json::object();
    if (tensor.is_coded) {
      const auto started = Clock::now();
      const quant::CompressionResult coded =
          place.writer->code(i, place.offset_bytes, job_.codec, team);
      coding_seconds_ += std::chrono::duration<double>(Clock::now() - started).count();
      newly_coded_bytes_ += tensor.tensor->bytes.size();
      const uint64_t n_codes = tensor.tensor->bytes.size();
      result = unit_json({n_codes, coded.weight_size_bytes, coded.index.size() + sizeof(coded.info),
                          quant::entropy_bits(coded.histogram) * static_cast<double>(n_codes)});
    } else {
      place.writer->copy(i, team);
    }
    unrecorded_.emplace_back(unit, result);
    unrecorded_bytes_ += tensor.tensor->bytes.size();
    return result;
  }

  void record(const CompressedFileWriter& writer) {
    if (!unrecorded_.empty()) writer.sync();
    for (const auto& [unit, result] : unrecorded_) journal_.record(unit, result);
    unrecorded_.clear();
    unrecorded_bytes_ = 0;
  }

  void stop_if_interrupted(const CompressedFileWriter& writer) {
    try {
      throw_if_interrupted();
    } catch (const formats::Error&) {
      record(writer);
      throw;
    }
  }

  const CompressJob& job_;
  const SplitFolder& split_;
  fs::path staging_;
  Journal& journal_;
  std::vector<uint64_t> rank_bytes_;
  std::vector<CodedUnit> coded_;
  std::vector<std::pair<size_t, Json>> unrecorded_;
  uint64_t unrecorded_bytes_ = 0;
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
  uint64_t newly_coded_bytes_ = 0;
  double coding_seconds_ = 0.0;
};

/// The split folder that an interrupted run left, as it left it.
std::optional<SplitFolder> left_split(const fs::path& folder, const Journal& journal) {
  const Json* finished = journal.finished(kSplitUnit);
  if (finished == nullptr) return std::nullopt;
  try {
    SplitFolder split(folder);
    if (split.fingerprint() == *finished) return split;
  } catch (const formats::Error&) {
    // Somebody took it away; it is made again.
  }
  return std::nullopt;
}

bool has_begun_files(const SplitFolder& split, const fs::path& staging, const Journal& journal) {
  size_t unit = kSplitUnit + 1;
  for (const SplitFile& file : split.files()) {
    for (size_t i = 0; i < file.tensors.size(); ++i, ++unit) {
      if (journal.finished(unit) != nullptr && !fs::is_regular_file(staging / file.name))
        return false;
    }
  }
  return true;
}

SplitFolder make_split(const CompressJob& job, const fs::path& folder, Console& console) {
  ShardJob shard{.source = job.source, .destination = folder, .tp = job.tp};
  shard.layout = job.layout;
  shard.pad = job.pad;
  shard.force = job.force;
  shard.n_threads = job.n_threads;
  run_shard_job(shard, console);
  return SplitFolder(folder);
}

Json compress_into(const CompressJob& job, const formats::StagingFolder& staging,
                   Console& console) {
  const fs::path split_path = job.split.empty() ? staging.path() / kTemporarySplit : job.split;
  const Json print = fingerprint(job);
  std::optional<Journal> journal(std::in_place, staging.path(), print, job.may_resume);
  std::optional<SplitFolder> split = left_split(split_path, *journal);
  if (split && has_begun_files(*split, staging.path(), *journal)) {
    console.info("going on where the interrupted run stopped");
  } else {
    split.reset();
    staging.clear();
    journal.emplace(staging.path(), print, false);
    split.emplace(make_split(job, split_path, console));
    journal->record(kSplitUnit, split->fingerprint());
  }
  quant::ThreadTeam team(job.n_threads);
  CompressRun run(job, *split, staging.path(), *journal);
  run.run(team, console);
  throw_if_interrupted();
  if (job.split.empty()) fs::remove_all(split_path);
  journal->remove();
  Json report{{"tp", job.tp},
              {"layout", shard_layout_name(job.layout)},
              {"codec", quant::codec_name(job.codec)},
              {"fingerprint", split->fingerprint()}};
  run.add_figures(report);
  return report;
}

}  // namespace

Json run_compress_job(const CompressJob& job, Console& console) {
  const auto started = Clock::now();
  formats::check_destination(job.destination, job.source, job.force);
  if (!job.split.empty()) formats::check_destination(job.destination, job.split, true);
  check_not_cut_yet(job.source);
  uint64_t source_bytes = 0;
  size_t n_tensors = 0;
  {
    const formats::Checkpoint source = formats::Checkpoint::open(job.source);
    const uint64_t codes_bytes = check_source(job.source, source);
    source_bytes = source.size_bytes();
    n_tensors = source.tensors().size();
    const auto coded_bytes =
        static_cast<uint64_t>(static_cast<double>(codes_bytes) * kExpectedRatio);
    check_disk(job.destination,
               source_bytes - codes_bytes + coded_bytes + (job.split.empty() ? source_bytes : 0));
  }
  formats::StagingFolder staging(job.destination, job.source, job.force);
  try {
    Json report = compress_into(job, staging, console);
    staging.commit();
    report["tensors"] = n_tensors;
    report["source_bytes"] = source_bytes;
    report["seconds"] = std::chrono::duration<double>(Clock::now() - started).count();
    return report;
  } catch (const formats::Error& error) {
    if (error.code() == formats::ErrorCode::kInterrupted && job.may_resume)
      staging.keep_for_resume();
    throw;
  }
}

std::string compress_text(const Json& report) {
  std::string text = fmt::format(
      "{} matrices of {} for {} ranks, layout {}, codec {}, fingerprint {}\n"
      "int8 {} -> {}, ratio {:.4f}\n"
      "bits per weight {:.4f}, order-0 entropy {:.4f} ({:+.2f} %)\n",
      report["matrices"].get<size_t>(), bytes_text(report["source_bytes"].get<uint64_t>()),
      report["tp"].get<int64_t>(), report["layout"].get<std::string>(),
      report["codec"].get<std::string>(), report["fingerprint"].get<std::string>(),
      bytes_text(report["int8_bytes"].get<uint64_t>()),
      bytes_text(report["compressed_bytes"].get<uint64_t>()), report["ratio"].get<double>(),
      report["bits_per_weight"].get<double>(), report["entropy_bits"].get<double>(),
      100.0 * (report["bits_per_weight"].get<double>() /
                   std::max(report["entropy_bits"].get<double>(), 1e-9) -
               1.0));
  size_t rank = 0;
  for (const Json& size_bytes : report["rank_bytes"])
    text += fmt::format("rank {}: {}\n", rank++, bytes_text(size_bytes.get<uint64_t>()));
  if (report.contains("coded_bytes_per_second")) {
    text += fmt::format("coded at {:.0f} MB/s, {} in all\n",
                        report["coded_bytes_per_second"].get<double>() * 1e-6,
                        seconds_text(report["seconds"].get<double>()));
  }
  return text;
}

}  // namespace llmq::convert
