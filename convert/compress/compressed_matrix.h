#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "quant/codec/w8a8sc.h"

namespace llmq::convert {

/// True for the name of a weight that is compressed where it is tagged `tag` and stored as codes:
/// W8A8S, and not that of a norm.
bool is_compressible(std::string_view tensor, std::string_view tag);

/// "x.weight" → "x.index", "x.info".
std::string index_name(std::string_view weight);
std::string info_name(std::string_view weight);

/// A compressed matrix of a checkpoint, its container and header checked.
struct CompressedMatrix {
  std::vector<int64_t> info;  ///< copied, because it may lie at any address in the file
  std::unique_ptr<const quant::CompressedReader> reader;
};

/// Opens the matrix whose tensor `weight` ("x.weight") is one of `part`, which must outlive the
/// result. Throws Error{kBadInput} that names the tensor where index or info is missing, has
/// another type, or does not fit.
CompressedMatrix open_compressed(const formats::Checkpoint& part, const std::string& weight);

}  // namespace llmq::convert
