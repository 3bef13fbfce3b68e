#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/safetensors.h"
#include "quant/codec/w8a8sc.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// A tensor of a weight file that is to be compressed.
struct TensorToStore {
  const formats::StoredTensor* tensor = nullptr;
  bool is_coded = false;  ///< int8 codes [n, k], to become weight, index and info
};

/// The weight file that another one becomes. Everything but the compressed bytes has a size that is
/// known before, and comes first: tensors that stay as they are, `index` and `info`. The compressed
/// weights follow one another in their order. The header is written last, into a room that is large
/// enough for it whatever the sizes.
class CompressedFileWriter {
 public:
  /// Creates `path`, or continues what an interrupted run left there (kReopen). Throws Error{kIo};
  /// Error{kBadInput} for a coded tensor that is no int8 matrix. The tensors must outlive it.
  CompressedFileWriter(const std::filesystem::path& path, std::vector<TensorToStore> tensors,
                       std::map<std::string, std::string> metadata, formats::OutputFile::Mode mode);

  /// Copies tensor `i`, which is not coded.
  void copy(size_t i, quant::ThreadTeam& team) const;

  /// Compresses tensor `i`, whose bytes begin `offset_bytes` after those of the first coded one.
  /// The result is on its way to the disk; its index and info are written.
  quant::CompressionResult code(size_t i, uint64_t offset_bytes, quant::W8A8scCodec codec,
                                quant::ThreadTeam& team) const;

  /// Returns when everything written is on the disk.
  void sync() const { file_.sync(); }

  /// Writes the header and gives the file its length; `weight_sizes` has one size in bytes for each
  /// coded tensor, in their order. Returns the entries in the order of their bytes.
  std::vector<formats::TensorEntry> finish(const std::vector<uint64_t>& weight_sizes) const;

 private:
  /// What is known of the file before anything is compressed.
  struct Plan {
    std::vector<formats::TensorEntry> entries;  ///< those of known size first
    std::map<std::string, uint64_t> offsets;    ///< of those, behind the header
    uint64_t header_bytes = 0;
    uint64_t known_bytes = 0;  ///< of tensors of known size
    uint64_t most_bytes = 0;   ///< of the file
  };
  static Plan make_plan(const std::vector<TensorToStore>& tensors,
                        const std::map<std::string, std::string>& metadata);
  static formats::OutputFile open(const std::filesystem::path& path, uint64_t size_bytes,
                                  formats::OutputFile::Mode mode);

  std::vector<TensorToStore> tensors_;
  std::map<std::string, std::string> metadata_;
  Plan plan_;
  formats::OutputFile file_;
};

}  // namespace llmq::convert
