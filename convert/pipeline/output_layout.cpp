#include "convert/pipeline/output_layout.h"

#include <fmt/format.h>

#include <utility>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::TensorEntry;

/// The tensors of each file, in writing order.
std::vector<std::vector<TensorEntry>> split_tensors(const Ledger& ledger,
                                                    uint64_t part_size_bytes) {
  std::vector<std::vector<TensorEntry>> parts(1);
  uint64_t pending = 0;
  for (const OutputModule* output : ledger.modules_in_order()) {
    for (const OutputTensor& tensor : output->tensors) {
      const uint64_t size_bytes = formats::tensor_size_bytes(tensor.dtype, tensor.shape);
      if (part_size_bytes > 0 && !parts.back().empty() && pending + size_bytes >= part_size_bytes) {
        parts.emplace_back();
        pending = 0;
      }
      pending += size_bytes;
      parts.back().push_back({tensor.name, tensor.dtype, tensor.shape, 0, 0});
    }
  }
  return parts;
}

}  // namespace

OutputLayout::OutputLayout(const Ledger& ledger, const OutputNaming& naming) {
  std::vector<std::vector<TensorEntry>> parts = split_tensors(ledger, naming.part_size_bytes);
  const bool is_split = naming.part_size_bytes > 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    File file;
    file.name = is_split
                    ? fmt::format("{}-{:05}-of-{:05}.safetensors", naming.stem, i + 1, parts.size())
                    : naming.stem + ".safetensors";
    file.tensors = std::move(parts[i]);
    formats::assign_offsets(file.tensors);
    file.header = formats::serialize_safetensors_header(file.tensors, {{"format", "pt"}});
    for (const TensorEntry& tensor : file.tensors) {
      places_[tensor.name] = {i, file.header.size() + tensor.begin};
    }
    file.size_bytes = file.header.size() + (file.tensors.empty() ? 0 : file.tensors.back().end);
    files_.push_back(std::move(file));
  }
  if (is_split) index_name_ = naming.stem + ".safetensors.index.json";
}

uint64_t OutputLayout::size_bytes() const {
  uint64_t total = 0;
  for (const File& file : files_) total += file.size_bytes;
  return total;
}

OutputLayout::Place OutputLayout::place_of(const std::string& tensor) const {
  const auto it = places_.find(tensor);
  if (it == places_.end())
    throw formats::Error(formats::ErrorCode::kInternal, tensor + " has no place in the output");
  return it->second;
}

formats::Json OutputLayout::index_json() const {
  uint64_t total_size = 0;
  formats::Json map = formats::Json::object();
  for (const File& file : files_) {
    for (const TensorEntry& tensor : file.tensors) {
      formats::append_key(map, tensor.name, file.name);
      total_size += tensor.size_bytes();
    }
  }
  return {{"metadata", {{"total_size", total_size}}}, {"weight_map", map}};
}

OutputFiles::OutputFiles(const OutputLayout& layout, const std::filesystem::path& folder,
                         formats::OutputFile::Mode mode) {
  for (const OutputLayout::File& file : layout.files()) {
    files_.emplace_back(folder / file.name, file.size_bytes, mode);
    files_.back().write_at(0, std::as_bytes(std::span(file.header)));
  }
}

void OutputFiles::write(const OutputLayout::Place& place, uint64_t offset_bytes,
                        std::span<const std::byte> bytes) const {
  files_.at(place.file_index).write_at(place.offset_bytes + offset_bytes, bytes);
}

void OutputFiles::sync() const {
  for (const formats::OutputFile& file : files_) file.sync();
}

}  // namespace llmq::convert
