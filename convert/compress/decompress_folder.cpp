#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>
#include <vector>

#include "convert/compress/compress_folder.h"
#include "convert/compress/compressed_matrix.h"
#include "convert/compress/compressed_note.h"
#include "convert/interrupt.h"
#include "convert/shard/shard_manifest.h"
#include "convert/shard/weight_files.h"
#include "formats/error.h"
#include "formats/staging.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Checkpoint;
using formats::Json;
using formats::StoredTensor;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kBlockBytes = size_t{4} << 20;

/// A file of the split folder to be restored from the checkpoint of its rank.
struct FileToRestore {
  const CompressedFile* file = nullptr;
  const Checkpoint* part = nullptr;
  std::vector<formats::TensorEntry> entries;
};

class Restorer {
 public:
  Restorer(const fs::path& folder, const CompressedNote& note)
      : folder_(folder), note_(note), manifest_(read_manifest(folder)) {
    const Json document = manifest_json(manifest_);
    if (manifest_fingerprint(document) != note.fingerprint) {
      throw bad_input(fmt::format(
          "{}: belongs to shards with the fingerprint {}, but {} has {}; they are not of one run",
          (folder / kCompressedNoteFile).string(), note.fingerprint, kShardManifestFile,
          manifest_fingerprint(document)));
    }
    parts_.reserve(static_cast<size_t>(manifest_.tp));
    for (int64_t rank = 0; rank < manifest_.tp; ++rank) {
      const fs::path path = folder / rank_folder(manifest_.layout, rank, manifest_.tp);
      check_shard_note(path, document, rank);
      parts_.push_back(Checkpoint::open(path));
    }
    for (const CompressedFile& file : note.weights) plan_file(file);
  }

  [[nodiscard]] int64_t tp() const { return manifest_.tp; }
  [[nodiscard]] size_t n_matrices() const { return n_matrices_; }
  [[nodiscard]] uint64_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] uint64_t int8_bytes() const { return int8_bytes_; }
  [[nodiscard]] uint64_t compressed_bytes() const { return compressed_bytes_; }

  void write(const fs::path& to, quant::ThreadTeam& team, Console& console) {
    for (const FileToRestore& file : files_) {
      const fs::path path = to / file.file->split;
      fs::create_directories(path.parent_path());
      const WeightFileWriter writer(path, file.entries, metadata_of(folder_ / file.file->name));
      for (size_t i = 0; i < file.entries.size(); ++i) {
        throw_if_interrupted();
        write_tensor(file, i, writer, team);
        done_bytes_ += writer.entries()[i].size_bytes();
        console.progress("decompressing", done_bytes_, total_bytes_);
      }
      writer.sync();
    }
    console.end_progress();
    write_others(to);
  }

 private:
  static std::map<std::string, std::string> metadata_of(const fs::path& path) {
    const formats::MappedFile file(path);
    return formats::parse_safetensors_header(file.bytes(), path.string()).metadata;
  }

  static bool is_compressed(const Checkpoint& part, const std::string& tensor) {
    return tensor.ends_with(".weight") && part.find(index_name(tensor)) != nullptr;
  }

  /// The part in whose folder a file lies.
  [[nodiscard]] const Checkpoint& part_of(const std::string& file) const {
    for (int64_t rank = 0; rank < manifest_.tp; ++rank) {
      if (fs::path(file).parent_path() == rank_folder(manifest_.layout, rank, manifest_.tp))
        return parts_[static_cast<size_t>(rank)];
    }
    throw bad_input(fmt::format("{}: names the weight file {}, in no folder of a rank",
                                (folder_ / kCompressedNoteFile).string(), file));
  }

  void plan_file(const CompressedFile& file) {
    FileToRestore restored{&file, &part_of(file.name), {}};
    for (const std::string& name : file.tensors) {
      const StoredTensor& tensor = restored.part->at(name);
      restored.entries.push_back({name, tensor.dtype, tensor.shape, 0, 0});
      if (!is_compressed(*restored.part, name)) {
        total_bytes_ += tensor.bytes.size();
        continue;
      }
      const CompressedMatrix matrix = open_compressed(*restored.part, name);
      const formats::TileGrid& grid = matrix.reader->grid();
      restored.entries.back().shape = {grid.n(), grid.k()};
      ++n_matrices_;
      const auto size_bytes = static_cast<uint64_t>(grid.n() * grid.k());
      total_bytes_ += size_bytes;
      int8_bytes_ += size_bytes;
      compressed_bytes_ += tensor.bytes.size() + 8 * static_cast<uint64_t>(grid.n_tiles()) +
                           sizeof(int64_t) * matrix.info.size();
    }
    files_.push_back(std::move(restored));
  }

  void write_tensor(const FileToRestore& file, size_t i, const WeightFileWriter& writer,
                    quant::ThreadTeam& team) {
    const std::string& name = file.entries[i].name;
    const StoredTensor& stored = file.part->at(name);
    if (!is_compressed(*file.part, name)) {
      write_blocks(writer, i, stored.bytes, team);
    } else {
      const CompressedMatrix matrix = open_compressed(*file.part, name);
      const formats::TileGrid& grid = matrix.reader->grid();
      codes_.resize(static_cast<size_t>(grid.n() * grid.k()));
      try {
        matrix.reader->decode({codes_.data(), grid.n(), grid.k(), grid.k()}, team);
      } catch (const formats::Error& error) {
        throw error.with_context(fmt::format("{}: tensor {}", file.part->folder().string(), name));
      }
      write_blocks(writer, i, std::as_bytes(std::span(codes_)), team);
    }
    formats::MappedFile::release(stored.bytes);
  }

  static void write_blocks(const WeightFileWriter& writer, size_t tensor,
                           std::span<const std::byte> bytes, quant::ThreadTeam& team) {
    const size_t n_blocks = (bytes.size() + kBlockBytes - 1) / kBlockBytes;
    team.parallel_for(static_cast<int64_t>(n_blocks), [&](int64_t block, int) {
      const size_t first = static_cast<size_t>(block) * kBlockBytes;
      writer.write(tensor, first,
                   bytes.subspan(first, std::min(kBlockBytes, bytes.size() - first)));
    });
  }

  /// Files beside the weights: what compression replaced, and all that it left as it was.
  void write_others(const fs::path& to) const {
    std::set<std::string> done{std::string(kCompressedNoteFile)};
    for (const CompressedFile& file : note_.weights) done.insert(file.name);
    for (const ReplacedFile& file : note_.replaced) {
      done.insert(file.name);
      fs::create_directories((to / file.split).parent_path());
      formats::write_text_file(to / file.split, file.text);
    }
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      const std::string path = entry.path().lexically_relative(folder_);
      if (!entry.is_regular_file() || done.contains(path)) continue;
      fs::create_directories((to / path).parent_path());
      formats::copy_file_synced(entry.path(), to / path);
    }
  }

  fs::path folder_;
  const CompressedNote& note_;
  ShardManifest manifest_;
  std::vector<Checkpoint> parts_;
  std::vector<FileToRestore> files_;
  std::vector<int8_t> codes_;
  size_t n_matrices_ = 0;
  uint64_t total_bytes_ = 0;
  uint64_t int8_bytes_ = 0;
  uint64_t compressed_bytes_ = 0;
  uint64_t done_bytes_ = 0;
};

}  // namespace

Json run_decompress_job(const DecompressJob& job, Console& console) {
  const auto started = Clock::now();
  formats::check_destination(job.destination, job.source, job.force);
  const CompressedNote note = read_compressed_note(job.source);
  Restorer restorer(job.source, note);
  check_disk(job.destination, restorer.total_bytes());
  quant::ThreadTeam team(job.n_threads);
  formats::StagingFolder staging(job.destination, job.source, job.force);
  staging.clear();
  restorer.write(staging.path(), team, console);
  throw_if_interrupted();
  staging.commit();
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  return {{"tp", restorer.tp()},
          {"codec", quant::codec_name(note.codec)},
          {"fingerprint", note.fingerprint},
          {"matrices", restorer.n_matrices()},
          {"int8_bytes", restorer.int8_bytes()},
          {"compressed_bytes", restorer.compressed_bytes()},
          {"written_bytes", restorer.total_bytes()},
          {"seconds", seconds},
          {"decoded_bytes_per_second",
           static_cast<double>(restorer.int8_bytes()) / std::max(seconds, 1e-9)}};
}

std::string decompress_text(const Json& report) {
  return fmt::format(
      "{} matrices of {} ranks, fingerprint {}; every checksum holds\n"
      "compressed {} -> int8 {}, {} written in {}\n",
      report["matrices"].get<size_t>(), report["tp"].get<int64_t>(),
      report["fingerprint"].get<std::string>(),
      bytes_text(report["compressed_bytes"].get<uint64_t>()),
      bytes_text(report["int8_bytes"].get<uint64_t>()),
      bytes_text(report["written_bytes"].get<uint64_t>()),
      seconds_text(report["seconds"].get<double>()));
}

}  // namespace llmq::convert
