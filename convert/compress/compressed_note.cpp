#include "convert/compress/compressed_note.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;
using quant::W8A8scCodec;
namespace fs = std::filesystem;

constexpr int64_t kVersion = 1;

/// A path from a file may only lead to a place inside the folder.
std::string checked_path(const std::string& name) {
  const fs::path path(name);
  const bool is_plain =
      path.is_relative() && path.has_filename() && name.find('\0') == std::string::npos &&
      std::none_of(path.begin(), path.end(),
                   [](const fs::path& part) { return part == ".." || part == "."; });
  if (!is_plain) throw bad_input(fmt::format("names the file \"{}\", outside the folder", name));
  return name;
}

CompressedNote parse_note(const Json& document) {
  if (document.at("version").get<int64_t>() != kVersion) {
    throw bad_input(fmt::format("is of version {}; this program reads version {}",
                                document.at("version").dump(), kVersion));
  }
  CompressedNote note;
  note.codec = parse_codec_mark(document.at("codec").get<std::string>());
  note.fingerprint = document.at("fingerprint").get<std::string>();
  for (const Json& file : document.at("weights")) {
    note.weights.push_back({checked_path(file.at("split").get<std::string>()),
                            checked_path(file.at("name").get<std::string>()),
                            file.at("tensors").get<std::vector<std::string>>()});
  }
  for (const Json& file : document.at("replaced")) {
    note.replaced.push_back({checked_path(file.at("split").get<std::string>()),
                             checked_path(file.at("name").get<std::string>()),
                             file.at("text").get<std::string>()});
  }
  return note;
}

}  // namespace

W8A8scCodec parse_codec_mark(std::string_view mark) {
  for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
    if (mark == quant::codec_mark(codec)) return codec;
  }
  throw bad_input(fmt::format("the weights are coded by \"{}\"; this program reads {} and {}", mark,
                              quant::codec_mark(W8A8scCodec::kRans),
                              quant::codec_mark(W8A8scCodec::kDeflate)));
}

Json compressed_note_json(const CompressedNote& note) {
  Json weights = Json::array();
  for (const CompressedFile& file : note.weights)
    weights.push_back({{"split", file.split}, {"name", file.name}, {"tensors", file.tensors}});
  Json replaced = Json::array();
  for (const ReplacedFile& file : note.replaced)
    replaced.push_back({{"split", file.split}, {"name", file.name}, {"text", file.text}});
  return {{"version", kVersion},
          {"codec", quant::codec_mark(note.codec)},
          {"fingerprint", note.fingerprint},
          {"weights", std::move(weights)},
          {"replaced", std::move(replaced)}};
}

CompressedNote read_compressed_note(const fs::path& folder) {
  const fs::path path = folder / kCompressedNoteFile;
  if (!fs::exists(path)) {
    throw bad_input(fmt::format("{}: has no {}; give a folder that llmq sparse-compress wrote",
                                folder.string(), kCompressedNoteFile));
  }
  const Json document = formats::read_json_file(path);
  try {
    return parse_note(document);
  } catch (const formats::Error& error) {
    throw error.with_context(path.string());
  } catch (const Json::exception& error) {
    throw bad_input(
        fmt::format("{}: is no note of a compressed folder: {}", path.string(), error.what()));
  }
}

}  // namespace llmq::convert
