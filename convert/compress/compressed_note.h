#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "quant/codec/w8a8sc.h"

namespace llmq::convert {

/// Name of the note at the top of a compressed folder.
inline constexpr std::string_view kCompressedNoteFile = "llmq_w8a8sc.json";
/// Key of the description file under which the codec is marked.
inline constexpr std::string_view kCodecKey = "w8a8sc_codec";

/// A weight file of the split folder and what became of it.
struct CompressedFile {
  std::string split;                 ///< path inside the split folder
  std::string name;                  ///< path inside the compressed folder
  std::vector<std::string> tensors;  ///< of the split file, in the order of their bytes
};

/// A text file that differs between the two folders.
struct ReplacedFile {
  std::string split;  ///< path inside the split folder
  std::string name;   ///< path inside the compressed folder
  std::string text;   ///< what the split folder has there
};

/// What a compressed folder says about the split folder that it was made of: with the weights
/// enough to restore each of its files. Files that are not named here are the same in both.
struct CompressedNote {
  quant::W8A8scCodec codec = quant::W8A8scCodec::kRans;
  std::string fingerprint;  ///< of the split folder's manifest
  std::vector<CompressedFile> weights;
  std::vector<ReplacedFile> replaced;
};

/// The note as a document.
formats::Json compressed_note_json(const CompressedNote& note);

/// Reads `folder`/llmq_w8a8sc.json. Throws Error{kBadInput} where it is missing, of a later version
/// or codec, or names files outside the folder.
CompressedNote read_compressed_note(const std::filesystem::path& folder);

/// The codec of a mark in a description file, "rans-1" or "deflate-1". Throws Error{kBadInput} for
/// a codec or a version that this program does not know.
quant::W8A8scCodec parse_codec_mark(std::string_view mark);

}  // namespace llmq::convert
