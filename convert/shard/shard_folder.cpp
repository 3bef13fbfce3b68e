#include "convert/shard/shard_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "convert/interrupt.h"
#include "convert/shard/shard_plan.h"
#include "convert/shard/shard_texts.h"
#include "convert/shard/stored_layout.h"
#include "convert/shard/weight_files.h"
#include "formats/checkpoint.h"
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
  size_t tensor = 0;   ///< in the file
  uint64_t begin = 0;  ///< first byte within that
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
    part.file->write(part.tensor, part.begin + static_cast<uint64_t>(block.rows.first) * row_bytes,
                     bytes);
  });
}

/// Writes the weights of all ranks.
class ShardWriter {
 public:
  struct Content {
    const formats::Checkpoint& source;
    const ShardPlan& plan;
    const StoredLayout& layout;
    ShardManifest& manifest;  ///< gets the checksums
  };

  ShardWriter(const Content& content, const fs::path& folder)
      : content_(content),
        folder_(folder),
        indexes_(static_cast<size_t>(content.manifest.tp)),
        rank_bytes_(static_cast<size_t>(content.manifest.tp)) {}

  void write(quant::ThreadTeam& team, Console& console) {
    for (int64_t rank = 0; rank < tp(); ++rank) fs::create_directories(rank_path(rank));
    for (size_t file = 0; file < content_.manifest.files.size(); ++file) {
      for (size_t i = 0; i < content_.manifest.files[file].tensors.size(); ++i) {
        throw_if_interrupted();
        write_tensor({file, i}, team);
        console.progress("sharding", done_bytes_, content_.source.size_bytes());
      }
    }
    // Files without a tensor are files of the source too.
    while (n_opened_ < content_.layout.files.size()) open_files(n_opened_);
    close_files();
    console.end_progress();
    const auto& index_file = content_.manifest.index_file;
    if (content_.layout.layout != ShardLayout::kHf || !index_file) return;
    for (int64_t rank = 0; rank < tp(); ++rank)
      indexes_[static_cast<size_t>(rank)].write(rank_path(rank) / *index_file);
  }

  [[nodiscard]] const std::vector<uint64_t>& rank_bytes() const { return rank_bytes_; }

 private:
  [[nodiscard]] int64_t tp() const { return content_.manifest.tp; }
  [[nodiscard]] fs::path rank_path(int64_t rank) const {
    return folder_ / rank_folder(content_.manifest.layout, rank, tp());
  }

  /// Opens a file of the layout for every rank; those before it are complete.
  void open_files(size_t file) {
    close_files();
    const StoredFile& stored = content_.layout.files[file];
    for (int64_t rank = 0; rank < tp(); ++rank) {
      std::vector<formats::TensorEntry> entries;
      for (const StoredPart& part : stored.parts)
        entries.push_back({part.name, part.dtype, part.shape, 0, 0});
      const std::string name = content_.layout.file_name(file, rank);
      writers_.push_back(std::make_unique<WeightFileWriter>(rank_path(rank) / name,
                                                            std::move(entries), stored.metadata));
      const auto at = static_cast<size_t>(rank);
      indexes_[at].add(name, writers_.back()->entries());
      if (!writers_.back()->entries().empty())
        rank_bytes_[at] += writers_.back()->entries().back().end;
    }
    n_opened_ = file + 1;
  }

  void close_files() {
    for (const auto& writer : writers_) writer->sync();
    writers_.clear();
  }

  void write_tensor(ManifestPlace at, quant::ThreadTeam& team) {
    ManifestTensor& tensor = content_.manifest.files[at.file].tensors[at.tensor];
    const StoredPlace& place = content_.layout.places[at.file][at.tensor];
    while (n_opened_ <= place.file) open_files(n_opened_);
    const StoredTensor& stored = content_.source.at(tensor.name);
    Checksum checksum;
    checksum.add(stored.bytes, team);
    tensor.crc32 = checksum.value();
    const uint64_t begin = content_.layout.part(place).begins[place.member];
    std::vector<PartWrite> parts;
    for (int64_t rank = 0; rank < tp() && !place.is_shared; ++rank) {
      parts.push_back({content_.plan.slice(tensor, content_.plan.cuts[at.file][at.tensor], rank),
                       writers_[static_cast<size_t>(rank)].get(), place.part, begin});
    }
    write_parts(stored, parts, team);
    formats::MappedFile::release(stored.bytes);
    done_bytes_ += stored.bytes.size();
  }

  Content content_;
  fs::path folder_;
  std::vector<std::unique_ptr<WeightFileWriter>> writers_;  // of the file that is open
  size_t n_opened_ = 0;
  std::vector<WeightIndex> indexes_;
  std::vector<uint64_t> rank_bytes_;
  uint64_t done_bytes_ = 0;
};

/// Bytes of all ranks' parts.
uint64_t needed_bytes(const ShardManifest& manifest, const StoredLayout& layout) {
  uint64_t needed = 0;
  for (const StoredFile& file : layout.files) {
    for (const StoredPart& part : file.parts)
      needed += part.size_bytes() * static_cast<uint64_t>(manifest.tp);
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
  ShardManifest manifest = manifest_of(source, {job.tp, job.layout, job.pad});
  const ShardPlan plan = make_shard_plan(manifest);
  manifest.padded = padded_config_sizes(plan);
  const StoredLayout layout = make_stored_layout(manifest, plan);
  check_padded_heads(source, manifest, plan);
  check_shared_values(source, manifest, layout);
  check_disk(job.destination, needed_bytes(manifest, layout));
  quant::ThreadTeam team(job.n_threads);
  formats::StagingFolder staging(job.destination, job.source, job.force);
  staging.clear();
  ShardWriter writer({source, plan, layout, manifest}, staging.path());
  writer.write(team, console);
  copy_beside_weights(job.source, staging.path());
  write_shard_texts(manifest, layout, staging.path());
  throw_if_interrupted();
  staging.commit();
  return {{"tp", job.tp},
          {"layout", formats::shard_layout_name(manifest.layout)},
          {"fingerprint", manifest_fingerprint(manifest_json(manifest))},
          {"tensors", source.tensors().size()},
          {"source_bytes", source.size_bytes()},
          {"rank_bytes", writer.rank_bytes()},
          {"padded", Json(manifest.padded)}};
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
