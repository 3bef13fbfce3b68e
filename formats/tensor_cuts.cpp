#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/attention_tensors.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/slicing.h"

namespace llmq::formats {
namespace {

/// A bias is added once: each rank adds that of its own outputs, or rank 0 adds all of it.
constexpr TensorRule kBiasRule{".bias", DTypeRule::kModel, ShapeRule::kN, SliceRule::kRankZero};

/// Which side of a module's matrix ranks share.
enum class SharedSide : uint8_t { kNone, kOutputs, kInputs };

SharedSide shared_side(const ModuleRow& row, EmbeddingCut embedding) {
  switch (row.tp) {
    case TpAxis::kReplicated:
      return SharedSide::kNone;
    case TpAxis::kColumnParallel:
    case TpAxis::kColumnByKvHead:
    case TpAxis::kColumnFusedQkv:
      return SharedSide::kOutputs;
    case TpAxis::kRowParallel:
      return SharedSide::kInputs;
    case TpAxis::kVocabularyParallel:
      return row.role == Role::kEmbedding && embedding == EmbeddingCut::kHidden
                 ? SharedSide::kInputs
                 : SharedSide::kOutputs;
  }
  throw Error(ErrorCode::kInternal, "unknown TP axis");
}

bool is_allowed(ShapeRule rule, const Shape& stored, const ModuleRow& row,
                const ModelConfig& config) {
  const int64_t n = extent_of(row.n_out, config);
  const int64_t k = extent_of(row.n_in, config);
  switch (rule) {
    case ShapeRule::kNK:
      return accepts_shape(stored, row.n_in == Extent::kOne ? Shape{n} : Shape{n, k});
    case ShapeRule::kPacked4:
      return int4_layout(stored, n, k).has_value();
    case ShapeRule::kN:
      return accepts_shape(stored, {n});
    case ShapeRule::kNGroups:
      return accepts_shape(stored, {n, 1}) ||
             (stored.size() == 2 && stored[0] == n && stored[1] > 1 && k % stored[1] == 0);
    case ShapeRule::kOne:
      return accepts_shape(stored, {1});
    case ShapeRule::kHeadsColumn:
      return accepts_shape(stored, {n / config.head_dim, 1});
    case ShapeRule::kFree:
    case ShapeRule::kInfo:
      throw bad_input("is compressed for one rank already; decompress the shards first");
  }
  throw Error(ErrorCode::kInternal, "unknown shape rule");
}

TensorCut output_cut(const ModuleRow& row, const TensorRule& rule, int64_t rows,
                     const ModelConfig& config) {
  if (rule.slice == SliceRule::kReplicated) return {};
  return {CutAxis::kRows, row.n_out, extent_of(row.n_out, config) / rows, false};
}

TensorCut input_cut(const ModuleRow& row, const TensorRule& rule, int64_t columns,
                    const CutContext& context) {
  const int64_t k = extent_of(row.n_in, context.config);
  const TensorCut by_columns{CutAxis::kColumns, row.n_in, k / columns, false};
  switch (rule.slice) {
    case SliceRule::kWeight:
      return by_columns;
    case SliceRule::kPerGroup:
      // One column holds for all inputs, whoever has them, unless it is that of the only group.
      return columns > 1 || context.group_size == k ? by_columns : TensorCut{};
    case SliceRule::kRankZero:
      return {CutAxis::kRankZero, Extent::kOne, 1, false};
    case SliceRule::kPerOutput:
    case SliceRule::kReplicated:
      return {};
  }
  throw Error(ErrorCode::kInternal, "unknown slice rule");
}

/// The rule of a suffix: of the scheme, else of the one that has the most tensors, which other
/// tools write beside other schemes too. Null when neither has it.
const TensorRule* find_rule(Scheme scheme, std::string_view suffix) {
  if (suffix == kBiasRule.suffix) return &kBiasRule;
  for (const Scheme candidate : {scheme, Scheme::kW8A8}) {
    for (const TensorRule& rule : scheme_row(candidate).tensors) {
      if (rule.suffix == suffix) return &rule;
    }
  }
  return nullptr;
}

Role role_of(AttentionOperand operand) {
  constexpr std::array<Role, 3> kRoles{Role::kQ, Role::kK, Role::kV};
  return kRoles.at(static_cast<size_t>(operand));
}

const TensorRule* attention_rule(Scheme scheme, std::string_view name) {
  for (const TensorRule& rule : scheme_row(scheme).tensors) {
    if (name.ends_with(rule.suffix)) return &rule;
  }
  return nullptr;
}

}  // namespace

TensorCut tensor_cut(const ModuleRow& row, const TensorRule& rule, const Shape& stored,
                     const CutContext& context) {
  const ModelConfig& config = context.config;
  if (!is_allowed(rule.shape, stored, row, config)) {
    throw bad_input(fmt::format(
        "has shape {}, which is none of a matrix of {} outputs and {} "
        "inputs",
        shape_string(stored), extent_of(row.n_out, config), extent_of(row.n_in, config)));
  }
  const auto [rows, columns] = matrix_extents(stored);
  TensorCut cut;
  switch (shared_side(row, context.embedding)) {
    case SharedSide::kNone:
      return {};
    case SharedSide::kOutputs:
      cut = output_cut(row, rule, rows, config);
      break;
    case SharedSide::kInputs:
      cut = input_cut(row, rule, columns, context);
      break;
  }
  cut.pads_with_copies = rule.shape == ShapeRule::kHeadsColumn;
  return cut;
}

CutFinder::CutFinder(const ModelConfig& config, EmbeddingCut embedding)
    : config_(config), embedding_(embedding) {
  const Architecture& architecture = architecture_of(config);
  for (const ExpectedTensor& tensor : expected_tensors(architecture, config)) {
    if (!tensor.is_bias) modules_.emplace(tensor.module, tensor.row);
  }
  for (const Scheme scheme : {Scheme::kC8, Scheme::kFaQuant}) {
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      for (const AttentionTensor& tensor : attention_tensors(config, scheme, layer, DType::kBF16)) {
        attention_.emplace(tensor.name,
                           AttentionKey{&module_row(architecture, role_of(tensor.operand)),
                                        attention_rule(scheme, tensor.name)});
      }
    }
  }
}

const ModuleRow* CutFinder::row_of(const std::string& module) const {
  const auto it = modules_.find(module);
  return it == modules_.end() ? nullptr : it->second;
}

std::string CutFinder::linear_of(std::string_view name) const {
  std::string module(name.substr(0, name.rfind('.')));
  const ModuleRow* row = row_of(module);
  return row != nullptr && row->group != FusedGroup::kNone ? module : "";
}

TensorCut CutFinder::find(std::string_view name, const Shape& stored,
                          const LinearScheme& scheme) const {
  const CutContext context{config_, embedding_, scheme.group_size};
  try {
    if (const auto it = attention_.find(name); it != attention_.end()) {
      return tensor_cut(*it->second.row, *it->second.rule, stored, context);
    }
    const size_t dot = std::min(name.rfind('.'), name.size());
    if (const ModuleRow* row = row_of(std::string(name.substr(0, dot)))) {
      const TensorRule* rule = find_rule(scheme.scheme, name.substr(dot));
      if (rule != nullptr) return tensor_cut(*row, *rule, stored, context);
    }
    for (size_t end = dot; end != std::string_view::npos && end > 0;
         end = name.rfind('.', end - 1)) {
      const ModuleRow* owner = row_of(std::string(name.substr(0, end)));
      if (owner != nullptr && shared_side(*owner, embedding_) != SharedSide::kNone) {
        throw bad_input(fmt::format(
            "belongs to {}, which ranks share, but nothing says how such a tensor is cut",
            name.substr(0, end)));
      }
    }
    return {};
  } catch (const Error& error) {
    throw error.with_context(fmt::format("tensor {}", name));
  }
}

}  // namespace llmq::formats
