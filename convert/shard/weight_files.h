#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/file.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// A safetensors file whose tensors are known before their bytes are.
class WeightFileWriter {
 public:
  /// Creates the file with its header; the entries' byte ranges are assigned. Throws Error{kIo}.
  WeightFileWriter(const std::filesystem::path& path, std::vector<formats::TensorEntry> entries,
                   const std::map<std::string, std::string>& metadata);

  /// Writes bytes of a tensor, `offset_bytes` after its first one. Thread-safe. Throws Error{kIo}.
  void write(size_t tensor, uint64_t offset_bytes, std::span<const std::byte> bytes) const;

  /// Returns when everything is on the disk.
  void sync() const { file_.sync(); }

  [[nodiscard]] const std::vector<formats::TensorEntry>& entries() const { return entries_; }

 private:
  static formats::OutputFile created(const std::filesystem::path& path,
                                     std::vector<formats::TensorEntry>& entries,
                                     std::string& header,
                                     const std::map<std::string, std::string>& metadata);

  std::vector<formats::TensorEntry> entries_;
  std::string header_;
  formats::OutputFile file_;
};

/// The index of weight files: which tensor is in which, in their order.
class WeightIndex {
 public:
  void add(const std::string& file, std::span<const formats::TensorEntry> entries);

  /// Writes the index document to `path`. Throws Error{kIo}.
  void write(const std::filesystem::path& path) const;

 private:
  formats::Json map_ = formats::Json::object();
  uint64_t total_size_ = 0;
};

/// CRC-32 of bytes that come one after the other, as zlib computes it.
class Checksum {
 public:
  /// Appends bytes; their blocks are spread over the team.
  void add(std::span<const std::byte> bytes, quant::ThreadTeam& team);

  [[nodiscard]] uint32_t value() const { return value_; }

 private:
  uint32_t value_ = 0;
};

/// Throws Error{kIo} where the disk of `destination` has less than `needed_bytes` and a reserve
/// free.
void check_disk(const std::filesystem::path& destination, uint64_t needed_bytes);

/// Copies what stands beside the weights but says nothing of them: tokenizer, generation and chat
/// configuration, code, reports, the folder `optional`. Not weights of any kind, indexes,
/// config.json, descriptions, or what llmq writes into sharded folders.
void copy_beside_weights(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace llmq::convert
