#include "convert/pipeline/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "convert/pipeline/recipe_checks.h"
#include "formats/attention_tensors.h"
#include "formats/dialect.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::DType;
using formats::ExpectedTensor;
using formats::Role;
using formats::Scheme;
using formats::StoredTensor;

bool is_float8(DType dtype) {
  return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2;
}

void check_dtype(const StoredTensor& tensor, const std::string& file) {
  if (formats::is_weight_float(tensor.dtype)) return;
  const char* remedy =
      is_float8(tensor.dtype)
          ? "FP8 checkpoints are not read; take the BF16 version of the model"
          : "weights must be F32, F16 or BF16; take the float version of the model";
  throw bad_input(fmt::format("{}: tensor {} is {}; {}", file, tensor.name,
                              formats::dtype_name(tensor.dtype), remedy));
}

void check_shape(const StoredTensor& tensor, const ExpectedTensor& expected,
                 const std::string& file) {
  if (tensor.shape == expected.shape) return;
  throw bad_input(fmt::format(
      "{}: tensor {} has shape {}, but config.json asks for {}; weights and config.json do "
      "not belong together",
      file, tensor.name, formats::shape_string(tensor.shape),
      formats::shape_string(expected.shape)));
}

OutputModule float_output(const std::string& name, const StoredTensor& source, DType dtype) {
  OutputModule output;
  output.tensors.push_back({name, dtype, source.shape, Scheme::kFloat});
  return output;
}

OutputModule scheme_output(const std::string& module, const StoredTensor& source,
                           const RecipeRule& rule, DType model_dtype) {
  if (rule.scheme == Scheme::kFloat) return float_output(module + ".weight", source, model_dtype);
  OutputModule output{rule, {}};
  const formats::LinearExtents extents{source.shape[0], source.shape[1], rule.group_size};
  for (const formats::TensorRule& tensor : formats::scheme_row(rule.scheme).tensors) {
    output.tensors.push_back({module + std::string(tensor.suffix),
                              formats::resolve_dtype(tensor.dtype, model_dtype),
                              formats::resolve_shape(tensor.shape, extents), rule.scheme});
  }
  return output;
}

/// Builds the entries; one instance per ledger.
class LedgerBuilder {
 public:
  LedgerBuilder(const formats::Checkpoint& source, const formats::ModelConfig& config,
                const Recipe& recipe, const LedgerOptions& options)
      : source_(source),
        config_(config),
        recipe_(recipe),
        options_(options),
        expected_(formats::expected_tensors(formats::architecture_of(config), config)) {
    ledger_.model_dtype = choose_model_dtype(source, config, options.dtype);
  }

  Ledger build() {
    for (size_t i = 0; i < expected_.size(); ++i) order_[expected_[i].name] = i;
    for (const ExpectedTensor& expected : expected_) add_expected(expected);
    for (const StoredTensor& tensor : source_.tensors()) {
      if (!known_.contains(tensor.name)) add_unknown(tensor);
    }
    for (LedgerEntry& entry : ledger_.entries) {
      for (OutputModule& output : entry.outputs) {
        if (entry.fate == Fate::kAdded) continue;
        const auto known = order_.find(output.tensors.front().name);
        output.order = known != order_.end() ? known->second : order_.size();
      }
    }
    check_names();
    return std::move(ledger_);
  }

 private:
  void check_names() const {
    std::set<std::string_view> names;
    for (const LedgerEntry& entry : ledger_.entries) {
      for (const OutputModule& output : entry.outputs) {
        for (const OutputTensor& tensor : output.tensors) {
          if (names.insert(tensor.name).second) continue;
          throw bad_input(fmt::format(
              "{}: tensor {} has the name of one that quantization adds; the checkpoint is "
              "quantized already or damaged, take the float version of the model",
              source_.folder().string(), tensor.name));
        }
      }
    }
  }

  [[nodiscard]] std::string file_of(const StoredTensor& tensor) const {
    return (source_.folder() / source_.files()[tensor.file_index]).string();
  }

  void add_expected(const ExpectedTensor& expected) {
    known_.insert(expected.name);
    const StoredTensor* tensor = source_.find(expected.name);
    if (tensor == nullptr) {
      check_absence(expected);
      return;
    }
    check_dtype(*tensor, file_of(*tensor));
    check_shape(*tensor, expected, file_of(*tensor));
    LedgerEntry entry;
    entry.source = tensor;
    entry.module = expected.module;
    entry.layer = expected.layer;
    entry.role = formats::role_name(expected.row->role);
    entry.tp = expected.row->tp;
    entry.group = expected.row->group;
    entry.expert = expected.expert;
    if (is_shared(expected)) {
      add_shared(expected, *tensor, entry);
    } else if (expected.is_bias || expected.row->group == formats::FusedGroup::kNone) {
      entry.outputs.push_back(float_output(expected.name, *tensor, ledger_.model_dtype));
      entry.reason = expected.is_bias ? "bias" : "not a linear that is quantized";
    } else {
      add_linear(expected.module, *tensor, entry, group_rule(expected));
    }
    ledger_.entries.push_back(std::move(entry));
    add_created(expected);
  }

  /// What quantization adds beside a tensor of the table: biases where a norm's output is shifted,
  /// and the scales of keys, values and attention.
  void add_created(const ExpectedTensor& expected) {
    if (expected.is_bias || expected.layer < 0) return;
    const bool is_shifted =
        is_shifted_norm(expected.row->role, expected.layer) ||
        (expected.row->fed_by && is_shifted_norm(*expected.row->fed_by, expected.layer));
    const std::string bias = expected.module + ".bias";
    if (is_shifted && !formats::has_bias(*expected.row, config_) && source_.find(bias) == nullptr) {
      const OutputTensor tensor{bias, ledger_.model_dtype, {expected.shape[0]}, Scheme::kFloat};
      add_created({expected, expected.module, "created by smoothing", {tensor}});
    }
    if (expected.row->role != Role::kV || recipe_.attention == Scheme::kFloat) return;
    for (const formats::AttentionTensor& extra : formats::attention_tensors(
             config_, recipe_.attention, expected.layer, ledger_.model_dtype)) {
      CreatedModule created{expected, extra.name, "from calibration", {}};
      created.rule.scheme = recipe_.attention;
      created.tensors.push_back({extra.name, extra.dtype, extra.shape, recipe_.attention});
      add_created(created);
    }
  }

  /// Experts, and so the norm that feeds them, are not smoothed.
  [[nodiscard]] bool is_shifted_norm(Role norm, int64_t layer) const {
    const bool feeds_experts = norm == Role::kPostAttentionNorm && config_.is_moe_layer(layer);
    return recipe_.shifts(norm) && !feeds_experts;
  }

  /// A module that the source does not have, written behind the tensor `beside`.
  struct CreatedModule {
    const ExpectedTensor& beside;
    std::string module;
    std::string reason;
    std::vector<OutputTensor> tensors;
    RecipeRule rule = {"", Scheme::kFloat};
  };

  void add_created(const CreatedModule& created) {
    const OutputTensor& first = created.tensors.front();
    auto added = std::make_unique<Ledger::AddedTensor>();
    added->tensor.name = first.name;
    added->tensor.dtype = DType::kF32;
    added->tensor.shape = first.shape;
    added->zeros.resize(formats::tensor_size_bytes(DType::kF32, first.shape));
    added->tensor.bytes = added->zeros;
    known_.insert(first.name);
    LedgerEntry entry;
    entry.source = &added->tensor;
    entry.module = created.module;
    entry.layer = created.beside.layer;
    entry.expert = created.beside.expert;
    entry.fate = Fate::kAdded;
    entry.reason = created.reason;
    entry.role = formats::role_name(created.beside.row->role);
    entry.tp = created.beside.row->tp;
    entry.outputs.push_back({created.rule, created.tensors, order_.at(created.beside.name)});
    ledger_.added.push_back(std::move(added));
    ledger_.entries.push_back(std::move(entry));
  }

  [[nodiscard]] RecipeRule rule_for(const std::string& module) const {
    return recipe_.rule_for(module, formats::table_name(config_, module));
  }

  /// An embedding model has no use for a copy of its embedding as a head.
  [[nodiscard]] bool is_shared(const ExpectedTensor& expected) const {
    return config_.tie_word_embeddings && !config_.may_lack_head() && !expected.is_required;
  }

  void check_absence(const ExpectedTensor& expected) const {
    const bool is_done_without =
        config_.may_lack_head() ||
        (is_shared(expected) && source_.find(partner_name(expected)) != nullptr);
    if (!expected.is_required && is_done_without) return;
    throw bad_input(fmt::format("{}: tensor {} is missing; the checkpoint is incomplete",
                                source_.folder().string(), expected.name));
  }

  [[nodiscard]] std::string partner_name(const ExpectedTensor& expected) const {
    const Role partner = expected.row->role == Role::kHead ? Role::kEmbedding : Role::kHead;
    const formats::ModuleRow& row = formats::module_row(formats::architecture_of(config_), partner);
    return formats::module_path(row, -1) + ".weight";
  }

  /// One of the two names of a tied matrix. Stored under one name only, it is written under both,
  /// because engines look both up; stored under both, each is written.
  void add_shared(const ExpectedTensor& expected, const StoredTensor& tensor, LedgerEntry& entry) {
    const std::string partner = partner_name(expected);
    const StoredTensor* stored_partner = source_.find(partner);
    const bool is_head = expected.row->role == Role::kHead;
    const auto add_output = [&](const std::string& name, bool head) {
      if (head) {
        const std::string module = name.substr(0, name.size() - std::string_view(".weight").size());
        const RecipeRule rule = rule_for(module);
        add_linear(module, tensor, entry, {rule, float_reason(rule)});
        entry.group = formats::FusedGroup::kHead;  // also where the embedding's name is stored
      } else {
        entry.outputs.push_back(float_output(name, tensor, ledger_.model_dtype));
      }
    };
    if (stored_partner != nullptr) {
      add_stored_twice(expected, tensor, *stored_partner, entry, add_output);
      return;
    }
    if (options_.keep_tied) {
      entry.outputs.push_back(float_output(expected.name, tensor, ledger_.model_dtype));
      entry.reason = "tied; written under one name only";
      return;
    }
    if (is_head) {
      add_output(partner, false);
      add_output(expected.name, true);
    } else {
      add_output(expected.name, false);
      add_output(partner, true);
    }
    entry.fate = Fate::kCloned;
    entry.reason =
        fmt::format("tied; written once more as {} ({:.1f} MB)", partner,
                    static_cast<double>(output_bytes(entry.outputs[is_head ? 0 : 1])) / 1e6);
  }

  template <typename AddOutput>
  void add_stored_twice(const ExpectedTensor& expected, const StoredTensor& tensor,
                        const StoredTensor& partner, LedgerEntry& entry,
                        const AddOutput& add_output) {
    const bool is_head = expected.row->role == Role::kHead;
    const bool is_equal =
        tensor.dtype == partner.dtype && std::ranges::equal(tensor.bytes, partner.bytes);
    if (is_head && !is_equal) {
      ledger_.warnings.push_back(
          fmt::format("config.json says that {} and {} are tied, but their values differ; both are "
                      "written as they are",
                      expected.name, partner.name));
    }
    if (is_head && options_.keep_tied && is_equal) {
      entry.fate = Fate::kTied;
      entry.reason = "equal to " + partner.name;
      return;
    }
    add_output(expected.name, is_head);
    if (entry.reason.empty()) entry.reason = "tied; stored under both names";
  }

  [[nodiscard]] static uint64_t output_bytes(const OutputModule& output) {
    uint64_t total = 0;
    for (const OutputTensor& tensor : output.tensors)
      total += formats::tensor_size_bytes(tensor.dtype, tensor.shape);
    return total;
  }

  /// The rule of a linear, and why it stays float where it does. Engines load a fused group as one
  /// matrix, so that one member kept float keeps the whole group float.
  [[nodiscard]] std::pair<RecipeRule, std::string> group_rule(
      const ExpectedTensor& expected) const {
    RecipeRule own = rule_for(expected.module);
    if (own.scheme == Scheme::kFloat) return {own, float_reason(own)};
    if (recipe_.row_parallel_symmetric && expected.row->tp == formats::TpAxis::kRowParallel)
      own.activation_symmetric = true;
    for (const formats::ModuleRow& row : formats::architecture_of(config_).modules) {
      if (row.group != expected.row->group) continue;
      const std::string member = formats::module_path(row, expected.layer, expected.expert);
      RecipeRule rule = rule_for(member);
      if (recipe_.row_parallel_symmetric && row.tp == formats::TpAxis::kRowParallel)
        rule.activation_symmetric = true;
      if (rule.scheme == own.scheme) {
        check_shared_parameters({expected.module, own}, {member, rule});
        continue;
      }
      if (rule.scheme == Scheme::kFloat) {
        return {RecipeRule{own.match, Scheme::kFloat},
                fmt::format("kept float with {}: engines load them as one matrix", member)};
      }
      throw formats::usage_error(
          fmt::format("the recipe makes {} {} and {} {}, but engines load them as one matrix; "
                      "give both the same scheme",
                      expected.module, formats::scheme_row(own.scheme).tag, member,
                      formats::scheme_row(rule.scheme).tag));
    }
    return {own, ""};
  }

  [[nodiscard]] static std::string float_reason(const RecipeRule& rule) {
    return rule.match.empty() ? "no rule of the recipe matches"
                              : fmt::format("kept float by \"{}\"", rule.match);
  }

  void add_linear(const std::string& module, const StoredTensor& tensor, LedgerEntry& entry,
                  const std::pair<RecipeRule, std::string>& decision) {
    const auto& [rule, reason] = decision;
    try {
      entry.outputs.push_back(scheme_output(module, tensor, rule, ledger_.model_dtype));
    } catch (const formats::Error& error) {
      throw error.with_context(module);
    }
    if (rule.scheme != Scheme::kFloat) {
      entry.fate = Fate::kQuantized;
    } else if (entry.reason.empty()) {
      entry.reason = reason;
    }
  }

  void add_unknown(const StoredTensor& tensor) {
    LedgerEntry entry;
    entry.source = &tensor;
    entry.module = tensor.name;
    if (tensor.name.ends_with(".rotary_emb.inv_freq")) {
      entry.fate = Fate::kDropped;
      entry.reason = "computed from config.json by every engine";
      ledger_.entries.push_back(std::move(entry));
      return;
    }
    if (is_float8(tensor.dtype)) check_dtype(tensor, file_of(tensor));
    const bool is_float = formats::is_weight_float(tensor.dtype);
    entry.outputs.push_back(
        float_output(tensor.name, tensor, is_float ? ledger_.model_dtype : tensor.dtype));
    entry.reason = "not in the architecture table; copied";
    ledger_.warnings.push_back(
        fmt::format("tensor {} is not known for model_type {}; it is copied as it is", tensor.name,
                    config_.model_type));
    ledger_.entries.push_back(std::move(entry));
  }

  const formats::Checkpoint& source_;
  const formats::ModelConfig& config_;
  const Recipe& recipe_;
  const LedgerOptions& options_;
  std::vector<ExpectedTensor> expected_;
  std::set<std::string> known_;
  std::map<std::string, size_t> order_;
  Ledger ledger_;
};

}  // namespace

Ledger make_ledger(const formats::Checkpoint& source, const formats::ModelConfig& config,
                   const Recipe& recipe, const LedgerOptions& options) {
  check_schemes(recipe);
  check_rotation(source, config, recipe);
  check_sparse_dtype(recipe, choose_model_dtype(source, config, options.dtype));
  Ledger ledger = LedgerBuilder(source, config, recipe, options).build();
  check_family(config, recipe, ledger);
  check_transformations(config, recipe, options.keep_tied, ledger);
  return ledger;
}

}  // namespace llmq::convert
