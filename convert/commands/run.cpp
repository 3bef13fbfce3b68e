#include <fmt/format.h>

#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/embed_texts.h"
#include "convert/commands/explain.h"
#include "convert/commands/model_options.h"
#include "convert/commands/prompts.h"
#include "convert/commands/ranks.h"
#include "convert/interrupt.h"
#include "formats/error.h"
#include "runtime/model/generate.h"
#include "runtime/tokenizer/tokenizer.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq run --model_path Qwen2.5-0.5B-w8a16 --input_texts \"What is deep learning?\" "
    "--is_chat_model\n"
    "  llmq run --model_path stories260k --input_texts prompts.jsonl --max_batch_size 4 --json\n"
    "  llmq run --model_path stories260k --input_dict '[{\"prompt\": \"Once\", "
    "\"max_output_length\": 32}]'\n"
    "  llmq run --model_path Qwen2.5-0.5B-w8a16 --explain\n"
    "  llmq run --model_path Qwen3-Embedding-0.6B --embed --input_texts \"a cat\" \"a dog\"";

struct RunOptions {
  ModelCommandOptions model;
  PromptOptions prompt;
  runtime::SamplingOptions sampling;
  int64_t max_batch_size = 8;
  bool is_embedding = false;
  bool is_explained = false;
};

/// The tokenizer of a folder; none where it has no tokenizer files at all, so that ids still run.
std::optional<runtime::Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  for (const char* name : {"tokenizer.json", "vocab.json", "qwen.tiktoken", "tokenizer.model"}) {
    if (std::filesystem::exists(folder / name)) return runtime::Tokenizer::load(folder);
  }
  return std::nullopt;
}

formats::Json result_json(const runtime::GenerateResult& result, const Prompt& prompt,
                          const std::optional<runtime::Tokenizer>& tokenizer) {
  formats::Json json = formats::Json::object();
  json["text"] = tokenizer ? tokenizer->decode(result.ids) : "";
  json["ids"] = result.ids;
  json["prompt_ids"] = prompt.ids;
  json["finish_reason"] = runtime::finish_reason_name(result.finish_reason);
  return json;
}

/// Shows `document`, with the phase that was asked for, or `text`.
void show(Console& console, const RunOptions& options, formats::Json document,
          const std::string& text) {
  if (!options.model.phase.empty()) document["phase"] = options.model.phase;
  console.result(document, text);
}

bool has_prompt(const PromptOptions& prompt) {
  return !prompt.texts.empty() || !prompt.dictionary.empty() || !prompt.ids.empty();
}

int run_model(const RunOptions& options, const RankPlace& place) {
  Console& console = *place.console;
  if (options.is_embedding) check_pooling(place.folder);
  const std::unique_ptr<runtime::Model> model = load_model(options.model, place);
  if (options.is_explained) {
    const formats::Json explained = explain_json(*model);
    if (!has_prompt(options.prompt)) {
      console.result(explained, explain_text(explained));
      return 0;
    }
    console.info(explain_text(explained));
  }
  const std::optional<runtime::Tokenizer> tokenizer = load_tokenizer(place.folder);
  PromptOptions prompt_options = options.prompt;
  prompt_options.is_embedding = options.is_embedding;
  const std::vector<Prompt> prompts = read_prompts(prompt_options, place.folder, tokenizer);
  if (options.is_embedding) {
    EmbedResult result = embed_prompts(*model, prompts, options.max_batch_size, console);
    show(console, options, std::move(result.document), result.text);
    return 0;
  }
  std::vector<runtime::GenerateRequest> requests;
  requests.reserve(prompts.size());
  for (const Prompt& prompt : prompts) {
    requests.push_back({prompt.ids, prompt.max_output_length, options.sampling, std::nullopt});
  }
  // One text is shown as it is made; several would be shown word by word in turn.
  const bool is_streamed = requests.size() == 1 && tokenizer && !console.is_json();
  std::optional<runtime::StreamDecoder> decoder;
  if (is_streamed) decoder.emplace(*tokenizer);
  const auto on_token = [&](int64_t, int32_t id) {
    throw_if_interrupted();
    if (decoder) console.stream(decoder->feed(id));
    return true;
  };
  const std::vector<runtime::GenerateResult> results =
      runtime::generate(*model, requests, options.max_batch_size, on_token);
  if (decoder) console.stream(decoder->finish() + "\n");

  formats::Json list = formats::Json::array();
  std::string text;
  for (size_t i = 0; i < results.size(); ++i) {
    list.push_back(result_json(results[i], prompts[i], tokenizer));
    if (is_streamed) continue;
    const formats::Json& result = list.back();
    text += fmt::format("[{}] {}\n", i + 1,
                        tokenizer ? result["text"].get<std::string>() : result["ids"].dump());
  }
  show(console, options, list.size() == 1 ? list.front() : formats::Json{{"results", list}}, text);
  return 0;
}

void add_run_options(CLI::App& command, RunOptions& options) {
  add_model_options(command, options.model);
  command
      .add_option("--input-texts", options.prompt.texts,
                  "Text to continue, or a file that holds it (.jsonl: one a line)")
      ->take_all();
  command.add_option("--input-dict", options.prompt.dictionary,
                     "JSON list of {\"prompt\": ..., \"max_output_length\": ...}");
  command.add_option("--input-ids", options.prompt.ids,
                     "Token ids: 1,2,3 or a JSON list, or a list of lists");
  command.add_option("--max-input-length", options.prompt.max_input_length,
                     "Refuse prompts of more tokens");
  CLI::Option* output_length =
      command
          .add_option("--max-output-length", options.prompt.max_output_length,
                      "New tokens at most (default 128)")
          ->check(CLI::NonNegativeNumber);
  command
      .add_option("--max-batch-size", options.max_batch_size,
                  "Texts that run together; which ones changes no text")
      ->check(CLI::Range(1, 1024));
  add_switch(command, "--explain", options.is_explained,
             "Show what runs where: scheme, kernel and instruction set of each kind of linear, KV "
             "cache, memory; needs no text");
  CLI::Option* chat = add_switch(command, "--is-chat-model", options.prompt.is_chat,
                                 "Put each text into the model's chat format");
  CLI::Option* temperature = command.add_option("--temperature", options.sampling.temperature,
                                                "0: always the likeliest token (default)");
  CLI::Option* top_k = command.add_option("--top-k", options.sampling.top_k,
                                          "Choose among the k likeliest tokens (0: all)");
  CLI::Option* top_p =
      command.add_option("--top-p", options.sampling.top_p,
                         "Choose among the likeliest tokens of this total probability");
  CLI::Option* seed = command.add_option("--seed", options.sampling.seed, "Seed of the choice");
  CLI::Option* embed =
      add_switch(command, "--embed", options.is_embedding,
                 "Give each text's embedding instead: its last token's final hidden state, of "
                 "length 1");
  for (CLI::Option* other : {output_length, chat, temperature, top_k, top_p, seed})
    embed->excludes(other);
}

}  // namespace

void add_run_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand("run", "Continue texts with a model");
  auto options = std::make_shared<RunOptions>();
  add_run_options(*command, *options);
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      return run_over_ranks(options->model, console, common,
                            [&](const RankPlace& place) { return run_model(*options, place); });
    });
  });
}

}  // namespace llmq::convert
