#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"

namespace llmq::formats {

/// One entry of a safetensors header (https://huggingface.co/docs/safetensors): a row-major
/// little-endian tensor at bytes [begin, end) of the data section.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;

  [[nodiscard]] uint64_t size_bytes() const { return end - begin; }
};

/// What stands before the data of a safetensors file.
struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;             ///< in the order of their bytes
  std::map<std::string, std::string> metadata;  ///< the header's __metadata__
  uint64_t data_begin = 0;                      ///< file offset of the data section
};

/// Largest header accepted, as the reference implementation has it.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// Reads and checks the header of a whole file. `origin` names the file in errors. Accepts only
/// what the format allows: known dtypes, shapes that match their byte range, ranges that cover the
/// data section exactly once without gap or overlap. Throws Error{kBadInput} naming tensor and
/// offset.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           std::string_view origin);

/// Gives the tensors consecutive byte ranges in their order (begin and end are overwritten).
/// Throws Error{kBadInput} on overflow.
void assign_offsets(std::vector<TensorEntry>& tensors);

/// The 8-byte length and JSON header of a file with these entries (whose ranges are assigned),
/// padded with spaces to a multiple of 8 bytes; the data section follows it directly.
std::string serialize_safetensors_header(const std::vector<TensorEntry>& tensors,
                                         const std::map<std::string, std::string>& metadata);

}  // namespace llmq::formats
