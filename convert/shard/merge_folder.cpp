#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "convert/compress/compressed_note.h"
#include "convert/interrupt.h"
#include "convert/shard/shard_folder.h"
#include "convert/shard/shard_plan.h"
#include "convert/shard/stored_layout.h"
#include "convert/shard/weight_files.h"
#include "formats/checkpoint.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/staging.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;
using formats::RankPart;
using formats::StoredTensor;
namespace fs = std::filesystem;

/// Bytes of a tensor that are put together at a time. Blocks follow one another, so that their
/// checksum is that of the tensor; each is spread over the threads.
constexpr int64_t kBlockBytes = int64_t{32} << 20;

/// Bytes that must be zero.
bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte value) { return value == std::byte{0}; });
}

uint32_t checksum_of(std::span<const std::byte> bytes, quant::ThreadTeam& team) {
  Checksum checksum;
  checksum.add(bytes, team);
  return checksum.value();
}

class ShardReader {
 public:
  ShardReader(const fs::path& folder, const ShardManifest& manifest, const ShardPlan& plan)
      : manifest_(manifest), plan_(plan), layout_(make_stored_layout(manifest, plan)) {
    const Json document = manifest_json(manifest);
    for (int64_t rank = 0; rank < manifest.tp; ++rank) {
      const fs::path path = folder / rank_folder(manifest.layout, rank, manifest.tp);
      check_shard_note(path, document, rank);
      ranks_.push_back(open_rank(folder, manifest, rank));
      names_.push_back(path.filename() == "" ? (folder / vllm_weight_file(rank)).string()
                                             : path.string());
      check_tensors();
    }
  }

  /// Throws Error{kBadInput} where what an engine wants beside the model's tensors is not zero.
  void check_added_zeros() const {
    for (const StoredFile& file : layout_.files) {
      for (const StoredPart& part : file.parts) {
        for (size_t rank = 0; rank < ranks_.size(); ++rank) {
          if (!is_zero(ranks_[rank].at(part.name).bytes.subspan(part.end())))
            throw_damaged(static_cast<int64_t>(rank), part.name, "has padding that is not zero");
        }
      }
    }
  }

  /// The parts of a tensor, one a rank.
  [[nodiscard]] std::vector<RankPart> parts(size_t file, size_t tensor) const {
    std::vector<RankPart> parts;
    const ManifestTensor& described = manifest_.files[file].tensors[tensor];
    const StoredPlace& place = layout_.places[file][tensor];
    const StoredPart& part = layout_.part(place);
    for (int64_t rank = 0; rank < manifest_.tp; ++rank) {
      const formats::TensorSlice slice = plan_.slice(described, plan_.cuts[file][tensor], rank);
      parts.push_back({slice, ranks_[static_cast<size_t>(rank)].at(part.name).bytes.subspan(
                                  part.begins[place.member],
                                  formats::tensor_size_bytes(described.dtype, slice.shape))});
    }
    return parts;
  }

  /// Throws Error{kBadInput}: two ranks hold different copies of a tensor. Where each holds all of
  /// it, its checksum tells whose copy is damaged.
  [[noreturn]] void throw_different(formats::DifferingRanks ranks, const ManifestTensor& tensor,
                                    const std::vector<RankPart>& parts) const {
    std::string culprits;
    quant::ThreadTeam team(1);
    const uint64_t whole = formats::tensor_size_bytes(tensor.dtype, tensor.shape);
    for (size_t rank = 0; rank < parts.size(); ++rank) {
      if (parts[rank].bytes.size() == whole && checksum_of(parts[rank].bytes, team) != tensor.crc32)
        culprits += fmt::format("{}{}", culprits.empty() ? "" : ", ", names_[rank]);
    }
    throw bad_input(fmt::format(
        "tensor {}: the copies of rank {} and rank {} differ; {}", tensor.name, ranks.first,
        ranks.second,
        culprits.empty() ? "one of them is damaged, copy both shards again"
                         : fmt::format("damaged is that of {}, copy it again", culprits)));
  }

  [[noreturn]] void throw_damaged(int64_t rank, const std::string& tensor,
                                  std::string_view what) const {
    throw bad_input(fmt::format("{}: tensor {} {}; the shard is damaged, copy it again",
                                names_[static_cast<size_t>(rank)], tensor, what));
  }

 private:
  void check_tensors() const {
    const formats::Checkpoint& checkpoint = ranks_.back();
    size_t n_tensors = 0;
    for (const StoredFile& file : layout_.files) {
      n_tensors += file.parts.size();
      for (const StoredPart& part : file.parts) {
        const StoredTensor& stored = checkpoint.at(part.name);
        if (stored.dtype == part.dtype && stored.shape == part.shape) continue;
        throw bad_input(fmt::format(
            "{}: tensor {} is {} {}, but the manifest asks for {} {}; the shards are not of one "
            "run",
            names_.back(), stored.name, formats::dtype_name(stored.dtype),
            formats::shape_string(stored.shape), formats::dtype_name(part.dtype),
            formats::shape_string(part.shape)));
      }
    }
    if (checkpoint.tensors().size() == n_tensors) return;
    throw bad_input(
        fmt::format("{}: has {} tensors, but the manifest {}; the shards are not of "
                    "one run",
                    names_.back(), checkpoint.tensors().size(), n_tensors));
  }

  const ShardManifest& manifest_;
  const ShardPlan& plan_;
  StoredLayout layout_;
  std::vector<formats::Checkpoint> ranks_;
  std::vector<std::string> names_;  // of the ranks' folders or files, for messages
};

class MergeWriter {
 public:
  MergeWriter(const ShardReader& reader, const ShardManifest& manifest, const fs::path& folder,
              quant::ThreadTeam& team)
      : reader_(reader), manifest_(manifest), folder_(folder), team_(team) {}

  void write(Console& console, uint64_t total_bytes) {
    for (size_t i = 0; i < manifest_.files.size(); ++i) {
      const ManifestFile& file = manifest_.files[i];
      std::vector<formats::TensorEntry> entries;
      for (const ManifestTensor& tensor : file.tensors)
        entries.push_back({tensor.name, tensor.dtype, tensor.shape, 0, 0});
      const WeightFileWriter writer(folder_ / file.name, std::move(entries), file.metadata);
      for (size_t tensor = 0; tensor < file.tensors.size(); ++tensor) {
        throw_if_interrupted();
        write_tensor(i, tensor, writer);
        done_bytes_ += writer.entries()[tensor].size_bytes();
        console.progress("merging", done_bytes_, total_bytes);
      }
      writer.sync();
    }
    console.end_progress();
  }

 private:
  void write_tensor(size_t file, size_t index, const WeightFileWriter& writer) {
    const ManifestTensor& tensor = manifest_.files[file].tensors[index];
    const std::vector<RankPart> parts = reader_.parts(file, index);
    const formats::MergeTarget target{formats::matrix_extents(tensor.shape),
                                      formats::dtype_size_bytes(tensor.dtype)};
    team_.parallel_for(manifest_.tp, [&](int64_t rank, int) {
      if (!formats::is_padding_zero(parts[static_cast<size_t>(rank)], target.element_bytes))
        reader_.throw_damaged(rank, tensor.name, "has padding that is not zero");
    });
    Checksum checksum;
    const int64_t row_bytes =
        std::max<int64_t>(1, target.extents.columns * static_cast<int64_t>(target.element_bytes));
    const int64_t block_rows = std::max<int64_t>(1, kBlockBytes / row_bytes);
    for (int64_t first = 0; first < target.extents.rows; first += block_rows) {
      const formats::RowRange rows{first, std::min(block_rows, target.extents.rows - first)};
      const std::vector<std::byte>& bytes = merged(tensor, target, parts, rows);
      checksum.add(bytes, team_);
      writer.write(index, static_cast<uint64_t>(first * row_bytes), bytes);
    }
    for (const RankPart& part : parts) formats::MappedFile::release(part.bytes);
    if (checksum.value() == tensor.crc32) return;
    throw bad_input(fmt::format(
        "tensor {} put together from its parts is not the original (CRC-32 {:08x}, not {:08x}); a "
        "shard is damaged, copy them again",
        tensor.name, checksum.value(), tensor.crc32));
  }

  /// Rows of a tensor, in a buffer that the next call reuses.
  const std::vector<std::byte>& merged(const ManifestTensor& tensor,
                                       const formats::MergeTarget& target,
                                       const std::vector<RankPart>& parts, formats::RowRange rows) {
    const int64_t row_bytes = target.extents.columns * static_cast<int64_t>(target.element_bytes);
    buffer_.resize(static_cast<size_t>(rows.n * row_bytes));
    const auto n_tasks = std::min<int64_t>(team_.n_threads(), rows.n);
    team_.parallel_for(n_tasks, [&](int64_t task, int) {
      const int64_t begin = rows.n * task / n_tasks;
      const int64_t end = rows.n * (task + 1) / n_tasks;
      const auto to = std::span(buffer_).subspan(static_cast<size_t>(begin * row_bytes),
                                                 static_cast<size_t>((end - begin) * row_bytes));
      const auto differs =
          formats::merge_rows(target, parts, {rows.first + begin, end - begin}, to);
      if (differs) reader_.throw_different(*differs, tensor, parts);
    });
    return buffer_;
  }

  const ShardReader& reader_;
  const ShardManifest& manifest_;
  fs::path folder_;
  quant::ThreadTeam& team_;
  std::vector<std::byte> buffer_;
  uint64_t done_bytes_ = 0;
};

uint64_t unsharded_bytes(const ShardManifest& manifest) {
  uint64_t total = 0;
  for (const ManifestFile& file : manifest.files) {
    for (const ManifestTensor& tensor : file.tensors)
      total += formats::tensor_size_bytes(tensor.dtype, tensor.shape);
  }
  return total;
}

}  // namespace

Json run_merge_job(const MergeJob& job, Console& console) {
  formats::check_destination(job.destination, job.source, job.force);
  if (fs::exists(job.source / kCompressedNoteFile)) {
    throw bad_input(job.source.string() +
                    ": is compressed; restore its shards with llmq sparse-compress --decompress "
                    "and merge those");
  }
  const ShardManifest manifest = read_manifest(job.source);
  const ShardPlan plan = make_shard_plan(manifest);
  if (padded_config_sizes(plan) != manifest.padded)
    throw bad_input(fmt::format("{}: says other padding than its tensors need",
                                (job.source / kShardManifestFile).string()));
  const ShardReader reader(job.source, manifest, plan);
  const uint64_t total_bytes = unsharded_bytes(manifest);
  check_disk(job.destination, total_bytes);
  quant::ThreadTeam team(job.n_threads);
  formats::StagingFolder staging(job.destination, job.source, job.force);
  staging.clear();
  reader.check_added_zeros();
  MergeWriter(reader, manifest, staging.path(), team).write(console, total_bytes);
  copy_beside_weights(job.source, staging.path());
  for (const auto& [name, text] : manifest.originals)
    formats::write_text_file(staging.path() / name, text);
  throw_if_interrupted();
  staging.commit();
  size_t n_tensors = 0;
  for (const ManifestFile& file : manifest.files) n_tensors += file.tensors.size();
  return {{"tp", manifest.tp},
          {"fingerprint", manifest_fingerprint(manifest_json(manifest))},
          {"tensors", n_tensors},
          {"written_bytes", total_bytes}};
}

std::string merge_text(const Json& report) {
  return fmt::format("{} tensors, {}, from {} ranks, fingerprint {}; every checksum holds\n",
                     report["tensors"].get<size_t>(),
                     bytes_text(report["written_bytes"].get<uint64_t>()),
                     report["tp"].get<int64_t>(), report["fingerprint"].get<std::string>());
}

}  // namespace llmq::convert
