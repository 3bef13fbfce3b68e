#include "convert/calibration/statistics.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;

constexpr std::string_view kFormat = "llmq-statistics-1";

Json key_json(const GroupKey& key) {
  Json json = {{"layer", key.layer}, {"group", formats::fused_group_name(key.group)}};
  if (key.expert >= 0) json["expert"] = key.expert;
  return json;
}

Json group_json(const GroupKey& key, const quant::RangeStatistics& seen) {
  Json group = key_json(key);
  group["n"] = seen.n;
  group["min"] = seen.min;
  group["max"] = seen.max;
  group["mean"] = seen.mean;
  group["std"] = seen.deviation;
  if (seen.histogram) {
    group["histogram"] = {{"min", seen.histogram->min},
                          {"max", seen.histogram->max},
                          {"counts", seen.histogram->counts}};
  }
  return group;
}

/// Typed access to the keys of a statistics file, with errors that name file and key.
class Reader {
 public:
  Reader(const Json& object, std::string origin) : object_(object), origin_(std::move(origin)) {
    if (!object.is_object()) throw bad_input(origin_ + ": is not a JSON object");
  }

  [[nodiscard]] const Json& at(const char* key) const {
    const auto it = object_.find(key);
    if (it == object_.end()) throw bad_input(fmt::format("{}: \"{}\" is missing", origin_, key));
    return *it;
  }

  [[nodiscard]] const Json& list(const char* key) const {
    const Json& value = at(key);
    if (!value.is_array()) throw bad_input(fmt::format("{}: \"{}\" is not a list", origin_, key));
    return value;
  }

  [[nodiscard]] std::string text(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string())
      throw bad_input(fmt::format("{}: \"{}\" is not a string", origin_, key));
    return value.get<std::string>();
  }

  [[nodiscard]] int64_t whole(const char* key, int64_t least) const {
    const Json& value = at(key);
    // A number beyond int64 is stored unsigned, and turns negative in get<int64_t>().
    const bool is_beyond =
        value.is_number_unsigned() &&
        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!value.is_number_integer() || is_beyond || value.get<int64_t>() < least) {
      throw bad_input(
          fmt::format("{}: \"{}\" is not a whole number from {} on", origin_, key, least));
    }
    return value.get<int64_t>();
  }

  [[nodiscard]] double number(const char* key) const { return number_of(at(key), key); }

  /// A number that is a float32, not merely near one.
  [[nodiscard]] float float32(const char* key) const {
    const double value = number(key);
    const auto narrow = static_cast<float>(value);
    if (static_cast<double>(narrow) != value)
      throw bad_input(fmt::format("{}: \"{}\" is no float32 value", origin_, key));
    return narrow;
  }

  [[nodiscard]] double number_of(const Json& value, const char* key) const {
    if (!value.is_number() || !std::isfinite(value.get<double>()))
      throw bad_input(fmt::format("{}: \"{}\" is not a finite number", origin_, key));
    return value.get<double>();
  }

  [[nodiscard]] bool has(const char* key) const { return object_.contains(key); }
  [[nodiscard]] Reader object(const char* key) const {
    return {at(key), fmt::format("{}, {}", origin_, key)};
  }
  [[nodiscard]] const std::string& origin() const { return origin_; }

 private:
  const Json& object_;
  std::string origin_;
};

quant::Histogram read_histogram(const Reader& reader) {
  quant::Histogram histogram;
  histogram.min = reader.float32("min");
  histogram.max = reader.float32("max");
  const Json& counts = reader.list("counts");
  if (histogram.min > histogram.max || counts.size() != quant::kHistogramBins) {
    throw bad_input(
        fmt::format("{}: needs min <= max and {} counts", reader.origin(), quant::kHistogramBins));
  }
  double total = 0;
  for (const Json& count : counts) {
    histogram.counts.push_back(reader.number_of(count, "counts"));
    if (histogram.counts.back() < 0)
      throw bad_input(fmt::format("{}: \"counts\" holds a negative number", reader.origin()));
    total += histogram.counts.back();
  }
  if (!(total > 0)) throw bad_input(fmt::format("{}: \"counts\" are all zero", reader.origin()));
  return histogram;
}

quant::RangeStatistics read_range(const Reader& reader) {
  quant::RangeStatistics seen;
  seen.n = reader.whole("n", 1);
  seen.min = reader.float32("min");
  seen.max = reader.float32("max");
  seen.mean = reader.number("mean");
  seen.deviation = reader.number("std");
  if (seen.min > seen.max || seen.deviation < 0)
    throw bad_input(reader.origin() + ": needs min <= max and std >= 0");
  if (reader.has("histogram")) seen.histogram = read_histogram(reader.object("histogram"));
  return seen;
}

GroupKey read_key(const Reader& reader, const formats::ModelConfig& config) {
  const std::string name = reader.text("group");
  const auto group = formats::find_fused_group(name);
  if (!group) throw bad_input(fmt::format("{}: unknown group \"{}\"", reader.origin(), name));
  const int64_t layer = reader.whole("layer", -1);
  if (layer >= config.n_layers) {
    throw bad_input(fmt::format("{}: \"layer\" is {}, but the model has {} layers", reader.origin(),
                                layer, config.n_layers));
  }
  const int64_t expert = reader.has("expert") ? reader.whole("expert", 0) : -1;
  if (expert >= config.n_experts && expert >= 0) {
    throw bad_input(fmt::format("{}: \"expert\" is {}, but a layer of the model has {} experts",
                                reader.origin(), expert, config.n_experts));
  }
  return {layer, *group, expert};
}

/// max|x| / std; null stands for infinity, which JSON has no number for.
double read_spread(const Reader& reader) {
  constexpr const char* kKey = "max_over_std";
  if (reader.at(kKey).is_null()) return std::numeric_limits<double>::infinity();
  const double spread = reader.number(kKey);
  if (spread < 0) throw bad_input(fmt::format("{}: \"{}\" is negative", reader.origin(), kKey));
  return spread;
}

/// Keeps `value` of a key that must be new.
template <typename T>
void keep(std::map<GroupKey, T>& values, const GroupKey& key, T value, const Reader& reader) {
  if (values.emplace(key, std::move(value)).second) return;
  throw bad_input(fmt::format("{}: \"group\" {} of \"layer\" {}{} stands there twice",
                              reader.origin(), formats::fused_group_name(key.group), key.layer,
                              key.expert < 0 ? "" : fmt::format(" and \"expert\" {}", key.expert)));
}

void check_model(const Reader& model, const formats::ModelConfig& config) {
  const auto check = [&](const char* key, int64_t wanted) {
    if (const int64_t value = model.whole(key, 0); value != wanted) {
      throw bad_input(
          fmt::format("{}: \"{}\" is {}, but this model has {}; the statistics are of "
                      "another model",
                      model.origin(), key, value, wanted));
    }
  };
  check("n_layers", config.n_layers);
  check("hidden_size", config.hidden_size);
  check("intermediate_size", config.intermediate_size);
}

std::string read_fast_order(const Reader& reader) {
  std::string order = reader.text("fast_calibration");
  if (order == "tiles" || order == "lanes") return order;
  throw bad_input(
      fmt::format("{}: \"fast_calibration\" is neither \"tiles\" nor \"lanes\"", reader.origin()));
}

}  // namespace

Json statistics_json(const CalibrationStatistics& statistics) {
  Json document = {{"format", kFormat},
                   {"texts", statistics.texts},
                   {"samples", statistics.n_samples},
                   {"tokens", statistics.n_tokens},
                   {"model",
                    {{"model_type", statistics.model_type},
                     {"n_layers", statistics.n_layers},
                     {"hidden_size", statistics.hidden_size},
                     {"intermediate_size", statistics.intermediate_size}}}};
  if (!statistics.fast_order.empty()) document["fast_calibration"] = statistics.fast_order;
  document["groups"] = Json::array();
  for (const auto& [key, seen] : statistics.groups) {
    document["groups"].push_back(group_json(key, seen));
    const auto range = statistics.ranges.find(key);
    if (range == statistics.ranges.end()) continue;
    document["groups"].back()["range"] = {{"act_method", static_cast<int>(range->second.chosen)},
                                          {"min", range->second.min},
                                          {"max", range->second.max}};
  }
  if (statistics.first_samples.empty()) return document;
  document["first_samples"] = Json::array();
  for (const auto& [key, spread] : statistics.first_samples) {
    document["first_samples"].push_back(key_json(key));
    document["first_samples"].back()["max_over_std"] =
        std::isfinite(spread) ? Json(spread) : Json(nullptr);
  }
  return document;
}

CalibrationStatistics read_statistics(const std::filesystem::path& path,
                                      const formats::ModelConfig& config) {
  const Json document = formats::read_json_file(path);
  const Reader reader(document, path.string());
  if (!reader.has("format") || reader.text("format") != kFormat) {
    throw bad_input(
        fmt::format("{}: is no statistics file of this version (\"format\" must be "
                    "\"{}\"); write one with llmq quant --save-stats",
                    path.string(), kFormat));
  }
  CalibrationStatistics statistics;
  statistics.texts = reader.text("texts");
  statistics.n_samples = reader.whole("samples", 1);
  statistics.n_tokens = reader.whole("tokens", 1);
  if (reader.has("fast_calibration")) statistics.fast_order = read_fast_order(reader);
  const Reader model = reader.object("model");
  check_model(model, config);
  statistics.model_type = model.text("model_type");
  statistics.n_layers = config.n_layers;
  statistics.hidden_size = config.hidden_size;
  statistics.intermediate_size = config.intermediate_size;
  const Json& groups = reader.list("groups");
  for (size_t i = 0; i < groups.size(); ++i) {
    const Reader group(groups[i], fmt::format("{}: group {}", path.string(), i + 1));
    keep(statistics.groups, read_key(group, config), read_range(group), group);
  }
  if (!reader.has("first_samples")) return statistics;
  const Json& first = reader.list("first_samples");
  for (size_t i = 0; i < first.size(); ++i) {
    const Reader group(first[i], fmt::format("{}: first sample {}", path.string(), i + 1));
    keep(statistics.first_samples, read_key(group, config), read_spread(group), group);
  }
  return statistics;
}

}  // namespace llmq::convert
