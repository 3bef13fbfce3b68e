#include "formats/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "formats/error.h"

namespace llmq::formats {
namespace {

/// Far above every published model; keeps products of a few of them inside int64.
constexpr int64_t kMaxExtent = int64_t{1} << 31;

/// Experts of all layers: ten times those of the largest model; keeps tables of tensors in memory.
constexpr int64_t kMaxExpertsOfModel = int64_t{1} << 20;

/// Typed look-ups in one JSON object; errors name file and key. A JSON null counts as absent.
class Reader {
 public:
  Reader(const Json& object, std::string origin) : object_(object), origin_(std::move(origin)) {
    if (!object.is_object()) throw bad_input(origin_ + ": is not a JSON object");
  }

  [[nodiscard]] const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  [[nodiscard]] std::optional<int64_t> integer(const char* key, int64_t least = 1) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const bool whole =
        value->is_number_integer() ||
        (value->is_number_float() && value->get<double>() == std::floor(value->get<double>()) &&
         std::abs(value->get<double>()) < 1e15);
    if (!whole) fail(key, "is not a whole number");
    const bool huge =
        value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
    const int64_t number = huge ? INT64_MAX : value->get<int64_t>();
    if (number < least || number > kMaxExtent) {
      fail(key, fmt::format("is {}, outside {} to {}", value->dump(), least, kMaxExtent));
    }
    return number;
  }

  [[nodiscard]] int64_t required(const char* key) const {
    if (const auto number = integer(key)) return *number;
    missing(key);
  }

  [[noreturn]] void missing(const char* key) const {
    throw bad_input(
        fmt::format("{}: the key \"{}\" is missing; take config.json from the model's repository",
                    origin_, key));
  }

  [[nodiscard]] std::optional<double> real(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !std::isfinite(value->get<double>())) fail(key, "is not a number");
    return value->get<double>();
  }

  [[nodiscard]] double positive(const char* key, double fallback) const {
    const double number = real(key).value_or(fallback);
    if (!(number > 0)) fail(key, "is not above 0");
    return number;
  }

  [[nodiscard]] std::optional<bool> boolean(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) fail(key, "is neither true nor false");
    return value->get<bool>();
  }

  [[nodiscard]] std::optional<std::string> text(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) fail(key, "is not a string");
    return value->get<std::string>();
  }

  /// A list of numbers, or one number as a list of one.
  [[nodiscard]] std::vector<double> reals(const char* key) const {
    std::vector<double> list;
    for (const Json* item : items(key)) list.push_back(item->get<double>());
    return list;
  }

  /// The same for whole numbers that fit into 32 bits: token ids and layers.
  [[nodiscard]] std::vector<int32_t> int32s(const char* key) const {
    std::vector<int32_t> list;
    for (const Json* item : items(key)) {
      const double number = item->get<double>();
      if (number != std::floor(number) || number < INT32_MIN || number > INT32_MAX) {
        fail(key, fmt::format("holds {}, not a whole number of 32 bits", item->dump()));
      }
      list.push_back(static_cast<int32_t>(number));
    }
    return list;
  }

  [[noreturn]] void fail(const char* key, const std::string& what) const {
    throw bad_input(fmt::format("{}: \"{}\" {}", origin_, key, what));
  }

  [[nodiscard]] const std::string& origin() const { return origin_; }

 private:
  /// The numbers of a list, or the one number that stands there instead.
  [[nodiscard]] std::vector<const Json*> items(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return {};
    std::vector<const Json*> list;
    if (value->is_array()) {
      for (const Json& item : *value) list.push_back(&item);
    } else {
      list.push_back(value);
    }
    for (const Json* item : list) {
      if (!item->is_number()) fail(key, "holds something that is not a number");
    }
    return list;
  }

  const Json& object_;
  std::string origin_;
};

RopeScalingKind parse_rope_kind(const Reader& reader, const std::string& name) {
  static const std::array<std::pair<std::string_view, RopeScalingKind>, 9> kinds{{
      {"default", RopeScalingKind::kNone},
      {"none", RopeScalingKind::kNone},
      {"linear", RopeScalingKind::kLinear},
      {"dynamic", RopeScalingKind::kDynamic},
      {"yarn", RopeScalingKind::kYarn},
      {"llama3", RopeScalingKind::kLlama3},
      {"longrope", RopeScalingKind::kLongRope},
      {"su", RopeScalingKind::kLongRope},
      {"mrope", RopeScalingKind::kNone},
  }};
  for (const auto& [known, kind] : kinds) {
    if (known == name) return kind;
  }
  throw bad_input(
      fmt::format("{}: unknown type \"{}\"; known are linear, dynamic, yarn, llama3, longrope",
                  reader.origin(), name));
}

RopeScaling parse_rope_scaling(const Json& value, const std::string& origin) {
  const Reader reader(value, origin + ": rope_scaling");
  RopeScaling scaling;
  const auto name =
      reader.text("rope_type").has_value() ? reader.text("rope_type") : reader.text("type");
  if (!name) throw bad_input(reader.origin() + ": has neither \"rope_type\" nor \"type\"");
  scaling.kind = parse_rope_kind(reader, *name);
  if (scaling.kind == RopeScalingKind::kNone) return scaling;

  scaling.factor = reader.positive("factor", 1.0);
  const bool needs_factor = scaling.kind != RopeScalingKind::kLongRope;
  if (needs_factor && !reader.real("factor"))
    throw bad_input(reader.origin() + ": \"factor\" is missing");
  if (needs_factor && scaling.factor < 1.0) reader.fail("factor", "is below 1");
  scaling.original_max_position_embeddings = reader.integer("original_max_position_embeddings");
  scaling.low_freq_factor = reader.positive("low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = reader.positive("high_freq_factor", scaling.high_freq_factor);
  scaling.beta_fast = reader.positive("beta_fast", scaling.beta_fast);
  scaling.beta_slow = reader.positive("beta_slow", scaling.beta_slow);
  scaling.attention_factor = reader.real("attention_factor");
  scaling.mscale = reader.real("mscale");
  scaling.mscale_all_dim = reader.real("mscale_all_dim");
  scaling.truncate = reader.boolean("truncate").value_or(true);
  scaling.short_factor = reader.reals("short_factor");
  scaling.long_factor = reader.reals("long_factor");
  if (scaling.kind == RopeScalingKind::kLlama3) {
    if (!scaling.original_max_position_embeddings) {
      throw bad_input(reader.origin() + ": \"original_max_position_embeddings\" is missing");
    }
    if (!(scaling.high_freq_factor > scaling.low_freq_factor)) {
      reader.fail("high_freq_factor", "is not above low_freq_factor");
    }
  }
  return scaling;
}

/// rope_theta and scaling stand at the top level, or (newer files) together in rope_parameters.
void parse_rope(const Reader& reader, ModelConfig& config) {
  config.rope_theta = reader.positive("rope_theta", 10000.0);
  config.partial_rotary_factor = reader.positive("partial_rotary_factor", 1.0);
  const Json* scaling = reader.find("rope_scaling");
  if (const Json* parameters = reader.find("rope_parameters")) {
    const Reader inner(*parameters, reader.origin() + ": rope_parameters");
    config.rope_theta = inner.positive("rope_theta", config.rope_theta);
    config.partial_rotary_factor =
        inner.positive("partial_rotary_factor", config.partial_rotary_factor);
    const bool has_type = inner.find("rope_type") != nullptr || inner.find("type") != nullptr;
    if (scaling == nullptr && has_type) scaling = parameters;
  }
  if (config.partial_rotary_factor > 1.0) reader.fail("partial_rotary_factor", "is above 1");
  if (scaling != nullptr) config.rope_scaling = parse_rope_scaling(*scaling, reader.origin());
}

void parse_heads(const Reader& reader, ModelConfig& config) {
  config.n_heads = reader.required("num_attention_heads");
  config.n_kv_heads = reader.integer("num_key_value_heads").value_or(config.n_heads);
  if (config.n_heads % config.n_kv_heads != 0) {
    reader.fail("num_key_value_heads",
                fmt::format("is {}, which does not divide the {} attention heads",
                            config.n_kv_heads, config.n_heads));
  }
  const auto head_dim = reader.integer("head_dim");
  if (!head_dim && config.hidden_size % config.n_heads != 0) {
    reader.fail("num_attention_heads",
                fmt::format("is {}, which does not divide hidden_size {}, and there is "
                            "no \"head_dim\"",
                            config.n_heads, config.hidden_size));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.n_heads);
  if (config.head_dim % 2 != 0) {
    reader.fail("head_dim",
                fmt::format("is {}; rotary embedding needs an even number", config.head_dim));
  }
  if (config.n_heads * config.head_dim > kMaxExtent) reader.fail("head_dim", "is too large");
}

/// Newer files name the attention of every layer.
void parse_layer_types(const Reader& reader, ModelConfig& config) {
  const Json* types = reader.find("layer_types");
  if (types == nullptr) return;
  if (!types->is_array() || static_cast<int64_t>(types->size()) != config.n_layers) {
    reader.fail("layer_types", fmt::format("is not a list of one name for each of the {} layers",
                                           config.n_layers));
  }
  bool has_window = false;
  for (const Json& type : *types) {
    if (type != "full_attention" && type != "sliding_attention") {
      reader.fail("layer_types", fmt::format("holds {}; known are \"full_attention\" and "
                                             "\"sliding_attention\"",
                                             type.dump()));
    }
    config.window_layers.push_back(type == "sliding_attention");
    has_window = has_window || config.window_layers.back();
  }
  if (has_window && !config.sliding_window) {
    reader.fail("layer_types", "names sliding_attention, but \"sliding_window\" gives no window");
  }
}

void parse_window(const Reader& reader, ModelConfig& config) {
  const auto window = reader.integer("sliding_window");
  if (!window) return;
  // Qwen files carry a window that use_sliding_window switches off; Mistral files have no switch.
  const bool is_switched =
      reader.boolean("use_sliding_window").value_or(!config.model_type.starts_with("qwen"));
  if (!is_switched) return;
  config.sliding_window = window;
  if (config.model_type.starts_with("qwen")) {
    config.first_window_layer = reader.integer("max_window_layers", 0).value_or(config.n_layers);
  }
}

void parse_experts(const Reader& reader, ModelConfig& config) {
  const bool must_say = config.model_type.ends_with("_moe");
  if (must_say && reader.find("num_experts") == nullptr) reader.missing("num_experts");
  config.n_experts = reader.integer("num_experts", 0).value_or(0);
  if (config.n_experts == 0) return;
  if (config.n_experts > kMaxExpertsOfModel / config.n_layers) {
    reader.fail("num_experts", fmt::format("is {}, more than {} in {} layers", config.n_experts,
                                           kMaxExpertsOfModel, config.n_layers));
  }
  config.n_experts_per_token = reader.required("num_experts_per_tok");
  config.moe_intermediate_size = reader.required("moe_intermediate_size");
  if (config.n_experts_per_token > config.n_experts) {
    reader.fail("num_experts_per_tok", "is larger than num_experts");
  }
  const bool has_shared = config.model_type == "qwen2_moe";
  config.shared_expert_intermediate_size =
      has_shared ? reader.required("shared_expert_intermediate_size")
                 : reader.integer("shared_expert_intermediate_size", 0).value_or(0);
  config.norm_topk_prob = reader.boolean("norm_topk_prob").value_or(false);
  config.decoder_sparse_step = reader.integer("decoder_sparse_step").value_or(1);
  const std::vector<int32_t> mlp_only_layers = reader.int32s("mlp_only_layers");
  config.mlp_only_layers.assign(mlp_only_layers.begin(), mlp_only_layers.end());
}

void parse_identity(const Reader& reader, ModelConfig& config) {
  const auto model_type = reader.text("model_type");
  if (!model_type) {
    throw bad_input(
        reader.origin() +
        ": the key \"model_type\" is missing; take config.json from the model's repository");
  }
  config.model_type = *model_type;
  if (const Json* classes = reader.find("architectures")) {
    if (!classes->is_array()) reader.fail("architectures", "is not a list");
    for (const Json& name : *classes) {
      if (name.is_string()) config.architectures.push_back(name.get<std::string>());
    }
  }
  const auto dtype =
      reader.text("torch_dtype").has_value() ? reader.text("torch_dtype") : reader.text("dtype");
  if (dtype) {
    try {
      config.torch_dtype = parse_torch_dtype(*dtype);
    } catch (const Error& error) {
      throw error.with_context(reader.origin());
    }
  }
  config.quantize = reader.text("quantize").value_or("");
}

/// The first Qwen's files have names of their own for some keys.
void parse_first_qwen(const Reader& reader, ModelConfig& config) {
  if (config.intermediate_size % 2 != 0) {
    reader.fail("intermediate_size",
                fmt::format("is {}; it counts the rows of w1 and w2 together, which are as many",
                            config.intermediate_size));
  }
  config.intermediate_size /= 2;
  // Beyond the trained length these models change the base of RoPE and the scale of the scores.
  config.max_position_embeddings = reader.required("seq_length");
  config.n_kv_heads = config.n_heads;
  config.head_dim = reader.integer("kv_channels").value_or(config.head_dim);
  if (config.head_dim % 2 != 0 || config.n_heads * config.head_dim > kMaxExtent)
    reader.fail("kv_channels", "is odd or too large");
  config.rope_theta = reader.positive("rotary_emb_base", 10000.0);
  config.partial_rotary_factor = reader.positive("rotary_pct", 1.0);
  if (config.partial_rotary_factor > 1.0) reader.fail("rotary_pct", "is above 1");
  config.rms_norm_eps = reader.positive("layer_norm_epsilon", 1e-6);
  config.attention_bias = !reader.boolean("no_bias").value_or(true);
  config.mlp_bias = config.attention_bias;
}

}  // namespace

int64_t ModelConfig::window_of(int64_t layer) const {
  if (!sliding_window) return 0;
  const bool has_window = window_layers.empty() ? layer >= first_window_layer
                                                : window_layers.at(static_cast<size_t>(layer));
  return has_window ? *sliding_window : 0;
}

bool ModelConfig::may_lack_head() const {
  if (bare_names) return true;
  const bool is_one = architectures.size() == 1;
  return is_one && architectures[0].ends_with("Model") &&
         !architectures[0].ends_with("LMHeadModel");
}

bool ModelConfig::is_moe_layer(int64_t layer) const {
  if (n_experts == 0) return false;
  if (std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) != mlp_only_layers.end())
    return false;
  return (layer + 1) % decoder_sparse_step == 0;
}

ModelConfig parse_model_config(const Json& document, const std::string& origin) {
  const Reader reader(document, origin);
  ModelConfig config;
  parse_identity(reader, config);
  config.hidden_size = reader.required("hidden_size");
  config.intermediate_size = reader.required("intermediate_size");
  config.n_layers = reader.required("num_hidden_layers");
  if (config.n_layers > 100'000) reader.fail("num_hidden_layers", "is more than 100000");
  config.vocab_size = reader.required("vocab_size");
  config.max_position_embeddings = reader.integer("max_position_embeddings").value_or(2048);
  parse_heads(reader, config);
  parse_rope(reader, config);
  parse_window(reader, config);
  parse_layer_types(reader, config);
  parse_experts(reader, config);
  config.rms_norm_eps = reader.positive("rms_norm_eps", 1e-6);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings").value_or(false);
  config.is_causal = reader.boolean("is_causal").value_or(true);
  config.attention_bias = reader.boolean("attention_bias");
  config.mlp_bias = reader.boolean("mlp_bias");
  if (config.model_type == "qwen") parse_first_qwen(reader, config);
  config.hidden_act = reader.text("hidden_act").value_or("silu");
  const auto bos = reader.int32s("bos_token_id");
  if (!bos.empty()) config.bos_token_id = bos.front();
  config.eos_token_ids = reader.int32s("eos_token_id");
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& path) {
  const std::filesystem::path file =
      std::filesystem::is_directory(path) ? path / "config.json" : path;
  return parse_model_config(read_json_file(file), file.string());
}

Json rewrite_config(const Json& document, const Json& changes,
                    const std::vector<std::string>& removed) {
  Json result = document;
  for (const std::string& key : removed) result.erase(key);
  for (const auto& [key, value] : changes.items()) result[key] = value;
  return result;
}

}  // namespace llmq::formats
