#include "convert/shard/weight_files.h"

#include <fmt/format.h>

#include <zlib.h>

#include <algorithm>
#include <array>
#include <utility>

#include "convert/report/console.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChecksumBlockBytes = size_t{4} << 20;

constexpr std::array<std::string_view, 8> kWeightExtensions{
    ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"};
/// Of what quantization tools keep beside the weights.
constexpr std::string_view kOptionalFolder = "optional";

bool stands_beside(const std::string& name) {
  const bool is_weight =
      std::any_of(kWeightExtensions.begin(), kWeightExtensions.end(),
                  [&](std::string_view extension) { return name.ends_with(extension); });
  return !is_weight && name != "config.json" && !name.ends_with(".index.json") &&
         !name.starts_with("quant_model_description") && !name.starts_with("llmq_shard");
}

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
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    std::error_code error;  // of a link that leads nowhere
    if (entry.is_regular_file(error) && !error && stands_beside(name))
      formats::copy_file_synced(entry.path(), to / name);
  }
  std::error_code error;
  if (!fs::is_directory(from / kOptionalFolder, error)) return;
  for (const auto& entry : fs::recursive_directory_iterator(from / kOptionalFolder)) {
    if (!entry.is_regular_file()) continue;
    const fs::path path = to / entry.path().lexically_relative(from);
    fs::create_directories(path.parent_path());
    formats::copy_file_synced(entry.path(), path);
  }
}

}  // namespace llmq::convert
