#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "convert/report/console.h"
#include "convert/shard/shard_manifest.h"
#include "formats/json.h"
#include "quant/codec/w8a8sc.h"

namespace llmq::convert {

/// A W8A8S checkpoint to be cut for ranks and compressed.
struct CompressJob {
  std::filesystem::path source;  ///< a W8A8S folder in float16; only read
  std::filesystem::path destination;
  std::filesystem::path split;  ///< where the cut, uncompressed folder is kept; empty: nowhere
  int64_t tp = 1;
  ShardLayout layout = ShardLayout::kHf;
  quant::W8A8scCodec codec = quant::W8A8scCodec::kRans;
  bool pad = false;    ///< as ShardJob::pad
  bool force = false;  ///< replace a destination or split folder that is not empty
  bool may_resume = true;
  int n_threads = 1;
};

/// Cuts a W8A8S checkpoint as run_shard_job does and compresses the int8 codes of each rank without
/// loss: a folder a rank with `weight`, `index` and `info` in place of each W8A8S weight and all
/// other tensors as they are, description and config.json saying so, and a note from which
/// run_decompress_job restores the split folder byte by byte. The destination appears only
/// complete; a run that was interrupted or killed goes on where it was, unless source or options
/// changed. Memory does not depend on the model. The bytes written depend neither on the number of
/// threads nor on the instruction set. Returns {"tp", "layout", "codec", "fingerprint", "tensors",
/// "matrices", "int8_bytes", "compressed_bytes" (with index and info), "ratio", "bits_per_weight",
/// "entropy_bits", "source_bytes", "rank_bytes": one a rank, "seconds", "coded_bytes_per_second"
/// (int8 bytes; absent where a resumed run had nothing left to code)}. Throws Error{kBadInput}
/// before any weight is read where the source is no W8A8S folder, compressed already, or cannot be
/// cut for so many ranks, with the sizes that could; Error{kIo}, Error{kInterrupted}.
formats::Json run_compress_job(const CompressJob& job, Console& console);

/// A compressed folder to be restored.
struct DecompressJob {
  std::filesystem::path source;  ///< a folder that run_compress_job wrote; only read
  std::filesystem::path destination;
  bool force = false;  ///< replace a destination that is not empty
  int n_threads = 1;
};

/// Restores the split folder of which a compressed one was made, every file of it byte by byte.
/// Memory follows the largest matrix of a rank. The destination appears only complete. Returns
/// {"tp", "codec", "fingerprint", "matrices", "int8_bytes", "compressed_bytes", "written_bytes",
/// "seconds", "decoded_bytes_per_second"}. Throws Error{kBadInput} that names rank, tensor and tile
/// of what is damaged, and the part that is missing or of another run; Error{kIo},
/// Error{kInterrupted}.
formats::Json run_decompress_job(const DecompressJob& job, Console& console);

/// The report of either job for people.
std::string compress_text(const formats::Json& report);
std::string decompress_text(const formats::Json& report);

}  // namespace llmq::convert
