#include "convert/shard/weight_files.h"

#include <fmt/format.h>

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "convert/pipeline/side_files.h"
#include "convert/report/console.h"
#include "convert/shard/shard_manifest.h"
#include "formats/description.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChecksumBlockBytes = size_t{4} << 20;

uint32_t crc32_of_block(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      crc32_z(crc32(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

formats::OutputFile WeightFileWriter::created(const fs::path& path,
                                              std::vector<formats::TensorEntry>& entries,
                                              std::string& header,
                                              const std::map<std::string, std::string>& metadata) {
  formats::assign_offsets(entries);
  header = formats::serialize_safetensors_header(entries, metadata);
  return {path, header.size() + (entries.empty() ? 0 : entries.back().end)};
}

WeightFileWriter::WeightFileWriter(const fs::path& path, std::vector<formats::TensorEntry> entries,
                                   const std::map<std::string, std::string>& metadata)
    : entries_(std::move(entries)), file_(created(path, entries_, header_, metadata)) {
  file_.write_at(0, std::as_bytes(std::span(header_)));
}

void WeightFileWriter::write(size_t tensor, uint64_t offset_bytes,
                             std::span<const std::byte> bytes) const {
  file_.write_at(header_.size() + entries_.at(tensor).begin + offset_bytes, bytes);
}

void WeightIndex::add(const std::string& file, std::span<const formats::TensorEntry> entries) {
  for (const formats::TensorEntry& entry : entries) {
    formats::append_key(map_, entry.name, file);
    total_size_ += entry.size_bytes();
  }
}

void WeightIndex::write(const fs::path& path) const {
  const formats::Json index{{"metadata", {{"total_size", total_size_}}}, {"weight_map", map_}};
  formats::write_text_file(path, index.dump(2) + "\n");
}

void Checksum::add(std::span<const std::byte> bytes, quant::ThreadTeam& team) {
  const size_t n_blocks = (bytes.size() + kChecksumBlockBytes - 1) / kChecksumBlockBytes;
  const auto block = [&](size_t i) {
    const size_t begin = i * kChecksumBlockBytes;
    return bytes.subspan(begin, std::min(kChecksumBlockBytes, bytes.size() - begin));
  };
  std::vector<uint32_t> checksums(n_blocks);
  team.parallel_for(static_cast<int64_t>(n_blocks), [&](int64_t i, int) {
    checksums[static_cast<size_t>(i)] = crc32_of_block(block(static_cast<size_t>(i)));
  });
  for (size_t i = 0; i < n_blocks; ++i) {
    value_ = static_cast<uint32_t>(
        crc32_combine(value_, checksums[i], static_cast<z_off_t>(block(i).size())));
  }
}

void check_disk(const fs::path& destination, uint64_t needed_bytes) {
  constexpr uint64_t kReserveBytes = uint64_t{64} << 20;
  const uint64_t free_bytes = formats::free_disk_bytes(destination);
  if (free_bytes >= needed_bytes + kReserveBytes) return;
  throw formats::Error(formats::ErrorCode::kIo,
                       fmt::format("the disk of {} has {} free, but {} are needed; free some space "
                                   "or choose another destination",
                                   destination.string(), bytes_text(free_bytes),
                                   bytes_text(needed_bytes + kReserveBytes)));
}

void copy_beside_weights(const fs::path& from, const fs::path& to) {
  std::vector<std::string> names = side_files(from);
  std::erase(names, std::string(kShardManifestFile));
  names.emplace_back("config.json");
  if (const auto description = formats::find_description(from))
    names.push_back(description->filename().string());
  for (const std::string& name : names) formats::copy_file_synced(from / name, to / name);
}

}  // namespace llmq::convert
