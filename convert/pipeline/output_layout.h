#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "convert/pipeline/ledger.h"
#include "formats/file.h"
#include "formats/safetensors.h"

namespace llmq::convert {

/// How the weight files of a destination are called and split.
struct OutputNaming {
  std::string stem;  ///< "quant_model_weight_w8a16" or "model"
  /// Largest file in bytes; 0 writes one file "{stem}.safetensors" without index. As the vendor's
  /// tool splits: a file ends before the tensor that would bring it to this size.
  uint64_t part_size_bytes = 0;
};

/// The weight files to be written, byte for byte known before any weight is read: sizes follow from
/// shapes, so that threads can write anywhere in them in any order.
class OutputLayout {
 public:
  struct File {
    std::string name;
    std::string header;
    std::vector<formats::TensorEntry> tensors;
    uint64_t size_bytes = 0;
  };
  /// Where a tensor's bytes lie.
  struct Place {
    size_t file_index = 0;
    uint64_t offset_bytes = 0;
  };

  OutputLayout(const Ledger& ledger, const OutputNaming& naming);

  [[nodiscard]] const std::vector<File>& files() const { return files_; }
  [[nodiscard]] uint64_t size_bytes() const;
  /// Throws Error{kInternal} for a name that is not written.
  [[nodiscard]] Place place_of(const std::string& tensor) const;
  /// "{stem}.safetensors.index.json"; empty where there is one unsplit file.
  [[nodiscard]] const std::string& index_name() const { return index_name_; }
  /// The index document: metadata.total_size and weight_map.
  [[nodiscard]] formats::Json index_json() const;

 private:
  std::vector<File> files_;
  std::unordered_map<std::string, Place> places_;
  std::string index_name_;
};

/// The files of a layout, opened for writing in a folder.
class OutputFiles {
 public:
  /// Creates them with their headers, or (kReopen) continues those of an interrupted run.
  OutputFiles(const OutputLayout& layout, const std::filesystem::path& folder,
              formats::OutputFile::Mode mode);

  /// Writes part of a tensor's data, `offset_bytes` after its first byte. Thread-safe.
  void write(const OutputLayout::Place& place, uint64_t offset_bytes,
             std::span<const std::byte> bytes) const;

  /// Returns when all files are on the disk.
  void sync() const;

 private:
  std::vector<formats::OutputFile> files_;
};

}  // namespace llmq::convert
