#include "convert/shard/shard_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "convert/interrupt.h"
#include "convert/shard/shard_plan.h"
#include "convert/shard/weight_files.h"
#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/error.h"
#include "formats/staging.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::StoredTensor;
using formats::TensorSlice;
namespace fs = std::filesystem;

/// Bytes of a part that one task gathers and writes.
constexpr int64_t kBlockBytes = int64_t{4} << 20;

/// What a part of a tensor is made of, and where it goes.
struct PartWrite {
  TensorSlice slice;
  const WeightFileWriter* file = nullptr;
  size_t tensor = 0;  ///< in the file
};

/// Rows of a part that one task writes.
struct Block {
  size_t part = 0;
  formats::RowRange rows;
};

std::vector<Block> blocks_of(const std::vector<PartWrite>& parts, size_t element_bytes) {
  std::vector<Block> blocks;
  for (size_t part = 0; part < parts.size(); ++part) {
    const auto [rows, columns] = formats::matrix_extents(parts[part].slice.shape);
    const int64_t row_bytes = std::max<int64_t>(1, columns * static_cast<int64_t>(element_bytes));
    const int64_t block_rows = std::max<int64_t>(1, kBlockBytes / row_bytes);
    for (int64_t first = 0; first < rows; first += block_rows)
      blocks.push_back({part, {first, std::min(block_rows, rows - first)}});
  }
  return blocks;
}

/// Gathers and writes all parts of one tensor.
void write_parts(const StoredTensor& source, const std::vector<PartWrite>& parts,
                 quant::ThreadTeam& team) {
  const size_t element_bytes = formats::dtype_size_bytes(source.dtype);
  const formats::WholeTensor whole{formats::matrix_extents(source.shape), element_bytes,
                                   source.bytes};
  const std::vector<Block> blocks = blocks_of(parts, element_bytes);
  team.parallel_for(static_cast<int64_t>(blocks.size()), [&](int64_t i, int) {
    const Block& block = blocks[static_cast<size_t>(i)];
    const PartWrite& part = parts[block.part];
    const auto row_bytes =
        static_cast<size_t>(formats::matrix_extents(part.slice.shape).columns) * element_bytes;
    std::vector<std::byte> bytes(static_cast<size_t>(block.rows.n) * row_bytes);
    formats::copy_slice_rows(whole, part.slice, block.rows, bytes);
    part.file->write(part.tensor, static_cast<uint64_t>(block.rows.first) * row_bytes, bytes);
  });
}

/// Writes the ranks' folders of one plan.
class ShardWriter {
 public:
  ShardWriter(const formats::Checkpoint& source, const ShardPlan& plan, ShardManifest& manifest,
              const fs::path& folder)
      : source_(source),
        plan_(plan),
        manifest_(manifest),
        folder_(folder),
        indexes_(static_cast<size_t>(manifest.tp)),
        rank_bytes_(static_cast<size_t>(manifest.tp)) {}

  void write(quant::ThreadTeam& team, Console& console) {
    for (int64_t rank = 0; rank < manifest_.tp; ++rank) fs::create_directory(rank_path(rank));
    for (size_t i = 0; i < manifest_.files.size(); ++i) write_file(i, team, console);
    console.end_progress();
    copy_beside_weights(source_.folder(), folder_);
    const Json document = manifest_json(manifest_);
    for (int64_t rank = 0; rank < manifest_.tp; ++rank) write_beside(rank, document);
    formats::write_text_file(folder_ / kShardManifestFile, document.dump(1) + "\n");
  }

  [[nodiscard]] const std::vector<uint64_t>& rank_bytes() const { return rank_bytes_; }

 private:
  [[nodiscard]] fs::path rank_path(int64_t rank) const {
    return folder_ / rank_folder(manifest_.layout, rank, manifest_.tp);
  }

  std::vector<std::unique_ptr<WeightFileWriter>> open_files(size_t file) {
    const ManifestFile& described = manifest_.files[file];
    std::vector<std::unique_ptr<WeightFileWriter>> writers;
    for (int64_t rank = 0; rank < manifest_.tp; ++rank) {
      std::vector<formats::TensorEntry> entries;
      for (size_t i = 0; i < described.tensors.size(); ++i) {
        const ManifestTensor& tensor = described.tensors[i];
        entries.push_back({tensor.name, tensor.dtype,
                           plan_.slice(tensor, plan_.cuts[file][i], rank).shape, 0, 0});
      }
      writers.push_back(std::make_unique<WeightFileWriter>(rank_path(rank) / described.name,
                                                           std::move(entries), described.metadata));
      const auto at = static_cast<size_t>(rank);
      indexes_[at].add(described.name, writers.back()->entries());
      if (!writers.back()->entries().empty())
        rank_bytes_[at] += writers.back()->entries().back().end;
    }
    return writers;
  }

  void write_file(size_t file, quant::ThreadTeam& team, Console& console) {
    const auto writers = open_files(file);
    std::vector<ManifestTensor>& tensors = manifest_.files[file].tensors;
    for (size_t i = 0; i < tensors.size(); ++i) {
      throw_if_interrupted();
      const StoredTensor& stored = source_.at(tensors[i].name);
      Checksum checksum;
      checksum.add(stored.bytes, team);
      tensors[i].crc32 = checksum.value();
      std::vector<PartWrite> parts;
      for (int64_t rank = 0; rank < manifest_.tp; ++rank) {
        parts.push_back({plan_.slice(tensors[i], plan_.cuts[file][i], rank),
                         writers[static_cast<size_t>(rank)].get(), i});
      }
      write_parts(stored, parts, team);
      formats::MappedFile::release(stored.bytes);
      done_bytes_ += stored.bytes.size();
      console.progress("sharding", done_bytes_, source_.size_bytes());
    }
    for (const auto& writer : writers) writer->sync();
  }

  void write_beside(int64_t rank, const Json& document) const {
    const fs::path path = rank_path(rank);
    if (manifest_.index_file)
      indexes_[static_cast<size_t>(rank)].write(path / *manifest_.index_file);
    if (const auto description = formats::find_description(source_.folder()))
      formats::copy_file_synced(*description, path / description->filename());
    formats::write_text_file(path / kShardNoteFile, shard_note(document, rank).dump(1) + "\n");
    formats::sync_directory(path);
  }

  const formats::Checkpoint& source_;
  const ShardPlan& plan_;
  ShardManifest& manifest_;
  fs::path folder_;
  std::vector<WeightIndex> indexes_;
  std::vector<uint64_t> rank_bytes_;
  uint64_t done_bytes_ = 0;
};

std::string_view extent_name(formats::Extent extent) {
  constexpr std::array<std::string_view, 11> kNames{
      "one",       "hidden",           "vocabulary",         "query",
      "key_value", "fused_qkv",        "head_dim",           "intermediate",
      "experts",   "moe_intermediate", "shared_intermediate"};
  return kNames.at(static_cast<size_t>(extent));
}

/// Bytes of all ranks' parts.
uint64_t needed_bytes(const ShardManifest& manifest, const ShardPlan& plan) {
  uint64_t needed = 0;
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    const std::vector<ManifestTensor>& tensors = manifest.files[file].tensors;
    for (size_t i = 0; i < tensors.size(); ++i) {
      for (int64_t rank = 0; rank < manifest.tp; ++rank) {
        needed += formats::tensor_size_bytes(
            tensors[i].dtype, plan.slice(tensors[i], plan.cuts[file][i], rank).shape);
      }
    }
  }
  return needed;
}

bool has_padded_heads(const TensorSlice& slice, const formats::TensorCut& cut) {
  return cut.axis == formats::CutAxis::kColumns && cut.extent == formats::Extent::kQuery &&
         std::any_of(slice.runs.begin(), slice.runs.end(), [](const formats::SliceRun& run) {
           return run.source_begin == formats::SliceRun::kZeros;
         });
}

/// A padded head gives an output of attention that only zero weights keep out of the sum, and a
/// zero code is no zero weight where weights have an offset for all inputs.
void check_padded_heads(const formats::Checkpoint& source, const ShardManifest& manifest,
                        const ShardPlan& plan) {
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    for (size_t i = 0; i < manifest.files[file].tensors.size(); ++i) {
      const ManifestTensor& tensor = manifest.files[file].tensors[i];
      const formats::TensorCut& cut = plan.cuts[file][i];
      bool is_padded = false;
      for (int64_t rank = 0; rank < manifest.tp && !is_padded; ++rank)
        is_padded = has_padded_heads(plan.slice(tensor, cut, rank), cut);
      const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
      const StoredTensor* offset = is_padded ? source.find(module + ".weight_offset") : nullptr;
      if (offset == nullptr || formats::matrix_extents(offset->shape).columns > 1) continue;
      if (std::all_of(offset->bytes.begin(), offset->bytes.end(),
                      [](std::byte value) { return value == std::byte{0}; }))
        continue;
      throw formats::bad_input(fmt::format(
          "{}: heads must be padded at TP {}, and zero codes are no zero weights where offsets are "
          "not zero; quantize it symmetrically, or choose a TP size that divides the heads",
          offset->name, manifest.tp));
    }
  }
}

}  // namespace

Json run_shard_job(const ShardJob& job, Console& console) {
  formats::check_destination(job.destination, job.source, job.force);
  const formats::Checkpoint source = formats::Checkpoint::open(job.source);
  ShardManifest manifest = manifest_of(source, job.tp, job.pad);
  const ShardPlan plan = make_shard_plan(manifest, job.source);
  check_padded_heads(source, manifest, plan);
  check_disk(job.destination, needed_bytes(manifest, plan));
  quant::ThreadTeam team(job.n_threads);
  formats::StagingFolder staging(job.destination, job.source, job.force);
  staging.clear();
  ShardWriter writer(source, plan, manifest, staging.path());
  writer.write(team, console);
  throw_if_interrupted();
  staging.commit();
  Json padded = Json::object();
  for (const auto& [extent, size] : plan.partition.padded())
    padded[std::string(extent_name(extent))] = size;
  return {{"tp", job.tp},
          {"layout", shard_layout_name(manifest.layout)},
          {"fingerprint", manifest_fingerprint(manifest_json(manifest))},
          {"tensors", source.tensors().size()},
          {"source_bytes", source.size_bytes()},
          {"rank_bytes", writer.rank_bytes()},
          {"padded", std::move(padded)}};
}

std::string shard_text(const Json& report) {
  std::string text = fmt::format(
      "{} tensors, {}, for {} ranks, layout {}, fingerprint {}\n", report["tensors"].get<size_t>(),
      bytes_text(report["source_bytes"].get<uint64_t>()), report["tp"].get<int64_t>(),
      report["layout"].get<std::string>(), report["fingerprint"].get<std::string>());
  size_t rank = 0;
  for (const Json& size_bytes : report["rank_bytes"])
    text += fmt::format("rank {}: {}\n", rank++, bytes_text(size_bytes.get<uint64_t>()));
  for (const auto& [extent, size] : report["padded"].items())
    text += fmt::format("padded with zeros: {} to {}\n", extent, size.get<int64_t>());
  return text;
}

}  // namespace llmq::convert
