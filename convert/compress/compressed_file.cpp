#include "convert/compress/compressed_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "convert/compress/compressed_matrix.h"
#include "formats/error.h"
#include "formats/w8a8sc.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::OutputFile;
using formats::StoredTensor;
using formats::TensorEntry;
namespace fs = std::filesystem;

constexpr size_t kBlockBytes = size_t{4} << 20;
constexpr size_t kLengthBytes = 8;  // of a header, before it

formats::TileGrid grid_of(const StoredTensor& tensor) {
  if (tensor.dtype != DType::kI8 || tensor.shape.size() != 2) {
    throw formats::bad_input(fmt::format("tensor {} is {} {}; W8A8S has int8 matrices", tensor.name,
                                         formats::dtype_name(tensor.dtype),
                                         formats::shape_string(tensor.shape)));
  }
  try {
    return {tensor.shape[0], tensor.shape[1]};
  } catch (const formats::Error& error) {
    throw error.with_context("tensor " + tensor.name);
  }
}

/// Writes compressed bytes to their place in a file.
class FileSink final : public quant::CompressedSink {
 public:
  FileSink(const OutputFile& file, uint64_t begin) : file_(file), begin_(begin) {}
  void extend(uint64_t) override {}
  void write(uint64_t offset_bytes, std::span<const std::byte> bytes) override {
    file_.write_at(begin_ + offset_bytes, bytes);
  }

 private:
  const OutputFile& file_;
  uint64_t begin_;
};

/// The header of `entries`, whose ranges are assigned, filled up to `size_bytes`.
std::string filled_header(const std::vector<TensorEntry>& entries,
                          const std::map<std::string, std::string>& metadata, size_t size_bytes) {
  std::string header = formats::serialize_safetensors_header(entries, metadata);
  if (header.size() > size_bytes)
    throw formats::Error(formats::ErrorCode::kInternal, "a header grew beyond its room");
  header.resize(size_bytes, ' ');
  uint64_t length = size_bytes - kLengthBytes;
  for (size_t i = 0; i < kLengthBytes; ++i, length >>= 8)
    header[i] = static_cast<char>(length & 0xff);
  return header;
}

}  // namespace

CompressedFileWriter::Plan CompressedFileWriter::make_plan(
    const std::vector<TensorToStore>& tensors, const std::map<std::string, std::string>& metadata) {
  Plan plan;
  std::vector<TensorEntry> weights;
  for (const auto& [tensor, is_coded] : tensors) {
    if (!is_coded) {
      plan.entries.push_back({tensor->name, tensor->dtype, tensor->shape, 0, 0});
      continue;
    }
    const formats::TileGrid grid = grid_of(*tensor);
    plan.entries.push_back({index_name(tensor->name), DType::kI8, {8 * grid.n_tiles()}, 0, 0});
    plan.entries.push_back({info_name(tensor->name), DType::kI64, {5}, 0, 0});
    const auto most = static_cast<int64_t>(quant::most_compressed_bytes(grid));
    weights.push_back({tensor->name, DType::kI8, {most}, 0, 0});
  }
  formats::assign_offsets(plan.entries);
  plan.known_bytes = plan.entries.empty() ? 0 : plan.entries.back().end;
  for (const TensorEntry& entry : plan.entries) plan.offsets[entry.name] = entry.begin;
  plan.entries.insert(plan.entries.end(), weights.begin(), weights.end());
  formats::assign_offsets(plan.entries);
  plan.header_bytes = formats::serialize_safetensors_header(plan.entries, metadata).size();
  plan.most_bytes = plan.header_bytes + (plan.entries.empty() ? 0 : plan.entries.back().end);
  return plan;
}

OutputFile CompressedFileWriter::open(const fs::path& path, uint64_t size_bytes,
                                      OutputFile::Mode mode) {
  if (mode == OutputFile::Mode::kReopen) {
    // It may have been finished, and cut, just before it was interrupted.
    std::error_code error;
    fs::resize_file(path, size_bytes, error);
    if (error) throw formats::io_error("cannot resize " + path.string(), error.value());
  }
  return {path, size_bytes, mode};
}

CompressedFileWriter::CompressedFileWriter(const fs::path& path, std::vector<TensorToStore> tensors,
                                           std::map<std::string, std::string> metadata,
                                           OutputFile::Mode mode)
    : tensors_(std::move(tensors)),
      metadata_(std::move(metadata)),
      plan_(make_plan(tensors_, metadata_)),
      file_(open(path, plan_.most_bytes, mode)) {}

void CompressedFileWriter::copy(size_t i, quant::ThreadTeam& team) const {
  const StoredTensor& tensor = *tensors_.at(i).tensor;
  const uint64_t begin = plan_.header_bytes + plan_.offsets.at(tensor.name);
  const size_t n_blocks = (tensor.bytes.size() + kBlockBytes - 1) / kBlockBytes;
  team.parallel_for(static_cast<int64_t>(n_blocks), [&](int64_t block, int) {
    const size_t first = static_cast<size_t>(block) * kBlockBytes;
    const auto bytes =
        tensor.bytes.subspan(first, std::min(kBlockBytes, tensor.bytes.size() - first));
    file_.write_at(begin + first, bytes);
    formats::MappedFile::release(bytes);
  });
}

quant::CompressionResult CompressedFileWriter::code(size_t i, uint64_t offset_bytes,
                                                    quant::W8A8scCodec codec,
                                                    quant::ThreadTeam& team) const {
  const StoredTensor& tensor = *tensors_.at(i).tensor;
  const formats::ConstCodes codes{reinterpret_cast<const int8_t*>(tensor.bytes.data()),
                                  tensor.shape[0], tensor.shape[1], tensor.shape[1]};
  FileSink sink(file_, plan_.header_bytes + plan_.known_bytes + offset_bytes);
  quant::CompressionResult result;
  try {
    result = quant::compress_codes(codes, codec, team, sink);
  } catch (const formats::Error& error) {
    throw error.with_context("tensor " + tensor.name);
  }
  file_.write_at(plan_.header_bytes + plan_.offsets.at(index_name(tensor.name)), result.index);
  file_.write_at(plan_.header_bytes + plan_.offsets.at(info_name(tensor.name)),
                 std::as_bytes(std::span(result.info)));
  formats::MappedFile::release(tensor.bytes);
  return result;
}

std::vector<TensorEntry> CompressedFileWriter::finish(
    const std::vector<uint64_t>& weight_sizes) const {
  std::vector<TensorEntry> entries = plan_.entries;
  const size_t n_known = entries.size() - weight_sizes.size();
  for (size_t i = 0; i < weight_sizes.size(); ++i)
    entries[n_known + i].shape = {static_cast<int64_t>(weight_sizes[i])};
  formats::assign_offsets(entries);
  const std::string header = filled_header(entries, metadata_, plan_.header_bytes);
  file_.write_at(0, std::as_bytes(std::span(header)));
  const uint64_t size_bytes = header.size() + (entries.empty() ? 0 : entries.back().end);
  std::error_code error;
  fs::resize_file(file_.path(), size_bytes, error);
  if (error) throw formats::io_error("cannot resize " + file_.path().string(), error.value());
  file_.sync();
  return entries;
}

}  // namespace llmq::convert
