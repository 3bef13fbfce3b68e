#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "formats/error.h"
#include "formats/json.h"

namespace llmq::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr size_t kLengthBytes = 8;

uint64_t unsigned_field(const Json& value, std::string_view what) {
  if (!value.is_number_unsigned()) {
    throw bad_input(
        fmt::format("{} is {}, not a whole number of 0 or more", what,
                    value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80)));
  }
  return value.get<uint64_t>();
}

Shape parse_shape(const Json& value) {
  if (!value.is_array()) throw bad_input("\"shape\" is not a list");
  Shape shape;
  for (const Json& extent : value) {
    const uint64_t number = unsigned_field(extent, "an extent of \"shape\"");
    if (number > static_cast<uint64_t>(INT64_MAX))
      throw bad_input("an extent of \"shape\" exceeds 2^63");
    shape.push_back(static_cast<int64_t>(number));
  }
  return shape;
}

const Json& field(const Json& entry, const char* name) {
  const auto it = entry.find(name);
  if (it == entry.end()) throw bad_input(fmt::format("\"{}\" is missing", name));
  return *it;
}

TensorEntry parse_entry(const std::string& name, const Json& value) {
  if (!value.is_object()) throw bad_input("the entry is not an object");
  TensorEntry entry;
  entry.name = name;
  const Json& dtype = field(value, "dtype");
  if (!dtype.is_string()) throw bad_input("\"dtype\" is not a string");
  entry.dtype = parse_dtype(dtype.get<std::string>());
  entry.shape = parse_shape(field(value, "shape"));
  const Json& offsets = field(value, "data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) {
    throw bad_input("\"data_offsets\" is not a pair of numbers");
  }
  entry.begin = unsigned_field(offsets[0], "the begin of \"data_offsets\"");
  entry.end = unsigned_field(offsets[1], "the end of \"data_offsets\"");
  if (entry.begin > entry.end) {
    throw bad_input(
        fmt::format("data_offsets [{}, {}] end before they begin", entry.begin, entry.end));
  }
  const uint64_t expected = tensor_size_bytes(entry.dtype, entry.shape);
  if (entry.size_bytes() != expected) {
    throw bad_input(fmt::format("data_offsets [{}, {}] hold {} bytes but {} {} needs {}",
                                entry.begin, entry.end, entry.size_bytes(), dtype_name(entry.dtype),
                                shape_string(entry.shape), expected));
  }
  return entry;
}

void parse_metadata(const Json& value, std::map<std::string, std::string>& metadata) {
  if (!value.is_object()) throw bad_input("__metadata__ is not an object");
  for (const auto& [key, text] : value.items()) {
    // Other writers put numbers and null here; they carry no tensor data, so their spelling is
    // kept.
    metadata[key] = text.is_string() ? text.get<std::string>() : text.dump();
  }
}

/// The ranges, in byte order, must cover [0, data_size) exactly once.
void check_coverage(const SafetensorsHeader& header, uint64_t data_size, std::string_view origin) {
  uint64_t covered = 0;
  for (const TensorEntry& entry : header.tensors) {
    if (entry.begin != covered) {
      throw bad_input(fmt::format(
          "{}: tensor {}: its bytes begin at {} of the data section but the tensor before ends at "
          "{} "
          "({}); the file is damaged, download it again",
          origin, entry.name, entry.begin, covered, entry.begin < covered ? "overlap" : "gap"));
    }
    if (entry.end > data_size) {
      throw bad_input(
          fmt::format("{}: tensor {}: its bytes end at {} of the data section, which has only {} "
                      "bytes; the file is "
                      "truncated, download it again",
                      origin, entry.name, entry.end, data_size));
    }
    covered = entry.end;
  }
  if (covered != data_size) {
    throw bad_input(fmt::format(
        "{}: the tensors end at {} of a data section of {} bytes; the file has {} bytes too many",
        origin, covered, data_size, data_size - covered));
  }
}

uint64_t header_length(std::span<const std::byte> file, std::string_view origin) {
  if (file.size() < kLengthBytes) {
    throw bad_input(
        fmt::format("{}: {} bytes are too few for a safetensors file; it is truncated, "
                    "download it again",
                    origin, file.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxSafetensorsHeaderBytes) {
    throw bad_input(
        fmt::format("{}: header length {} at offset 0 exceeds the limit of {}; this is not a "
                    "safetensors file or it is damaged",
                    origin, length, kMaxSafetensorsHeaderBytes));
  }
  if (length > file.size() - kLengthBytes) {
    throw bad_input(
        fmt::format("{}: header length {} at offset 0 is more than the {} bytes that follow; "
                    "the file is truncated, download it again",
                    origin, length, file.size() - kLengthBytes));
  }
  return length;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           std::string_view origin) {
  const uint64_t length = header_length(file, origin);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  const Json json =
      parse_json(text, fmt::format("{}: header", origin), {kMaxSafetensorsHeaderBytes, 8});
  if (!json.is_object())
    throw bad_input(fmt::format("{}: the header is not a JSON object", origin));

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, value] : json.items()) {
    try {
      if (name == kMetadataKey) {
        parse_metadata(value, header.metadata);
      } else {
        header.tensors.push_back(parse_entry(name, value));
      }
    } catch (const Error& error) {
      throw error.with_context(fmt::format("{}: tensor {}", origin, name));
    }
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorEntry& a, const TensorEntry& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  check_coverage(header, file.size() - header.data_begin, origin);
  return header;
}

void assign_offsets(std::vector<TensorEntry>& tensors) {
  uint64_t offset = 0;
  for (TensorEntry& entry : tensors) {
    entry.begin = offset;
    if (__builtin_add_overflow(offset, tensor_size_bytes(entry.dtype, entry.shape), &offset)) {
      throw bad_input("tensor " + entry.name + ": the file would exceed 2^64 bytes");
    }
    entry.end = offset;
  }
}

std::string serialize_safetensors_header(const std::vector<TensorEntry>& tensors,
                                         const std::map<std::string, std::string>& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) json[std::string(kMetadataKey)] = metadata;
  for (const TensorEntry& entry : tensors) {
    append_key(json, entry.name,
               {{"dtype", dtype_name(entry.dtype)},
                {"shape", entry.shape},
                {"data_offsets", {entry.begin, entry.end}}});
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string bytes(kLengthBytes, '\0');
  std::memcpy(bytes.data(), &length, kLengthBytes);
  return bytes + text;
}

}  // namespace llmq::formats
