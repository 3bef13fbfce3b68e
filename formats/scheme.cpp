#include "formats/scheme.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/error.h"

namespace llmq::formats {
namespace {

using enum DTypeRule;
using enum ShapeRule;
using enum SliceRule;

constexpr TensorRule kFloatWeight{".weight", kModel, kNK, kWeight};
constexpr TensorRule kCodes{".weight", kI8, kNK, kWeight};
constexpr TensorRule kInputScale{".input_scale", kModel, kOne, SliceRule::kReplicated};
constexpr TensorRule kInputOffset{".input_offset", kModel, kOne, SliceRule::kReplicated};
constexpr TensorRule kQuantBias{".quant_bias", kI32, kN, kRankZero};
constexpr TensorRule kDeqScaleRule{".deq_scale", kDeqScale, kN, kPerOutput};
constexpr TensorRule kWeightScale{".weight_scale", kF32, kNGroups, kPerGroup};
constexpr TensorRule kWeightOffset{".weight_offset", kF32, kNGroups, kPerGroup};

constexpr std::array<TensorRule, 1> kFloatTensors{kFloatWeight};
constexpr std::array<TensorRule, 7> kStaticTensors{
    kCodes, kInputScale, kInputOffset, kQuantBias, kDeqScaleRule, kWeightScale, kWeightOffset};
constexpr std::array<TensorRule, 3> kWeightOnlyTensors{kCodes, kWeightScale, kWeightOffset};
constexpr std::array<TensorRule, 3> kInt4Tensors{TensorRule{".weight", kI8, kPacked4, kWeight},
                                                 kWeightScale, kWeightOffset};
constexpr std::array<TensorRule, 5> kSparseTensors{kCodes, kInputScale, kInputOffset, kQuantBias,
                                                   kDeqScaleRule};
constexpr std::array<TensorRule, 7> kCompressedTensors{
    TensorRule{".weight", kI8, kFree, SliceRule::kReplicated},
    TensorRule{".index", kI8, kFree, SliceRule::kReplicated},
    TensorRule{".info", kI64, kInfo, SliceRule::kReplicated},
    kInputScale,
    TensorRule{".input_offset", kI8, kOne, SliceRule::kReplicated},
    kQuantBias,
    kDeqScaleRule};
constexpr std::array<TensorRule, 2> kKvCacheTensors{
    TensorRule{".kv_cache_scale", kModel, kN, kPerOutput},
    TensorRule{".kv_cache_offset", kModel, kN, kPerOutput}};
constexpr std::array<TensorRule, 2> kAttentionTensors{
    TensorRule{".scale", kModel, kHeadsColumn, kPerOutput},
    TensorRule{".offset", kI8, kHeadsColumn, kPerOutput}};

constexpr std::array<SchemeRow, 10> kSchemes{{
    {Scheme::kFloat, "FLOAT", "float", 16, 16, true, false, 0, kFloatTensors},
    {Scheme::kW8A8, "W8A8", "w8a8", 8, 8, true, false, 6, kStaticTensors},
    {Scheme::kW8A8Dynamic, "W8A8_DYNAMIC", "w8a8_dynamic", 8, 8, true, true, 4, kWeightOnlyTensors},
    {Scheme::kW8A8Mix, "W8A8_MIX", "w8a8_mix", 8, 8, true, true, 5, kStaticTensors},
    {Scheme::kW8A16, "W8A16", "w8a16", 8, 16, true, true, 2, kWeightOnlyTensors},
    {Scheme::kW4A16, "W4A16", "w4a16", 4, 16, true, true, 3, kInt4Tensors},
    {Scheme::kW8A8S, "W8A8S", "w8a8s", 8, 8, true, false, 7, kSparseTensors},
    {Scheme::kW8A8SC, "W8A8SC", "w8a8sc", 8, 8, true, false, 8, kCompressedTensors},
    {Scheme::kC8, "C8", "", 8, 8, false, false, 0, kKvCacheTensors},
    {Scheme::kFaQuant, "FAQuant", "", 8, 8, false, false, 0, kAttentionTensors},
}};

}  // namespace

std::span<const SchemeRow> schemes() {
  return kSchemes;
}

const SchemeRow& scheme_row(Scheme scheme) {
  return kSchemes.at(static_cast<size_t>(scheme));
}

bool has_tensor(Scheme scheme, std::string_view suffix) {
  const auto& tensors = scheme_row(scheme).tensors;
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const TensorRule& rule) { return rule.suffix == suffix; });
}

Scheme parse_scheme_tag(std::string_view tag) {
  std::string known;
  for (const SchemeRow& row : kSchemes) {
    if (row.tag == tag) return row.scheme;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.tag);
  }
  throw bad_input(fmt::format("unknown scheme \"{}\"; known are {}", tag, known));
}

DType resolve_dtype(DTypeRule rule, DType model_dtype) {
  switch (rule) {
    case kI8:
      return DType::kI8;
    case kI32:
      return DType::kI32;
    case kI64:
      return DType::kI64;
    case kF32:
      return DType::kF32;
    case kModel:
      return model_dtype;
    case kDeqScale:
      return model_dtype == DType::kBF16 ? DType::kF32 : DType::kI64;
  }
  throw Error(ErrorCode::kInternal, "unknown dtype rule");
}

Shape resolve_shape(ShapeRule rule, const LinearExtents& extents) {
  const auto [n, k, group_size] = extents;
  if (group_size < 0 || (group_size > 0 && k % group_size != 0)) {
    throw bad_input(
        fmt::format("group_size {} does not divide the {} input channels", group_size, k));
  }
  switch (rule) {
    case kNK:
      return {n, k};
    case kPacked4:
      if ((group_size > 0 ? n : k) % 2 != 0) {
        throw bad_input(fmt::format("a [{}, {}] matrix cannot be packed in pairs of int4", n, k));
      }
      return group_size > 0 ? Shape{n / 2, k} : Shape{n, k / 2};
    case kN:
      return {n};
    case kNGroups:
      return {n, group_size > 0 ? k / group_size : 1};
    case kOne:
      return {1};
    case kFree:
      return {};
    case kInfo:
      return {5};
    case kHeadsColumn:
      return {n, 1};
  }
  throw Error(ErrorCode::kInternal, "unknown shape rule");
}

}  // namespace llmq::formats
