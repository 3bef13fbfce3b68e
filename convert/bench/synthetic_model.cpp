#include "convert/bench/synthetic_model.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "convert/pipeline/companions.h"
#include "convert/pipeline/output_layout.h"
#include "convert/pipeline/plan.h"
#include "formats/architecture.h"
#include "formats/description.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/float16.h"
#include "formats/safetensors.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using formats::DType;
using formats::Scheme;

/// Bytes of the block that repeats itself; odd multiples of a page, so that rows of the usual sizes
/// differ from each other.
constexpr size_t kBlockBytes = 257 * size_t{4096};

fs::path temporary_folder() {
  std::string pattern = (fs::temp_directory_path() / "llmq-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr)
    throw formats::Error(formats::ErrorCode::kIo, "cannot make the folder " + pattern);
  return pattern;
}

uint64_t mixed(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

/// Nearly normal with mean 0 and deviation 1; |value| < 3.5.
float normal(uint64_t index) {
  const uint64_t bits = mixed(index);
  const auto sum = static_cast<int64_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                        (bits >> 32 & 0xffff) + (bits >> 48));
  constexpr float kDeviation = 37837.2F;  // √(4/12) · 65536
  return static_cast<float>(sum - 2 * 65535) / kDeviation;
}

void put_float(float value, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, &value, sizeof value);
    return;
  }
  const uint16_t bits =
      dtype == DType::kBF16 ? formats::float_to_bf16(value) : formats::float_to_fp16(value);
  std::memcpy(to, &bits, sizeof bits);
}

std::vector<std::byte> float_block(DType dtype, float mean, float deviation) {
  std::vector<std::byte> block(kBlockBytes);
  const size_t size = formats::dtype_size_bytes(dtype);
  for (size_t i = 0; i < block.size() / size; ++i)
    put_float(mean + deviation * normal(i), dtype, block.data() + i * size);
  return block;
}

/// Any nibbles, or codes as normal weights have them: from −127 to 127, or where the scheme is a
/// sparse one with a threshold of three deviations, nearly all of four bits and a few beyond.
std::vector<std::byte> code_block(Scheme scheme) {
  std::vector<std::byte> block(kBlockBytes);
  constexpr float kCodeDeviation = 127.0F / 3.5F;
  constexpr float kSparseDeviation = 2.36F;
  constexpr size_t kSparseOutlier = 760;  // codes for one beyond four bits
  for (size_t i = 0; i < block.size(); ++i) {
    if (scheme == Scheme::kW4A16) {
      block[i] = static_cast<std::byte>(mixed(i));
      continue;
    }
    const bool is_sparse = scheme == Scheme::kW8A8S;
    float deviation = is_sparse ? kSparseDeviation : kCodeDeviation;
    if (is_sparse && mixed(i) % kSparseOutlier == 0) deviation = 10.0F * kSparseDeviation;
    block[i] = static_cast<std::byte>(std::lround(deviation * normal(i)));
  }
  return block;
}

/// Scales that keep what a layer gives about as large as what it takes. Powers of two, so that
/// every dtype holds them and their products exactly, as the rules for derived tensors ask.
constexpr float kWeightScale = 1.0F / 2048;
constexpr float kInt4WeightScale = 1.0F / 256;
constexpr float kActivationScale = 1.0F / 32;
constexpr float kKvScale = 1.0F / 32;

float scale_of(const OutputTensor& tensor, std::string_view suffix) {
  if (suffix == "weight_scale")
    return tensor.scheme == Scheme::kW4A16 ? kInt4WeightScale : kWeightScale;
  if (suffix == "deq_scale") return kActivationScale * kWeightScale;
  return suffix == "input_scale" ? kActivationScale : kKvScale;
}

bool is_scale(std::string_view suffix) {
  return suffix == "scale" || suffix.ends_with("_scale");
}

/// Bytes that fill a tensor when they are repeated.
std::vector<std::byte> pattern_of(const OutputTensor& tensor) {
  const std::string_view name = tensor.name;
  const std::string_view suffix = name.substr(name.rfind('.') + 1);
  if (tensor.scheme != Scheme::kFloat && is_scale(suffix)) {
    const float scale = scale_of(tensor, suffix);
    if (tensor.dtype != DType::kI64) return float_block(tensor.dtype, scale, 0.0F);
    std::vector<std::byte> block(kBlockBytes / 8 * 8);
    for (size_t i = 0; i < block.size(); i += 8)
      std::memcpy(block.data() + i, &scale, sizeof scale);
    return block;
  }
  if (formats::is_weight_float(tensor.dtype) && tensor.scheme == Scheme::kFloat &&
      suffix == "weight") {
    constexpr float kDeviation = 0.02F;
    const bool is_norm = tensor.shape.size() == 1;
    return float_block(tensor.dtype, is_norm ? 1.0F : 0.0F, kDeviation);
  }
  if (tensor.dtype == DType::kI8 && suffix == "weight") return code_block(tensor.scheme);
  return std::vector<std::byte>(kBlockBytes);  // offsets and biases: zeros
}

void fill(const OutputFiles& files, const OutputLayout& layout, const OutputTensor& tensor,
          quant::ThreadTeam& team) {
  const std::vector<std::byte> pattern = pattern_of(tensor);
  const uint64_t size_bytes = formats::tensor_size_bytes(tensor.dtype, tensor.shape);
  const OutputLayout::Place place = layout.place_of(tensor.name);
  const auto n_blocks = static_cast<int64_t>((size_bytes + pattern.size() - 1) / pattern.size());
  team.parallel_for(n_blocks, [&](int64_t block, int) {
    const uint64_t begin = static_cast<uint64_t>(block) * pattern.size();
    const auto n = static_cast<size_t>(std::min<uint64_t>(pattern.size(), size_bytes - begin));
    files.write(place, begin, std::span(pattern).first(n));
  });
}

/// A checkpoint of the configuration's shapes without data: its files are holes.
void write_source(const formats::Json& document, const fs::path& folder) {
  fs::create_directories(folder);
  formats::write_text_file(folder / "config.json", document.dump(2) + "\n");
  const formats::ModelConfig config = formats::parse_model_config(document, "the configuration");
  std::vector<formats::TensorEntry> entries;
  for (const formats::ExpectedTensor& tensor :
       formats::expected_tensors(formats::architecture_of(config), config)) {
    const bool is_tied_head =
        config.tie_word_embeddings && tensor.row->role == formats::Role::kHead;
    if (!is_tied_head) entries.push_back({tensor.name, config.torch_dtype, tensor.shape, 0, 0});
  }
  formats::assign_offsets(entries);
  const std::string header = formats::serialize_safetensors_header(entries, {{"format", "pt"}});
  const formats::OutputFile file(folder / "model.safetensors", header.size() + entries.back().end);
  file.write_at(0, std::as_bytes(std::span(header)));
}

void write_model(const SyntheticModelJob& job, const fs::path& folder, quant::ThreadTeam& team) {
  const fs::path source = folder / "source";
  write_source(job.config, source);
  FolderJob folder_job;
  folder_job.source = source;
  folder_job.recipe = job.recipe;
  folder_job.n_threads = team.n_threads();
  const FolderPlan plan = make_folder_plan(folder_job);
  const OutputLayout layout(plan.ledger, plan.naming);
  const OutputFiles files(layout, folder, formats::OutputFile::Mode::kCreate);
  for (const OutputModule* output : plan.ledger.modules_in_order()) {
    for (const OutputTensor& tensor : output->tensors) fill(files, layout, tensor, team);
  }
  formats::write_text_file(folder / "config.json",
                           rewritten_config(plan, job.recipe.has_value()).dump(2) + "\n");
  if (job.recipe) {
    formats::write_text_file(folder / formats::kDescriptionFile,
                             description_of(plan).dump(2) + "\n");
  }
  fs::remove_all(source);
}

}  // namespace

SyntheticModel::SyntheticModel(const SyntheticModelJob& job, quant::ThreadTeam& team)
    : folder_(job.folder), is_temporary_(job.folder.empty()) {
  if (is_temporary_) {
    folder_ = temporary_folder();
  } else if (fs::exists(folder_) && !(fs::is_directory(folder_) && fs::is_empty(folder_))) {
    throw formats::usage_error(folder_.string() + " is not empty; name a new folder");
  }
  try {
    fs::create_directories(folder_);
    write_model(job, folder_, team);
  } catch (...) {
    std::error_code ignored;
    if (is_temporary_) fs::remove_all(folder_, ignored);
    throw;
  }
}

SyntheticModel::~SyntheticModel() {
  std::error_code ignored;
  if (is_temporary_) fs::remove_all(folder_, ignored);
}

}  // namespace llmq::convert
