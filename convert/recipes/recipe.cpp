#include "convert/recipes/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;

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

RecipeRule parse_rule(const Json& object, const std::string& origin) {
  refuse_unknown_keys(
      object, {"match", "scheme", "symmetric", "group_size", "activation_symmetric"}, origin);
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
  return rule;
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

RecipeRule Recipe::rule_for(std::string_view module) const {
  for (const std::string& pattern : keep_float) {
    if (matches_pattern(pattern, module)) return {pattern, formats::Scheme::kFloat};
  }
  for (const RecipeRule& rule : rules) {
    if (matches_pattern(rule.match, module)) return rule;
  }
  return {"", formats::Scheme::kFloat};
}

bool Recipe::needs_calibration() const {
  return std::any_of(rules.begin(), rules.end(), [](const RecipeRule& rule) {
    return formats::has_tensor(rule.scheme, ".input_scale");
  });
}

formats::Scheme Recipe::main_scheme() const {
  formats::Scheme main = formats::Scheme::kFloat;
  for (const RecipeRule& rule : rules) {
    if (formats::scheme_row(rule.scheme).priority > formats::scheme_row(main).priority)
      main = rule.scheme;
  }
  return main;
}

int64_t Recipe::group_size() const {
  int64_t largest = 0;
  for (const RecipeRule& rule : rules) largest = std::max(largest, rule.group_size);
  return largest;
}

const Recipe& builtin_recipe(std::string_view type) {
  std::string list;
  for (const Recipe& recipe : builtin_recipes()) {
    if (recipe.name == type) return recipe;
    list += fmt::format("\n  {:<20} {}", recipe.name, recipe.summary);
  }
  throw formats::usage_error(fmt::format("unknown type \"{}\"; known types are:{}", type, list));
}

Recipe read_recipe(const std::filesystem::path& path) {
  return parse_recipe(formats::read_json_file(path), path.string());
}

Recipe parse_recipe(const Json& document, const std::string& origin) {
  refuse_unknown_keys(document,
                      {"name", "summary", "families", "keep_float", "rules", "act_method",
                       "disable_level", "caveat"},
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
  const auto rules = document.find("rules");
  if (rules == document.end() || !rules->is_array())
    throw bad_input(origin + ": \"rules\" is missing or not a list");
  for (size_t i = 0; i < rules->size(); ++i) {
    recipe.rules.push_back(parse_rule((*rules)[i], fmt::format("{}: rule {}", origin, i + 1)));
  }
  return recipe;
}

Json recipe_json(const Recipe& recipe) {
  Json rules = Json::array();
  for (const RecipeRule& rule : recipe.rules) {
    rules.push_back({{"match", rule.match},
                     {"scheme", formats::scheme_row(rule.scheme).tag},
                     {"symmetric", rule.symmetric},
                     {"group_size", rule.group_size}});
    if (formats::has_tensor(rule.scheme, ".input_scale"))
      rules.back()["activation_symmetric"] = rule.activation_symmetric;
  }
  Json document = {{"name", recipe.name}, {"summary", recipe.summary}};
  if (!recipe.families.empty()) document["families"] = recipe.families;
  document["keep_float"] = recipe.keep_float;
  document["rules"] = rules;
  if (recipe.needs_calibration()) {
    document["act_method"] = static_cast<int>(recipe.act_method);
    document["disable_level"] = recipe.disable_level;
  }
  if (!recipe.caveat.empty()) document["caveat"] = recipe.caveat;
  return document;
}

void apply_disable_names(Recipe& recipe, std::string_view names) {
  if (names.starts_with('+')) {
    names.remove_prefix(1);
  } else {
    recipe.keep_float.clear();
  }
  while (!names.empty()) {
    const size_t comma = std::min(names.find(','), names.size());
    std::string_view name = names.substr(0, comma);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (!name.empty()) recipe.keep_float.emplace_back(name);
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
}

}  // namespace llmq::convert
