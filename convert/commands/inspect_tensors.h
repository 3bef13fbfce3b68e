#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/report/tensor_statistics.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/json.h"

namespace llmq::convert {

/// A tensor that is listed.
struct ListedTensor {
  std::string name;  ///< with the folder of its rank where several are listed
  formats::StoredTensor stored;
  const formats::Checkpoint* folder = nullptr;  ///< null where it is of a single file

  /// True for the weight of W8A8SC: bytes that are no matrix but hold one.
  [[nodiscard]] bool is_compressed() const;
};

/// Tensors and what keeps their bytes mapped.
struct TensorList {
  std::vector<formats::MappedFile> file;
  std::vector<formats::Checkpoint> folders;
  std::vector<ListedTensor> tensors;
};

/// The tensors of a folder, of all ranks of a folder of shards, or of a safetensors file. Throws
/// Error{kBadInput}.
TensorList list_tensors(const std::filesystem::path& path);

/// {"codec", "shape": of the matrix, "tiles", "bits_per_weight"} of a compressed weight. Throws
/// Error{kBadInput}.
formats::Json compression_json(const ListedTensor& tensor);

/// Statistics of the values; of a compressed weight those of its codes, for which the matrix is
/// decoded. Thread safe. Throws Error{kBadInput}.
TensorStatistics value_statistics(const ListedTensor& tensor);

}  // namespace llmq::convert
