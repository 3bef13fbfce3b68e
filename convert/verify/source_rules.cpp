#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "convert/verify/tensor_rules.h"
#include "formats/error.h"
#include "formats/file.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::convert {
namespace {

using formats::Scheme;
using formats::StoredTensor;

constexpr int64_t kChunkElements = int64_t{1} << 20;

/// The source tensor behind a name: its own, or the one that a tied head shares.
const StoredTensor* source_of(const formats::Checkpoint& source, const std::string& name) {
  if (const StoredTensor* tensor = source.find(name)) return tensor;
  if (name == "lm_head.weight") return source.find("model.embed_tokens.weight");
  if (name == "model.embed_tokens.weight") return source.find("lm_head.weight");
  return nullptr;
}

void compare_float(const StoredTensor& tensor, const StoredTensor& source, RuleResult& result) {
  if (source.shape != tensor.shape || !formats::is_weight_float(source.dtype)) {
    fail(result,
         fmt::format("tensor {} is {} {}, the source's {} {}", tensor.name,
                     formats::dtype_name(tensor.dtype), formats::shape_string(tensor.shape),
                     formats::dtype_name(source.dtype), formats::shape_string(source.shape)));
    return;
  }
  const auto cast =
      quant::rounding_kernels()
          .cast[quant::float_type_index(source.dtype)][quant::float_type_index(tensor.dtype)];
  const size_t to_size = formats::dtype_size_bytes(tensor.dtype);
  const size_t from_size = formats::dtype_size_bytes(source.dtype);
  const int64_t n_elements = formats::shape_elements(tensor.shape);
  std::vector<std::byte> buffer;
  for (int64_t first = 0; first < n_elements; first += kChunkElements) {
    const int64_t n = std::min(kChunkElements, n_elements - first);
    const auto n_bytes = static_cast<size_t>(n) * to_size;
    buffer.resize(n_bytes);
    quant::CastReport report{};
    const std::byte* from = source.bytes.data() + static_cast<size_t>(first) * from_size;
    const std::span<const std::byte> stored =
        tensor.bytes.subspan(static_cast<size_t>(first) * to_size, n_bytes);
    cast(from, n, buffer.data(), &report);
    if (std::memcmp(stored.data(), buffer.data(), n_bytes) != 0) {
      fail(result,
           fmt::format("tensor {} differs from the source after element {}", tensor.name, first));
      return;
    }
    formats::MappedFile::release(stored);
    formats::MappedFile::release({from, static_cast<size_t>(n) * from_size});
  }
}

/// What rounding may do at most to a row: noise of half the signal. Every real rounding stays far
/// below.
constexpr double kMaxRowNoiseShare = 0.5;

/// Signal to noise in dB of int8 codes against the source's weights; a row that is no rounding of
/// the source's gives -infinity.
double weight_sqnr_db(const FolderView& folder, const LinearView& linear,
                      const StoredTensor& source) {
  constexpr double kNoRounding = -std::numeric_limits<double>::infinity();
  const formats::Checkpoint& checkpoint = folder.checkpoint();
  const StoredTensor& weight = checkpoint.at(linear.module + ".weight");
  const StoredTensor* scale = checkpoint.find(linear.module + ".weight_scale");
  const StoredTensor* offset = checkpoint.find(linear.module + ".weight_offset");
  const bool has_codes =
      weight.dtype == formats::DType::kI8 && weight.shape == linear.expected->shape;
  if (!has_codes || scale == nullptr || offset == nullptr) return kNoRounding;
  const std::vector<double> scales = tensor_values(*scale);
  const std::vector<double> offsets = tensor_values(*offset);
  const int64_t n_rows = linear.expected->shape[0];
  const int64_t n_cols = linear.expected->shape[1];
  const int64_t n_groups = static_cast<int64_t>(scales.size()) / n_rows;
  if (n_groups < 1 || n_cols % n_groups != 0 || offsets.size() != scales.size()) return kNoRounding;
  const auto widen = quant::rounding_kernels().cast[quant::float_type_index(source.dtype)]
                                                   [quant::float_type_index(formats::DType::kF32)];
  const size_t row_bytes = static_cast<size_t>(n_cols) * formats::dtype_size_bytes(source.dtype);
  std::vector<float> row_values(static_cast<size_t>(n_cols));
  double signal = 0;
  double noise = 0;
  for (int64_t row = 0; row < n_rows; ++row) {
    quant::CastReport report{};
    widen(source.bytes.data() + static_cast<size_t>(row) * row_bytes, n_cols, row_values.data(),
          &report);
    const auto* codes = reinterpret_cast<const int8_t*>(weight.bytes.data()) + row * n_cols;
    double row_signal = 0;
    double row_noise = 0;
    for (int64_t col = 0; col < n_cols; ++col) {
      const auto parameter = static_cast<size_t>(row * n_groups + col / (n_cols / n_groups));
      const double value = row_values[static_cast<size_t>(col)];
      const double error = value - (codes[col] - offsets[parameter]) * scales[parameter];
      row_signal += value * value;
      row_noise += error * error;
    }
    if (row_noise > kMaxRowNoiseShare * row_signal) return kNoRounding;
    signal += row_signal;
    noise += row_noise;
  }
  return noise == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(signal / noise);
}

/// True where llmq's report says that weights and norms were changed before they were written, so
/// that they compute the same but are no roundings of the source's.
bool has_changed_weights(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "llmq_report.json";
  if (!std::filesystem::exists(path)) return false;
  const formats::Json report = formats::read_json_file(path);
  const auto recipe = report.find("recipe");
  if (recipe == report.end() || !recipe->is_object()) return false;
  return recipe->contains("smooth") || recipe->contains("rotate");
}

}  // namespace

std::vector<RuleResult> check_against_source(const FolderView& folder,
                                             const std::filesystem::path& source_path,
                                             quant::ThreadTeam& team) {
  const formats::Checkpoint source = formats::Checkpoint::open(source_path);
  RuleResult floats{"source-float-tensors"};
  RuleResult weights{"source-weights"};
  if (has_changed_weights(folder.checkpoint().folder())) {
    floats.detail = "not compared: the recipe smooths or rotates; llmq eval --reference does";
    weights.detail = floats.detail;
    return {floats, weights};
  }
  std::vector<const StoredTensor*> float_tensors;
  for (const StoredTensor& tensor : folder.checkpoint().tensors()) {
    const std::string_view tag = folder.tag_of(tensor.name);
    if ((tag.empty() || tag == "FLOAT") && formats::is_weight_float(tensor.dtype))
      float_tensors.push_back(&tensor);
  }
  std::vector<RuleResult> partial(float_tensors.size(), RuleResult{"source-float-tensors"});
  team.parallel_for(static_cast<int64_t>(float_tensors.size()), [&](int64_t index, int) {
    const auto i = static_cast<size_t>(index);
    const StoredTensor* original = source_of(source, float_tensors[i]->name);
    if (original == nullptr) {
      fail(partial[i], fmt::format("the source has no tensor {}", float_tensors[i]->name));
      return;
    }
    compare_float(*float_tensors[i], *original, partial[i]);
  });
  for (const RuleResult& one : partial) {
    if (!one.ok) fail(floats, one.detail);
  }
  if (floats.ok) floats.detail = fmt::format("{} tensors", float_tensors.size());

  std::vector<const LinearView*> linears;
  for (const LinearView& linear : folder.linears()) {
    if (linear.scheme == Scheme::kW8A16 || linear.scheme == Scheme::kW8A8Dynamic)
      linears.push_back(&linear);
  }
  std::vector<double> sqnr(linears.size(), 0.0);
  team.parallel_for(static_cast<int64_t>(linears.size()), [&](int64_t index, int) {
    const auto i = static_cast<size_t>(index);
    const StoredTensor* original = source_of(source, linears[i]->module + ".weight");
    const bool fits = original != nullptr && original->shape == linears[i]->expected->shape &&
                      formats::is_weight_float(original->dtype);
    sqnr[i] = fits ? weight_sqnr_db(folder, *linears[i], *original)
                   : -std::numeric_limits<double>::infinity();
  });
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < linears.size(); ++i) {
    lowest = std::min(lowest, sqnr[i]);
    if (!(sqnr[i] > 0))
      fail(weights, fmt::format("{} is not a rounding of the source's weight ({:.1f} dB)",
                                linears[i]->module, sqnr[i]));
  }
  if (weights.ok)
    weights.detail = linears.empty()
                         ? "no weight-only linears"
                         : fmt::format("{} linears, lowest {:.1f} dB", linears.size(), lowest);
  return {floats, weights};
}

}  // namespace llmq::convert
