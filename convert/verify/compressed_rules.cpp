#include "convert/verify/compressed_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>

#include "convert/compress/compressed_matrix.h"
#include "convert/compress/compressed_note.h"
#include "convert/shard/shard_manifest.h"
#include "convert/verify/tensor_rules.h"
#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::Json;
using formats::Scheme;
using formats::StoredTensor;
namespace fs = std::filesystem;

/// The note by which a part that lies alone says whose it is.
constexpr const char* kNoteFile = "llmq_shard.json";

std::string_view compressed_tag() {
  return formats::scheme_row(Scheme::kW8A8SC).tag;
}

/// The rules of all parts.
struct Findings {
  RuleResult description{"description-covers-tensors"};
  RuleResult tensors{"scheme-tensors"};
  RuleResult codec{"codec-marked"};
  RuleResult container{"compressed-container"};
  RuleResult tiles{"tile-checksums"};
  RuleResult config{"config-coherent"};
  RuleResult run{"shards-of-one-run"};
  size_t n_tensors = 0;
  size_t n_matrices = 0;
  int64_t n_tiles = 0;
  std::string mark{};  ///< of the first part
};

class PartCheck {
 public:
  PartCheck(const fs::path& folder, quant::ThreadTeam& team, Findings& findings)
      : team_(team), findings_(findings), part_(formats::Checkpoint::open(folder)) {
    const auto path = formats::find_description(folder);
    if (!path) {
      throw formats::bad_input(
          fmt::format("{}: has no {}", folder.string(), formats::kDescriptionFile));
    }
    description_ = formats::read_description(*path);
    for (const auto& [name, tag] : description_.tensors) tags_.emplace(name, tag);
  }

  void run() {
    check_description();
    const std::optional<quant::W8A8scCodec> codec = marked_codec();
    for (const StoredTensor& tensor : part_.tensors()) {
      if (!tensor.name.ends_with(".weight") || tag_of(tensor.name) != compressed_tag()) continue;
      try {
        const CompressedMatrix matrix = open_compressed(part_, tensor.name);
        ++findings_.n_matrices;
        findings_.n_tiles += matrix.reader->grid().n_tiles();
        check_linear(tensor.name, matrix.reader->grid());
        if (codec && *codec != matrix.reader->codec()) {
          fail(findings_.codec,
               where(fmt::format("tensor {} is coded by {}, the description says {}", tensor.name,
                                 quant::codec_mark(matrix.reader->codec()),
                                 quant::codec_mark(*codec))));
        }
        check_tiles(tensor.name, *matrix.reader);
      } catch (const formats::Error& error) {
        fail(findings_.container, error.what());
      }
      formats::MappedFile::release(tensor.bytes);
    }
    findings_.n_tensors += part_.tensors().size();
  }

 private:
  [[nodiscard]] std::string_view tag_of(const std::string& name) const {
    const auto tag = tags_.find(name);
    return tag == tags_.end() ? std::string_view{} : tag->second;
  }

  [[nodiscard]] std::string where(const std::string& sentence) const {
    return fmt::format("{}: {}", part_.folder().filename().string(), sentence);
  }

  void check_description() const {
    for (const StoredTensor& tensor : part_.tensors()) {
      if (tag_of(tensor.name).empty()) {
        fail(findings_.description,
             where(fmt::format("tensor {} is not in the description", tensor.name)));
      }
    }
    for (const auto& [name, tag] : description_.tensors) {
      if (part_.find(name) != nullptr) continue;
      fail(findings_.description,
           where(fmt::format("the description names tensor {}, which no weight file holds", name)));
    }
  }

  [[nodiscard]] std::optional<quant::W8A8scCodec> marked_codec() const {
    const auto mark = description_.other.find(kCodecKey);
    try {
      if (mark == description_.other.end() || !mark->is_string()) {
        fail(findings_.codec, where(fmt::format("the description has no {}", kCodecKey)));
        return std::nullopt;
      }
      const quant::W8A8scCodec codec = parse_codec_mark(mark->get<std::string>());
      if (findings_.mark.empty()) findings_.mark = mark->get<std::string>();
      return codec;
    } catch (const formats::Error& error) {
      fail(findings_.codec, where(error.what()));
      return std::nullopt;
    }
  }

  /// The tensors beside weight, index and info.
  void check_linear(const std::string& weight, const formats::TileGrid& grid) const {
    const std::string module = weight.substr(0, weight.rfind('.'));
    for (const formats::TensorRule& rule : formats::scheme_row(Scheme::kW8A8SC).tensors) {
      const std::string name = module + std::string(rule.suffix);
      const StoredTensor* tensor = part_.find(name);
      if (tensor == nullptr) {
        fail(findings_.tensors, where(fmt::format("tensor {} is missing", name)));
        continue;
      }
      const formats::Shape wanted = formats::resolve_shape(rule.shape, {grid.n(), grid.k(), 0});
      if (formats::accepts_dtype(rule, tensor->dtype, DType::kF16) &&
          formats::accepts_shape(tensor->shape, wanted))
        continue;
      fail(findings_.tensors,
           where(fmt::format("tensor {} is {} {}, engines expect {} {}", name,
                             formats::dtype_name(tensor->dtype),
                             formats::shape_string(tensor->shape),
                             formats::dtype_name(formats::resolve_dtype(rule.dtype, DType::kF16)),
                             formats::shape_string(wanted))));
    }
  }

  void check_tiles(const std::string& weight, const quant::CompressedReader& reader) {
    try {
      reader.verify(team_);
    } catch (const formats::Error& error) {
      fail(findings_.tiles, where(fmt::format("tensor {}: {}", weight, error.what())));
    }
  }

  quant::ThreadTeam& team_;
  Findings& findings_;
  formats::Checkpoint part_;
  formats::Description description_;
  std::unordered_map<std::string, std::string> tags_;
};

void check_config(const fs::path& path, RuleResult& result) {
  const formats::ModelConfig config = formats::read_model_config(path);
  if (config.quantize != "w8a8sc")
    fail(result, fmt::format("config.json says quantize \"{}\", not w8a8sc", config.quantize));
  if (config.torch_dtype != DType::kF16) {
    fail(result, fmt::format("torch_dtype {}; compressed sparse weights go with float16",
                             formats::torch_dtype_name(config.torch_dtype)));
  }
  if (result.ok) result.detail = "quantize w8a8sc, torch_dtype float16";
}

/// The rank of a part that lies alone or in the folder of its run.
void check_lone_note(const fs::path& part, RuleResult& result) {
  const fs::path note = part / kNoteFile;
  if (!fs::exists(note)) {
    fail(result, fmt::format("{} is missing", note.string()));
    return;
  }
  const Json document = formats::read_json_file(note);
  if (!document.is_object() || !document.contains("rank") || !document.contains("tp")) {
    fail(result, fmt::format("{} does not say which rank of how many it is", note.string()));
    return;
  }
  result.detail =
      fmt::format("rank {} of {}, alone", document["rank"].dump(), document["tp"].dump());
}

std::vector<fs::path> parts_of(const fs::path& folder, RuleResult& result) {
  const CompressedNote note = read_compressed_note(folder);
  const ShardManifest manifest = read_manifest(folder);
  const Json document = manifest_json(manifest);
  if (manifest_fingerprint(document) != note.fingerprint)
    fail(result,
         fmt::format("{} is not of the run of {}", kCompressedNoteFile, kShardManifestFile));
  std::vector<fs::path> parts;
  for (int64_t rank = 0; rank < manifest.tp; ++rank) {
    const fs::path path = folder / rank_folder(manifest.layout, rank, manifest.tp);
    try {
      check_shard_note(path, document, rank);
    } catch (const formats::Error& error) {
      fail(result, error.what());
      if (!fs::is_directory(path)) continue;
    }
    parts.push_back(path);
  }
  if (result.ok)
    result.detail = fmt::format("{} parts, fingerprint {}", manifest.tp, note.fingerprint);
  return parts;
}

std::vector<RuleResult> summarized(Findings findings) {
  const auto say = [](RuleResult& result, std::string detail) {
    if (result.ok) result.detail = std::move(detail);
  };
  say(findings.description, fmt::format("{} tensors", findings.n_tensors));
  say(findings.tensors, fmt::format("{} linears W8A8SC", findings.n_matrices));
  say(findings.codec, findings.mark);
  say(findings.container, fmt::format("{} matrices", findings.n_matrices));
  say(findings.tiles, fmt::format("{} tiles", findings.n_tiles));
  if (findings.n_matrices == 0) fail(findings.tensors, "no weight is tagged W8A8SC");
  return {findings.description, findings.tensors, findings.codec, findings.container,
          findings.tiles,       findings.config,  findings.run};
}

}  // namespace

bool is_compressed_folder(const fs::path& folder) {
  if (fs::exists(folder / kCompressedNoteFile)) return true;
  const auto description = formats::find_description(folder);
  return description &&
         formats::read_description(*description).model_quant_type == compressed_tag();
}

std::vector<RuleResult> check_compressed(const fs::path& folder, quant::ThreadTeam& team) {
  Findings findings;
  const bool is_whole = fs::exists(folder / kCompressedNoteFile);
  std::vector<fs::path> parts{folder};
  if (is_whole) {
    parts = parts_of(folder, findings.run);
  } else {
    check_lone_note(folder, findings.run);
  }
  for (const fs::path& part : parts) PartCheck(part, team, findings).run();
  const fs::path beside = fs::absolute(folder).lexically_normal();
  const fs::path top =
      beside.has_filename() ? beside.parent_path() : beside.parent_path().parent_path();
  const bool has_config = fs::exists(folder / "config.json");
  if (has_config || fs::exists(top / "config.json")) {
    check_config(has_config ? folder : top, findings.config);
  } else {
    findings.config.detail = "a part without its config.json";
  }
  return summarized(std::move(findings));
}

}  // namespace llmq::convert
