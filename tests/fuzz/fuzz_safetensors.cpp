// parse_safetensors_header on arbitrary bytes: it throws Error{kBadInput} or returns tensors that
// lie back to back, fill the file, and come out the same after the header is written again.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "formats/dtype.h"
#include "formats/error.h"
#include "formats/safetensors.h"

namespace {

using llmq::formats::SafetensorsHeader;
using llmq::formats::TensorEntry;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

bool same_entry(const TensorEntry& a, const TensorEntry& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin &&
         a.end == b.end;
}

void check_ranges(const SafetensorsHeader& header, uint64_t file_bytes) {
  require(header.data_begin <= file_bytes);
  uint64_t end = 0;
  for (const TensorEntry& tensor : header.tensors) {
    require(tensor.begin == end);
    require(tensor.end >= tensor.begin);
    require(tensor.size_bytes() == llmq::formats::tensor_size_bytes(tensor.dtype, tensor.shape));
    end = tensor.end;
  }
  require(end == file_bytes - header.data_begin);
}

void check_round_trip(const SafetensorsHeader& header, std::span<const std::byte> file) {
  std::string again = llmq::formats::serialize_safetensors_header(header.tensors, header.metadata);
  const auto data = file.subspan(header.data_begin);
  again.append(reinterpret_cast<const char*>(data.data()), data.size());
  const auto reread =
      llmq::formats::parse_safetensors_header(std::as_bytes(std::span(again)), "rewritten");
  require(reread.metadata == header.metadata);
  require(reread.tensors.size() == header.tensors.size());
  for (size_t i = 0; i < reread.tensors.size(); ++i) {
    require(same_entry(reread.tensors[i], header.tensors[i]));
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file = std::as_bytes(std::span(data, size));
  SafetensorsHeader header;
  try {
    header = llmq::formats::parse_safetensors_header(file, "fuzz input");
  } catch (const llmq::formats::Error& error) {
    require(error.code() == llmq::formats::ErrorCode::kBadInput);
    return 0;
  }
  check_ranges(header, size);
  check_round_trip(header, file);
  return 0;
}
