#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "convert/recipes/recipe.h"
#include "convert/recipes/recipe_options.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;
using formats::Scheme;

/// Names of WeightMethod::Kind, in its order.
constexpr std::array<std::string_view, 3> kMethodNames{"round", "ssz", "gptq"};
constexpr std::array<std::string_view, 4> kSubgraphNames{"norm_qkv", "norm_gate_up", "v_o",
                                                         "up_down"};

std::string required_text(const Json& object, const char* key, const std::string& origin) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) {
    throw bad_input(fmt::format("{}: the key \"{}\" is missing or not a string", origin, key));
  }
  return it->get<std::string>();
}

std::vector<std::string> text_list(const Json& object, const char* key, const std::string& origin) {
  const auto it = object.find(key);
  if (it == object.end()) return {};
  if (!it->is_array()) throw bad_input(fmt::format("{}: \"{}\" is not a list", origin, key));
  std::vector<std::string> list;
  for (const Json& item : *it) {
    if (!item.is_string())
      throw bad_input(fmt::format("{}: \"{}\" holds something that is not a string", origin, key));
    list.push_back(item.get<std::string>());
  }
  return list;
}

void refuse_unknown_keys(const Json& object, std::initializer_list<std::string_view> known,
                         const std::string& origin) {
  if (!object.is_object()) throw bad_input(origin + ": is not a JSON object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw bad_input(
          fmt::format("{}: unknown key \"{}\"; known are {}", origin, key, fmt::join(known, ", ")));
    }
  }
}

bool bool_or(const Json& object, const char* key, bool fallback, const std::string& origin) {
  const auto it = object.find(key);
  if (it == object.end()) return fallback;
  if (!it->is_boolean())
    throw bad_input(fmt::format("{}: \"{}\" is neither true nor false", origin, key));
  return it->get<bool>();
}

struct Range {
  double least;
  double greatest;
};

struct Bounds {
  int64_t least;
  int64_t greatest;
};

int64_t whole_number_or(const Json& object, const char* key, int64_t fallback, Bounds bounds,
                        const std::string& origin) {
  const auto it = object.find(key);
  if (it == object.end()) return fallback;
  // A number beyond int64 is stored unsigned, and turns negative in get<int64_t>().
  const bool is_whole = it->is_number_integer() && it->get<int64_t>() >= bounds.least &&
                        it->get<int64_t>() <= bounds.greatest;
  if (!is_whole) {
    throw bad_input(fmt::format("{}: \"{}\" is not a whole number from {} to {}", origin, key,
                                bounds.least, bounds.greatest));
  }
  return it->get<int64_t>();
}

double number_or(const Json& object, const char* key, double fallback, Range range,
                 const std::string& origin) {
  const auto it = object.find(key);
  if (it == object.end()) return fallback;
  const double value = it->is_number() ? it->get<double>() : range.greatest + 1;
  if (!(value >= range.least && value <= range.greatest)) {
    throw bad_input(fmt::format("{}: \"{}\" is not a number from {} to {}", origin, key,
                                range.least, range.greatest));
  }
  return value;
}

quant::SparseSpec parse_sparse(const Json& object, const std::string& origin) {
  refuse_unknown_keys(object, {"fraction", "use_sigma", "sigma_factor", "co_sparse"}, origin);
  quant::SparseSpec sparse;
  sparse.fraction = number_or(object, "fraction", 0.011, {0.01, 0.1}, origin);
  sparse.use_sigma = bool_or(object, "use_sigma", false, origin);
  sparse.sigma_factor = number_or(object, "sigma_factor", 3.0, {3.0, 4.0}, origin);
  sparse.co_sparse = bool_or(object, "co_sparse", false, origin);
  return sparse;
}

quant::WeightMethod parse_method(const Json& object, const std::string& origin) {
  quant::WeightMethod method;
  if (object.contains("method")) {
    const std::string name = required_text(object, "method", origin);
    const auto known = std::find(kMethodNames.begin(), kMethodNames.end(), name);
    if (known == kMethodNames.end()) {
      throw bad_input(fmt::format("{}: unknown method \"{}\"; known are {}", origin, name,
                                  fmt::join(kMethodNames, ", ")));
    }
    method.kind = static_cast<quant::WeightMethod::Kind>(known - kMethodNames.begin());
  }
  method.clip = bool_or(object, "clip", false, origin);
  method.activation_order = bool_or(object, "activation_order", false, origin);
  method.n_refine_sweeps =
      static_cast<int>(whole_number_or(object, "refine_sweeps", 0, {0, 100}, origin));
  if (object.contains("sparse"))
    method.sparse = parse_sparse(object["sparse"], origin + ": sparse");
  return method;
}

SmoothRecipe parse_smooth(const Json& object, const std::string& origin) {
  refuse_unknown_keys(object, {"method", "alpha", "beta", "subgraphs"}, origin);
  SmoothRecipe smooth;
  smooth.method = required_text(object, "method", origin);
  require_smooth_method(smooth.method, origin);
  if (object.contains("alpha")) smooth.alpha = number_or(object, "alpha", 0.5, {0.0, 1.0}, origin);
  if (object.contains("beta")) smooth.beta = number_or(object, "beta", 0.5, {0.0, 1.0}, origin);
  smooth.subgraphs = text_list(object, "subgraphs", origin);
  for (const std::string& subgraph : smooth.subgraphs) {
    if (std::find(kSubgraphNames.begin(), kSubgraphNames.end(), subgraph) == kSubgraphNames.end()) {
      throw bad_input(fmt::format("{}: unknown subgraph \"{}\"; known are {}", origin, subgraph,
                                  fmt::join(kSubgraphNames, ", ")));
    }
  }
  return smooth;
}

RecipeRule parse_rule(const Json& object, const std::string& origin) {
  refuse_unknown_keys(object,
                      {"match", "scheme", "symmetric", "group_size", "activation_symmetric",
                       "method", "clip", "activation_order", "refine_sweeps", "sparse"},
                      origin);
  RecipeRule rule;
  rule.match = required_text(object, "match", origin);
  try {
    rule.scheme = formats::parse_scheme_tag(required_text(object, "scheme", origin));
  } catch (const formats::Error& error) {
    throw error.with_context(origin);
  }
  rule.symmetric = bool_or(object, "symmetric", true, origin);
  rule.group_size = whole_number_or(object, "group_size", 0, {0, 65536}, origin);
  rule.activation_symmetric = bool_or(object, "activation_symmetric", false, origin);
  rule.method = parse_method(object, origin);
  if (rule.scheme == Scheme::kW8A8S && !rule.method.sparse) rule.method.sparse.emplace();
  return rule;
}

formats::DType parse_recipe_dtype(const Json& document, const std::string& origin) {
  try {
    return formats::parse_torch_dtype(required_text(document, "dtype", origin));
  } catch (const formats::Error& error) {
    throw error.with_context(origin);
  }
}

Scheme parse_scheme(const Json& document, const char* key, const std::string& origin) {
  try {
    return formats::parse_scheme_tag(required_text(document, key, origin));
  } catch (const formats::Error& error) {
    throw error.with_context(origin);
  }
}

void parse_transformations(const Json& document, const std::string& origin, Recipe& recipe) {
  if (document.contains("smooth"))
    recipe.smooth = parse_smooth(document["smooth"], origin + ": smooth");
  recipe.rotate = bool_or(document, "rotate", false, origin);
  if (document.contains("attention")) {
    recipe.attention = parse_scheme(document, "attention", origin);
    if (recipe.attention != Scheme::kC8 && recipe.attention != Scheme::kFaQuant)
      throw bad_input(origin + ": \"attention\" is neither \"C8\" nor \"FAQuant\"");
  }
  if (document.contains("dtype")) recipe.dtype = parse_recipe_dtype(document, origin);
  if (document.contains("model_quant_type"))
    recipe.model_quant_type = parse_scheme(document, "model_quant_type", origin);
}

}  // namespace

Recipe read_recipe(const std::filesystem::path& path) {
  return parse_recipe(formats::read_json_file(path), path.string());
}

Recipe parse_recipe(const Json& document, const std::string& origin) {
  refuse_unknown_keys(
      document,
      {"name", "summary", "families", "keep_float", "rules", "act_method", "row_parallel_symmetric",
       "disable_level", "disable_threshold", "disable_candidates", "smooth", "rotate", "attention",
       "dtype", "model_quant_type", "caveat"},
      origin);
  Recipe recipe;
  recipe.name = required_text(document, "name", origin);
  recipe.summary = document.contains("summary") ? required_text(document, "summary", origin) : "";
  recipe.caveat = document.contains("caveat") ? required_text(document, "caveat", origin) : "";
  recipe.families = text_list(document, "families", origin);
  recipe.keep_float = text_list(document, "keep_float", origin);
  recipe.act_method =
      static_cast<quant::ActMethod>(whole_number_or(document, "act_method", 1, {1, 3}, origin));
  recipe.disable_level = whole_number_or(document, "disable_level", 0, {0, 1 << 20}, origin);
  recipe.row_parallel_symmetric = bool_or(document, "row_parallel_symmetric", true, origin);
  recipe.disable_threshold = number_or(document, "disable_threshold", 0.0, {0.0, 100.0}, origin);
  recipe.disable_candidates = text_list(document, "disable_candidates", origin);
  parse_transformations(document, origin, recipe);
  const auto rules = document.find("rules");
  if (rules == document.end() || !rules->is_array())
    throw bad_input(origin + ": \"rules\" is missing or not a list");
  for (size_t i = 0; i < rules->size(); ++i) {
    recipe.rules.push_back(parse_rule((*rules)[i], fmt::format("{}: rule {}", origin, i + 1)));
  }
  return recipe;
}

namespace {

Json method_json(const RecipeRule& rule) {
  const quant::WeightMethod& method = rule.method;
  Json json = Json::object();
  if (method.kind != quant::WeightMethod::Kind::kRound)
    json["method"] = kMethodNames.at(static_cast<size_t>(method.kind));
  if (method.clip) json["clip"] = true;
  if (method.activation_order) json["activation_order"] = true;
  if (method.n_refine_sweeps > 0) json["refine_sweeps"] = method.n_refine_sweeps;
  if (method.sparse) {
    json["sparse"] = {{"fraction", method.sparse->fraction},
                      {"use_sigma", method.sparse->use_sigma},
                      {"sigma_factor", method.sparse->sigma_factor},
                      {"co_sparse", method.sparse->co_sparse}};
  }
  return json;
}

Json rule_json(const RecipeRule& rule) {
  Json json = {{"match", rule.match},
               {"scheme", formats::scheme_row(rule.scheme).tag},
               {"symmetric", rule.symmetric},
               {"group_size", rule.group_size}};
  if (formats::has_tensor(rule.scheme, ".input_scale"))
    json["activation_symmetric"] = rule.activation_symmetric;
  json.update(method_json(rule));
  return json;
}

void add_transformations(const Recipe& recipe, Json& document) {
  if (recipe.smooth) {
    Json smooth = {{"method", recipe.smooth->method}};
    if (recipe.smooth->alpha) smooth["alpha"] = *recipe.smooth->alpha;
    if (recipe.smooth->beta) smooth["beta"] = *recipe.smooth->beta;
    if (!recipe.smooth->subgraphs.empty()) smooth["subgraphs"] = recipe.smooth->subgraphs;
    document["smooth"] = smooth;
  }
  if (recipe.rotate) document["rotate"] = true;
  if (recipe.attention != Scheme::kFloat)
    document["attention"] = formats::scheme_row(recipe.attention).tag;
  if (recipe.dtype) document["dtype"] = formats::torch_dtype_name(*recipe.dtype);
  if (recipe.model_quant_type)
    document["model_quant_type"] = formats::scheme_row(*recipe.model_quant_type).tag;
}

}  // namespace

Json recipe_json(const Recipe& recipe) {
  Json rules = Json::array();
  for (const RecipeRule& rule : recipe.rules) rules.push_back(rule_json(rule));
  Json document = {{"name", recipe.name}, {"summary", recipe.summary}};
  if (!recipe.families.empty()) document["families"] = recipe.families;
  document["keep_float"] = recipe.keep_float;
  document["rules"] = rules;
  if (recipe.has_static_activations()) {
    document["act_method"] = static_cast<int>(recipe.act_method);
    document["row_parallel_symmetric"] = recipe.row_parallel_symmetric;
    document["disable_level"] = recipe.disable_level;
  }
  if (recipe.disable_threshold > 0) document["disable_threshold"] = recipe.disable_threshold;
  if (!recipe.disable_candidates.empty())
    document["disable_candidates"] = recipe.disable_candidates;
  add_transformations(recipe, document);
  if (!recipe.caveat.empty()) document["caveat"] = recipe.caveat;
  return document;
}

}  // namespace llmq::convert
