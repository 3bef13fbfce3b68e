#include "convert/commands/inspect_tensors.h"

#include "convert/compress/compressed_matrix.h"
#include "convert/shard/shard_manifest.h"
#include "formats/error.h"
#include "formats/safetensors.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;

void add_folder(const fs::path& path, const std::string& prefix, TensorList& list) {
  const formats::Checkpoint& folder = list.folders.emplace_back(formats::Checkpoint::open(path));
  for (const formats::StoredTensor& tensor : folder.tensors())
    list.tensors.push_back({prefix + tensor.name, tensor, &folder});
}

void add_file(const fs::path& path, TensorList& list) {
  const auto bytes = list.file.emplace_back(path).bytes();
  const formats::SafetensorsHeader header = formats::parse_safetensors_header(bytes, path.string());
  for (const formats::TensorEntry& entry : header.tensors) {
    list.tensors.push_back({entry.name,
                            {entry.name, entry.dtype, entry.shape,
                             bytes.subspan(header.data_begin + entry.begin, entry.size_bytes()), 0},
                            nullptr});
  }
}

}  // namespace

bool ListedTensor::is_compressed() const {
  return folder != nullptr && stored.name.ends_with(".weight") && stored.shape.size() == 1 &&
         folder->find(index_name(stored.name)) != nullptr &&
         folder->find(info_name(stored.name)) != nullptr;
}

TensorList list_tensors(const fs::path& path) {
  TensorList list;
  if (!fs::is_directory(path)) {
    add_file(path, list);
  } else if (fs::exists(path / kShardManifestFile)) {
    const ShardManifest manifest = read_manifest(path);
    list.folders.reserve(static_cast<size_t>(manifest.tp));
    for (int64_t rank = 0; rank < manifest.tp; ++rank) {
      const std::string folder = rank_folder(manifest.layout, rank, manifest.tp);
      add_folder(path / folder, folder + "/", list);
    }
  } else {
    list.folders.reserve(1);
    add_folder(path, "", list);
  }
  return list;
}

formats::Json compression_json(const ListedTensor& tensor) {
  const CompressedMatrix matrix = open_compressed(*tensor.folder, tensor.stored.name);
  const formats::TileGrid& grid = matrix.reader->grid();
  const auto n_codes = static_cast<double>(grid.n()) * static_cast<double>(grid.k());
  const auto stored_bytes =
      static_cast<double>(tensor.stored.bytes.size()) + 8.0 * static_cast<double>(grid.n_tiles());
  return {{"codec", quant::codec_name(matrix.reader->codec())},
          {"shape", {grid.n(), grid.k()}},
          {"tiles", grid.n_tiles()},
          {"bits_per_weight", 8.0 * stored_bytes / n_codes}};
}

TensorStatistics value_statistics(const ListedTensor& tensor) {
  if (!tensor.is_compressed()) return tensor_statistics(tensor.stored);
  const CompressedMatrix matrix = open_compressed(*tensor.folder, tensor.stored.name);
  const formats::TileGrid& grid = matrix.reader->grid();
  std::vector<int8_t> codes(static_cast<size_t>(grid.n() * grid.k()));
  quant::ThreadTeam alone(1);
  try {
    matrix.reader->decode({codes.data(), grid.n(), grid.k(), grid.k()}, alone);
  } catch (const formats::Error& error) {
    throw error.with_context("tensor " + tensor.name);
  }
  return tensor_statistics(
      {tensor.name, formats::DType::kI8, {grid.n(), grid.k()}, std::as_bytes(std::span(codes)), 0});
}

}  // namespace llmq::convert
