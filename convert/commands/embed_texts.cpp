#include "convert/commands/embed_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "convert/interrupt.h"
#include "convert/report/table.h"
#include "formats/error.h"
#include "runtime/model/embed.h"

namespace llmq::convert {
namespace {

using formats::Json;
using Vectors = std::vector<std::vector<float>>;

constexpr size_t kValuesShown = 6;

Json result_json(const Prompt& prompt, const std::vector<float>& vector) {
  Json json = Json::object();
  json["embedding"] = vector;
  json["dimensions"] = vector.size();
  json["prompt_ids"] = prompt.ids;
  return json;
}

std::string summary(size_t number, const Prompt& prompt, const std::vector<float>& vector) {
  std::string text =
      fmt::format("[{}] {} tokens, {} dimensions:", number, prompt.ids.size(), vector.size());
  for (size_t i = 0; i < std::min(kValuesShown, vector.size()); ++i)
    text += fmt::format(" {:.6f}", vector[i]);
  return text + (vector.size() > kValuesShown ? " ...\n" : "\n");
}

std::string similarity_table(const Json& similarity) {
  std::vector<std::string> heading{"cosine"};
  for (size_t i = 0; i < similarity.size(); ++i) heading.push_back(fmt::format("[{}]", i + 1));
  Table table(std::move(heading));
  for (size_t i = 0; i < similarity.size(); ++i) {
    std::vector<std::string> cells{fmt::format("[{}]", i + 1)};
    for (const Json& value : similarity[i])
      cells.push_back(fmt::format("{:.4f}", value.get<double>()));
    table.add(std::move(cells));
  }
  return table.text();
}

Json similarities(const Vectors& vectors) {
  Json matrix = Json::array();
  for (const auto& a : vectors) {
    Json row = Json::array();
    for (const auto& b : vectors) row.push_back(runtime::cosine_similarity(a, b));
    matrix.push_back(std::move(row));
  }
  return matrix;
}

}  // namespace

void check_pooling(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "1_Pooling" / "config.json";
  if (!std::filesystem::exists(path)) return;
  const Json pooling = formats::read_json_file(path);
  const bool is_last =
      pooling.is_object() && pooling.value("pooling_mode_lasttoken", Json()) == true;
  if (is_last) return;
  throw formats::bad_input(path.string() +
                           ": asks for another vector than the last token's, which is the only one "
                           "that --embed gives");
}

EmbedResult embed_prompts(runtime::Model& model, const std::vector<Prompt>& prompts,
                          int64_t max_batch_size, Console& console) {
  std::vector<std::vector<int32_t>> texts;
  texts.reserve(prompts.size());
  uint64_t n_tokens = 0;
  for (const Prompt& prompt : prompts) {
    texts.push_back(prompt.ids);
    n_tokens += prompt.ids.size();
  }
  uint64_t n_done = 0;
  const Vectors vectors = runtime::embed(model, texts, max_batch_size, [&](int64_t text) {
    throw_if_interrupted();
    n_done += texts[static_cast<size_t>(text)].size();
    console.progress("embedding", n_done, n_tokens, ProgressUnit::kTokens);
  });
  console.end_progress();
  EmbedResult result;
  Json list = Json::array();
  for (size_t i = 0; i < vectors.size(); ++i) {
    list.push_back(result_json(prompts[i], vectors[i]));
    result.text += summary(i + 1, prompts[i], vectors[i]);
  }
  if (vectors.size() == 1) {
    result.document = list.front();
    return result;
  }
  result.document["results"] = std::move(list);
  result.document["similarity"] = similarities(vectors);
  result.text += "\n" + similarity_table(result.document["similarity"]);
  return result;
}

}  // namespace llmq::convert
