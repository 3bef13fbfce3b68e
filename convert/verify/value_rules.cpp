#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>

#include "convert/verify/tensor_rules.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/file.h"
#include "quant/kernels/rounding/rounding.h"
#include "quant/static_w8a8.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::Scheme;
using formats::StoredTensor;

/// The rules that look at values; one set per task, merged in task order.
struct Findings {
  RuleResult derived{"derived-tensors"};
  RuleResult encoding{"deq-scale-encoding"};
  RuleResult codes{"code-ranges"};
  RuleResult offsets{"symmetric-offsets"};
  RuleResult finite{"finite-values"};
  int64_t n_lowest_int4 = 0;  ///< linears of int4 with the code −8

  void merge(const Findings& other) {
    n_lowest_int4 += other.n_lowest_int4;
    for (auto [mine, theirs] : {std::pair{&derived, &other.derived},
                                {&encoding, &other.encoding},
                                {&codes, &other.codes},
                                {&offsets, &other.offsets},
                                {&finite, &other.finite}}) {
      if (!theirs->ok) fail(*mine, theirs->detail);
    }
  }
};

using Task = std::function<void(Findings&)>;

constexpr size_t kChunkBytes = size_t{16} << 20;

void check_finite_chunk(const StoredTensor& tensor, size_t first_byte, size_t n_bytes,
                        Findings& findings) {
  const std::span<const std::byte> bytes = tensor.bytes.subspan(first_byte, n_bytes);
  const auto n_elements = static_cast<int64_t>(n_bytes / formats::dtype_size_bytes(tensor.dtype));
  quant::RowRange range{};
  quant::rounding_kernels().range[quant::float_type_index(tensor.dtype)](bytes.data(), n_elements,
                                                                         &range);
  if (range.first_non_finite >= 0) {
    const int64_t first =
        static_cast<int64_t>(first_byte / formats::dtype_size_bytes(tensor.dtype));
    fail(findings.finite, fmt::format("tensor {} has a NaN or infinity at element {}", tensor.name,
                                      first + range.first_non_finite));
  }
  formats::MappedFile::release(bytes);
}

void check_positive(const StoredTensor& tensor, Findings& findings) {
  const std::vector<double> values = tensor_values(tensor);
  const auto bad =
      std::find_if(values.begin(), values.end(), [](double value) { return !(value > 0); });
  if (bad != values.end()) {
    fail(findings.finite, fmt::format("tensor {} has the scale {} at element {}", tensor.name, *bad,
                                      bad - values.begin()));
  }
}

bool is_all_zero(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

bool holds_byte_codes(Scheme scheme) {
  return scheme != Scheme::kFloat && scheme != Scheme::kW4A16 && scheme != Scheme::kW8A8SC;
}

/// Symmetric codes of every scheme stay within ±127: the byte −128 must not occur.
void check_codes(const StoredTensor& weight, Findings& findings) {
  for (size_t first = 0; first < weight.bytes.size(); first += kChunkBytes) {
    const std::span<const std::byte> chunk =
        weight.bytes.subspan(first, std::min(kChunkBytes, weight.bytes.size() - first));
    if (const void* found = std::memchr(chunk.data(), 0x80, chunk.size())) {
      fail(findings.codes,
           fmt::format("tensor {} has the code -128 at byte {}, outside the symmetric range",
                       weight.name, static_cast<const std::byte*>(found) - weight.bytes.data()));
    }
    formats::MappedFile::release(chunk);
  }
}

/// Of int4 codes: unpacked ones stay within 4 bits. Bytes of packed ones take every value; −8 is
/// one that llmq does not write in symmetric codes but readers accept.
void check_int4_codes(const StoredTensor& weight, const LinearView& linear, Findings& findings) {
  const auto layout =
      formats::int4_layout(weight.shape, linear.expected->shape[0], linear.expected->shape[1]);
  const bool is_packed = layout != formats::Int4Layout::kOnePerByte;
  bool has_lowest = false;
  for (size_t first = 0; first < weight.bytes.size(); first += kChunkBytes) {
    const std::span<const std::byte> chunk =
        weight.bytes.subspan(first, std::min(kChunkBytes, weight.bytes.size() - first));
    for (const std::byte& byte : chunk) {
      const auto bits = static_cast<unsigned>(byte);
      const int code = static_cast<int>(bits ^ 0x80U) - 128;
      has_lowest |= is_packed ? (bits & 0xFU) == 8U || bits >> 4 == 8U : code == -8;
      if (is_packed || (code >= -8 && code <= 7)) continue;
      fail(findings.codes, fmt::format("tensor {} has the code {} at byte {}, outside 4 bits",
                                       weight.name, code, &byte - weight.bytes.data()));
      return;
    }
    formats::MappedFile::release(chunk);
  }
  if (has_lowest) ++findings.n_lowest_int4;
}

void check_offset_range(const StoredTensor& tensor, Findings& findings, int bits = 8) {
  const int64_t lowest = -(int64_t{1} << (bits - 1));
  const int64_t highest = -lowest - 1;
  for (const double offset : tensor_values(tensor)) {
    if (offset == std::nearbyint(offset) && offset >= static_cast<double>(lowest) &&
        offset <= static_cast<double>(highest))
      continue;
    fail(findings.codes,
         fmt::format("tensor {} has the offset {}, not a whole number from {} to {}", tensor.name,
                     offset, lowest, highest));
    return;
  }
}

void check_weight_parameters(const FolderView& folder, const LinearView& linear,
                             Findings& findings) {
  const formats::Checkpoint& checkpoint = folder.checkpoint();
  const StoredTensor* scale = checkpoint.find(linear.module + ".weight_scale");
  const StoredTensor* offset = checkpoint.find(linear.module + ".weight_offset");
  if (scale != nullptr) check_positive(*scale, findings);
  bool symmetric = true;
  if (offset != nullptr) {
    check_offset_range(*offset, findings, linear.scheme == Scheme::kW4A16 ? 4 : 8);
    symmetric = is_all_zero(tensor_values(*offset));
    if (scale != nullptr && scale->shape != offset->shape) {
      fail(findings.offsets,
           fmt::format("tensor {} has shape {}, its scale {}", offset->name,
                       formats::shape_string(offset->shape), formats::shape_string(scale->shape)));
    }
    const bool needs_zero = linear.scheme != Scheme::kW8A16 && linear.scheme != Scheme::kW4A16;
    if (needs_zero && !symmetric) {
      fail(findings.offsets, fmt::format("tensor {} is not zero, but {} is symmetric", offset->name,
                                         formats::scheme_row(linear.scheme).tag));
    }
  }
  const StoredTensor* weight = checkpoint.find(linear.module + ".weight");
  if (weight == nullptr || weight->dtype != DType::kI8) return;
  if (linear.scheme == Scheme::kW4A16) check_int4_codes(*weight, linear, findings);
  if (!holds_byte_codes(linear.scheme)) return;
  if (symmetric) check_codes(*weight, findings);
}

/// deq_scale as float32, whichever way it is encoded.
std::vector<float> decoded_deq_scale(const StoredTensor& tensor, DType model_dtype,
                                     Findings& findings) {
  const bool wide = tensor.dtype == DType::kI64;
  const DType wanted = formats::resolve_dtype(formats::DTypeRule::kDeqScale, model_dtype);
  if (tensor.dtype != wanted) {
    fail(findings.encoding,
         fmt::format("tensor {} is {}, but a {} model needs {}", tensor.name,
                     formats::dtype_name(tensor.dtype), formats::torch_dtype_name(model_dtype),
                     formats::dtype_name(wanted)));
  }
  std::vector<float> values(tensor.bytes.size() / (wide ? 8 : 4));
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + i * (wide ? 8 : 4), wide ? 8 : 4);
    if (!quant::is_widened_deq_scale(bits))
      fail(findings.encoding,
           fmt::format("tensor {} uses the upper 32 bits at element {}", tensor.name, i));
    values[i] = quant::narrow_deq_scale(bits);
    if (!(values[i] > 0) || !std::isfinite(values[i])) {
      fail(findings.encoding,
           fmt::format("tensor {} decodes to {} at element {}", tensor.name, values[i], i));
    }
  }
  return values;
}

std::span<const int8_t> codes_of_row(const StoredTensor& weight, size_t row, size_t n_cols) {
  return {reinterpret_cast<const int8_t*>(weight.bytes.data()) + row * n_cols, n_cols};
}

void check_quant_bias(const FolderView& folder, const LinearView& linear,
                      const std::vector<float>& deq_scale, Findings& findings) {
  const formats::Checkpoint& checkpoint = folder.checkpoint();
  const StoredTensor* quant_bias = checkpoint.find(linear.module + ".quant_bias");
  const StoredTensor* input_offset = checkpoint.find(linear.module + ".input_offset");
  const StoredTensor* weight = checkpoint.find(linear.module + ".weight");
  if (quant_bias == nullptr || input_offset == nullptr || input_offset->bytes.empty() ||
      weight == nullptr || !holds_byte_codes(linear.scheme))
    return;
  const std::vector<double> stored = tensor_values(*quant_bias);
  const double offset = tensor_values(*input_offset).at(0);
  const StoredTensor* bias_tensor = checkpoint.find(linear.module + ".bias");
  const std::vector<double> bias = bias_tensor != nullptr ? tensor_values(*bias_tensor)
                                                          : std::vector<double>(stored.size(), 0.0);
  const auto n_cols = static_cast<size_t>(linear.expected->shape[1]);
  if (stored.size() != deq_scale.size() || stored.size() != bias.size() ||
      weight->bytes.size() != stored.size() * n_cols)
    return;
  for (size_t row = 0; row < stored.size(); ++row) {
    const int64_t sum = quant::code_sum(codes_of_row(*weight, row, n_cols));
    const double exact = quant::unrounded_quant_bias(bias[row], deq_scale[row], offset, sum);
    // The vendor's tool sums in float32; its drift grows with the value.
    const double allowed = 1.0 + std::abs(exact) * 0x1p-22;
    if (std::abs(stored[row] - exact) <= allowed) continue;
    fail(findings.derived, fmt::format("tensor {} is {} at element {}, recomputed {:.1f}",
                                       quant_bias->name, stored[row], row, exact));
    return;
  }
}

void check_derived(const FolderView& folder, const LinearView& linear, Findings& findings) {
  const formats::Checkpoint& checkpoint = folder.checkpoint();
  if (const StoredTensor* offset = checkpoint.find(linear.module + ".input_offset"))
    check_offset_range(*offset, findings);
  const StoredTensor* input_scale = checkpoint.find(linear.module + ".input_scale");
  if (input_scale != nullptr) check_positive(*input_scale, findings);
  const StoredTensor* deq_scale_tensor = checkpoint.find(linear.module + ".deq_scale");
  if (deq_scale_tensor == nullptr) return;
  const std::vector<float> deq_scale =
      decoded_deq_scale(*deq_scale_tensor, folder.model_dtype(), findings);
  const StoredTensor* weight_scale = checkpoint.find(linear.module + ".weight_scale");
  if (input_scale != nullptr && !input_scale->bytes.empty() && weight_scale != nullptr) {
    const auto input = static_cast<float>(tensor_values(*input_scale).at(0));
    const std::vector<double> weights = tensor_values(*weight_scale);
    for (size_t i = 0; i < std::min(weights.size(), deq_scale.size()); ++i) {
      const float expected = quant::deq_scale_of(input, static_cast<float>(weights[i]));
      if (deq_scale[i] == expected || deq_scale[i] == std::nextafter(expected, deq_scale[i]))
        continue;
      fail(findings.derived, fmt::format("tensor {} is {} at element {}, recomputed {}",
                                         deq_scale_tensor->name, deq_scale[i], i, expected));
      break;
    }
  }
  check_quant_bias(folder, linear, deq_scale, findings);
}

std::vector<Task> value_tasks(const FolderView& folder) {
  std::vector<Task> tasks;
  for (const StoredTensor& tensor : folder.checkpoint().tensors()) {
    if (!formats::is_weight_float(tensor.dtype)) continue;
    for (size_t first = 0; first < tensor.bytes.size(); first += kChunkBytes) {
      const size_t n_bytes = std::min(kChunkBytes, tensor.bytes.size() - first);
      tasks.emplace_back([&tensor, first, n_bytes](Findings& findings) {
        check_finite_chunk(tensor, first, n_bytes, findings);
      });
    }
  }
  for (const LinearView& linear : folder.linears()) {
    if (linear.scheme == Scheme::kFloat) continue;
    tasks.emplace_back([&folder, &linear](Findings& findings) {
      check_weight_parameters(folder, linear, findings);
      check_derived(folder, linear, findings);
    });
  }
  return tasks;
}

}  // namespace

std::vector<RuleResult> check_values(const FolderView& folder, quant::ThreadTeam& team) {
  const std::vector<Task> tasks = value_tasks(folder);
  std::vector<Findings> findings(tasks.size());
  team.parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t index, int) {
    const auto i = static_cast<size_t>(index);
    try {
      tasks[i](findings[i]);
    } catch (const formats::Error& error) {
      fail(findings[i].finite, error.what());  // values that cannot be read as numbers
    }
  });
  Findings merged;
  for (const Findings& one : findings) merged.merge(one);
  size_t n_static = 0;
  size_t n_quantized = 0;
  for (const LinearView& linear : folder.linears()) {
    if (linear.scheme == Scheme::kFloat) continue;
    ++n_quantized;
    if (folder.checkpoint().find(linear.module + ".deq_scale") != nullptr) ++n_static;
  }
  for (RuleResult* rule : {&merged.derived, &merged.encoding}) {
    if (rule->ok)
      rule->detail = n_static > 0 ? fmt::format("{} linears", n_static) : "no static linears";
  }
  for (RuleResult* rule : {&merged.codes, &merged.offsets}) {
    if (rule->ok) rule->detail = fmt::format("{} linears", n_quantized);
  }
  if (merged.codes.ok && merged.n_lowest_int4 > 0)
    merged.codes.detail += fmt::format(", {} of int4 with the code -8", merged.n_lowest_int4);
  if (merged.finite.ok)
    merged.finite.detail = fmt::format("{} tensors", folder.checkpoint().tensors().size());
  return {merged.derived, merged.encoding, merged.codes, merged.offsets, merged.finite};
}

}  // namespace llmq::convert
