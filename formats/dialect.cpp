#include "formats/dialect.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "formats/error.h"

namespace llmq::formats {

std::optional<Int4Layout> int4_layout(const Shape& stored, int64_t n, int64_t k) {
  if (stored == Shape{n, k}) return Int4Layout::kOnePerByte;
  if (k % 2 == 0 && stored == Shape{n, k / 2}) return Int4Layout::kColumnPairs;
  if (n % 2 == 0 && stored == Shape{n / 2, k}) return Int4Layout::kRowPairs;
  return std::nullopt;
}

bool stores_int4_pairs(const Description& description) {
  return description.version.has_value() && !description.version->starts_with("0.");
}

Scheme effective_scheme(Scheme tagged, DType stored) {
  return stored == DType::kF16 || stored == DType::kBF16 ? Scheme::kFloat : tagged;
}

bool accepts_dtype(const TensorRule& rule, DType stored, DType model_dtype) {
  if (stored == resolve_dtype(rule.dtype, model_dtype)) return true;
  if (rule.suffix == ".input_offset") return is_weight_float(stored) || stored == DType::kI8;
  const bool is_scale = rule.suffix == ".input_scale" || rule.suffix == ".weight_scale" ||
                        rule.suffix == ".weight_offset";
  return (is_scale || rule.dtype == DTypeRule::kModel) && is_weight_float(stored);
}

bool accepts_shape(const Shape& stored, const Shape& wanted) {
  if (wanted.empty() || stored == wanted) return true;
  if (wanted == Shape{1}) return stored.empty();
  return wanted.size() == 2 && wanted[1] == 1 && stored == Shape{wanted[0]};
}

int64_t group_size_of(const Shape& scale, int64_t k) {
  if (scale.size() == 1 || (scale.size() == 2 && scale[1] == 1)) return 0;
  if (scale.size() == 2 && scale[1] > 1 && k % scale[1] == 0) return k / scale[1];
  throw bad_input(
      fmt::format("has shape {}, which gives no whole number of the {} inputs a scale each",
                  shape_string(scale), k));
}

const StoredTensor* find_norm_tensor(const Checkpoint& checkpoint, std::string_view module,
                                     std::string_view suffix) {
  const std::string path(module);
  if (const StoredTensor* wrapped = checkpoint.find(fmt::format("{}.module{}", path, suffix)))
    return wrapped;
  return checkpoint.find(fmt::format("{}{}", path, suffix));
}

bool has_bare_names(const Checkpoint& checkpoint) {
  constexpr std::array<std::string_view, 2> kOuter{"embed_tokens.weight", "norm.weight"};
  const auto is_there = [&](std::string_view prefix) {
    return std::any_of(kOuter.begin(), kOuter.end(), [&](std::string_view name) {
      return checkpoint.find(fmt::format("{}{}", prefix, name)) != nullptr;
    });
  };
  return is_there("") && !is_there("model.");
}

std::string table_name(const ModelConfig& config, std::string_view name) {
  const bool lacks_prefix = config.bare_names && !name.starts_with("lm_head");
  return fmt::format("{}{}", lacks_prefix ? "model." : "", name);
}

}  // namespace llmq::formats
