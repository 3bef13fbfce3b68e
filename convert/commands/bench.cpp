#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/model_options.h"
#include "convert/commands/ranks.h"
#include "convert/interrupt.h"
#include "convert/report/table.h"
#include "formats/error.h"
#include "runtime/model/model.h"
#include "runtime/model/sampler.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Example:\n"
    "  llmq bench --model_path Qwen2.5-0.5B-w8a16 --case_pair \"[[512,64],[2048,128]]\"";

struct BenchOptions {
  ModelCommandOptions model;
  std::string cases = "[[512,64]]";
  int64_t batch_size = 1;
  int64_t depth = 0;
  bool csv = false;
};

struct BenchCase {
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
};

std::vector<BenchCase> parse_cases(const std::string& text) {
  const formats::Json list = formats::parse_json(text, "--case_pair");
  std::vector<BenchCase> cases;
  const auto is_count = [](const formats::Json& value, int64_t least) {
    return value.is_number_integer() && value.get<int64_t>() >= least &&
           value.get<int64_t>() <= 1 << 24;
  };
  for (const formats::Json& pair : list) {
    if (!pair.is_array() || pair.size() != 2 || !is_count(pair[0], 1) || !is_count(pair[1], 0)) {
      throw formats::usage_error("--case_pair: wants [[prefill tokens, decode tokens], ...], not " +
                                 text);
    }
    cases.push_back({pair[0].get<int64_t>(), pair[1].get<int64_t>()});
  }
  if (cases.empty()) throw formats::usage_error("--case_pair: the list is empty");
  return cases;
}

/// Ids without meaning but of even spread; speed does not depend on which.
std::vector<int32_t> spread_ids(int64_t n_tokens, int64_t vocab_size, int64_t salt) {
  std::vector<int32_t> ids(static_cast<size_t>(n_tokens));
  for (int64_t i = 0; i < n_tokens; ++i) {
    ids[static_cast<size_t>(i)] =
        static_cast<int32_t>((i * 7919 + salt * 104729 + 11) % vocab_size);
  }
  return ids;
}

/// The sequences of one case with their prompts, decoded step by step.
class BenchRun {
 public:
  BenchRun(runtime::Model& model, int64_t batch_size)
      : model_(model), logits_(static_cast<size_t>(batch_size * model.config().vocab_size)) {
    for (int64_t i = 0; i < batch_size; ++i)
      sequences_.push_back(std::make_unique<runtime::Sequence>(model.new_sequence()));
  }

  void fill(int64_t depth) {
    if (depth == 0) return;
    std::vector<std::vector<int32_t>> ids;
    model_.forward(items_of(depth, ids));
  }

  void prefill(int64_t n_tokens) {
    std::vector<std::vector<int32_t>> ids;
    const std::vector<runtime::BatchItem> items = items_of(n_tokens, ids);
    model_.last_logits(items, logits());
    choose();
  }

  void decode_one() {
    throw_if_interrupted();
    std::vector<runtime::BatchItem> items;
    for (size_t i = 0; i < sequences_.size(); ++i)
      items.push_back({sequences_[i].get(), std::span(&next_[i], 1), 0, runtime::Phase::kDecode});
    model_.last_logits(items, logits());
    choose();
  }

 private:
  std::vector<runtime::BatchItem> items_of(int64_t n_tokens,
                                           std::vector<std::vector<int32_t>>& ids) {
    std::vector<runtime::BatchItem> items;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      ids.push_back(spread_ids(n_tokens, model_.config().vocab_size, static_cast<int64_t>(i)));
    }
    for (size_t i = 0; i < sequences_.size(); ++i)
      items.push_back({sequences_[i].get(), ids[i], 0});
    return items;
  }

  quant::MatrixF32 logits() {
    return {logits_.data(), static_cast<int64_t>(sequences_.size()), model_.config().vocab_size};
  }

  void choose() {
    const auto vocab_size = static_cast<size_t>(model_.config().vocab_size);
    next_.clear();
    for (size_t i = 0; i < sequences_.size(); ++i) {
      next_.push_back(runtime::argmax(std::span(logits_).subspan(i * vocab_size, vocab_size)));
    }
  }

  runtime::Model& model_;
  std::vector<std::unique_ptr<runtime::Sequence>> sequences_;
  std::vector<float> logits_;
  std::vector<int32_t> next_;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

formats::Json measure(runtime::Model& model, const BenchCase& one, const BenchOptions& options) {
  BenchRun run(model, options.batch_size);
  run.fill(options.depth);
  const auto prefill_start = std::chrono::steady_clock::now();
  run.prefill(one.prefill_tokens);
  const double first_token_s = seconds_since(prefill_start);
  const auto decode_start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < one.decode_tokens; ++i) run.decode_one();
  const double decode_s = seconds_since(decode_start);
  const auto batch = static_cast<double>(options.batch_size);
  formats::Json json = {
      {"prefill_tokens", one.prefill_tokens},
      {"decode_tokens", one.decode_tokens},
      {"depth", options.depth},
      {"batch_size", options.batch_size},
      {"first_token_ms", first_token_s * 1e3},
      {"prefill_tokens_per_s", batch * static_cast<double>(one.prefill_tokens) / first_token_s}};
  json["decode_tokens_per_s"] =
      one.decode_tokens > 0
          ? formats::Json(batch * static_cast<double>(one.decode_tokens) / decode_s)
          : formats::Json();
  return json;
}

std::string csv_text(const formats::Json& list) {
  std::string text;
  for (const auto& [key, value] : list.front().items()) text += (text.empty() ? "" : ",") + key;
  text += "\n";
  for (const formats::Json& row : list) {
    std::string line;
    for (const auto& [key, value] : row.items())
      line += (line.empty() ? "" : ",") + (value.is_null() ? "" : value.dump());
    text += line + "\n";
  }
  return text;
}

std::string table_text(const formats::Json& list) {
  Table table({"prefill", "decode", "depth", "batch", "first token ms", "prefill tokens/s",
               "decode tokens/s"});
  for (const formats::Json& row : list) {
    const formats::Json& decode = row["decode_tokens_per_s"];
    table.add({row["prefill_tokens"].dump(), row["decode_tokens"].dump(), row["depth"].dump(),
               row["batch_size"].dump(), fmt::format("{:.1f}", row["first_token_ms"].get<double>()),
               fmt::format("{:.1f}", row["prefill_tokens_per_s"].get<double>()),
               decode.is_null() ? "" : fmt::format("{:.2f}", decode.get<double>())});
  }
  return table.text();
}

int run_bench(const BenchOptions& options, const RankPlace& place) {
  const std::vector<BenchCase> cases = parse_cases(options.cases);
  const std::unique_ptr<runtime::Model> model =
      runtime::Model::load(place.folder, model_options(options.model, place));
  formats::Json list = formats::Json::array();
  for (const BenchCase& one : cases) list.push_back(measure(*model, one, options));
  place.console->result(list, options.csv ? csv_text(list) : table_text(list));
  return 0;
}

}  // namespace

void add_bench_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand("bench", "Measure first-token time and tokens per second");
  auto options = std::make_shared<BenchOptions>();
  add_model_options(*command, options->model);
  command->add_option("--case-pair", options->cases,
                      "[[prefill tokens, decode tokens], ...] (default [[512,64]])");
  command->add_option("--batch-size", options->batch_size, "Sequences that run together")
      ->check(CLI::Range(1, 1024));
  command->add_option("--depth", options->depth, "Tokens already in the KV cache")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--csv", options->csv, "Comma-separated values instead of a table");
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      return run_over_ranks(options->model, console, common,
                            [&](const RankPlace& place) { return run_bench(*options, place); });
    });
  });
}

}  // namespace llmq::convert
