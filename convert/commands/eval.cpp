#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "convert/commands/commands.h"
#include "convert/commands/eval_options.h"
#include "convert/commands/ranks.h"
#include "convert/interrupt.h"
#include "convert/report/eval_report.h"
#include "formats/error.h"
#include "formats/file.h"
#include "runtime/attention/rope.h"
#include "runtime/evaluate/retrieval.h"
#include "runtime/evaluate/task.h"
#include "runtime/evaluate/text_pieces.h"
#include "runtime/evaluate/text_score.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq eval --model_path Qwen2.5-7B-w8a16 --text book.txt --context 4096\n"
    "  llmq eval --model_path Qwen2.5-7B-w8a16 --text book.txt --reference Qwen2.5-7B --max-kl "
    "0.01\n"
    "  llmq eval --model_path Qwen2.5-7B-w8a16 --passkey 1k,8k,32k --depths 5 --seeds 4\n"
    "Exit code 6 when a limit that was given (--max-kl, --max-nll, --min-passkey) is not kept.";

/// How much of a text decides whether two tokenizers are the same.
constexpr size_t kSampleBytes = size_t{64} << 10;

std::string_view text_of(const formats::MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// A model and what turns text into its ids.
struct Evaluated {
  std::unique_ptr<runtime::Model> model;
  std::unique_ptr<runtime::Tokenizer> tokenizer;
};

Evaluated load(const ModelCommandOptions& options, const RankPlace& place) {
  Evaluated loaded;
  // The tokenizer first: it takes less time to find that there is none.
  loaded.tokenizer = std::make_unique<runtime::Tokenizer>(runtime::Tokenizer::load(place.folder));
  loaded.model = load_model(options, place);
  return loaded;
}

int64_t context_of(const EvalOptions& options, const runtime::Model& model) {
  if (options.context == 0) return std::min<int64_t>(2048, runtime::max_positions(model.config()));
  const int64_t limit = model.length_limit();
  if (options.context > limit) {
    throw formats::bad_input(
        fmt::format("--context {} is more than the {} positions of this model; choose a smaller "
                    "one, give the model a rope_scaling, or use --allow-extrapolation",
                    options.context, limit));
  }
  return options.context;
}

/// Files that are read whole are opened before a model is loaded, so that a wrong name is found at
/// once.
struct Inputs {
  std::optional<formats::MappedFile> text;
  std::vector<runtime::TaskItem> questions;
};

Inputs open_inputs(const EvalOptions& options) {
  Inputs inputs;
  if (!options.text_path.empty()) {
    inputs.text.emplace(options.text_path);
    if (inputs.text->bytes().empty())
      throw formats::bad_input(fmt::format("{}: the file is empty", options.text_path));
  }
  if (!options.task_path.empty()) {
    const formats::MappedFile file(options.task_path);
    inputs.questions = runtime::parse_task(text_of(file), options.task_path, options.max_items);
  }
  return inputs;
}

/// What all measurements work with.
struct EvalJob {
  const EvalOptions& options;
  const RankPlace& place;
  Evaluated& evaluated;
  Console& console;
};

void measure_text(const EvalJob& job, std::string_view text, EvalReport& report) {
  runtime::PieceOptions pieces;
  pieces.context = context_of(job.options, *job.evaluated.model);
  if (job.options.has_separator) pieces.separator = job.options.separator;
  Evaluated reference;
  // The reference is a whole model, and rank 0 alone compares.
  if (!job.options.reference_path.empty() && job.place.is_first()) {
    RankPlace whole = job.place;
    whole.folder = job.options.reference_path;
    whole.manifest = nullptr;
    whole.ranks = nullptr;
    reference = load(job.options.model, whole);
    runtime::check_same_tokenizer(*job.evaluated.tokenizer, *reference.tokenizer,
                                  text.substr(0, kSampleBytes));
  }
  int64_t n_left = job.options.max_tokens > 0 ? job.options.max_tokens : INT64_MAX;
  runtime::TextScorer scorer(*job.evaluated.model, reference.model.get(), throw_if_interrupted);
  runtime::for_each_piece(
      text, *job.evaluated.tokenizer, pieces, [&](std::span<const int32_t> ids, size_t end_byte) {
        const auto n_scored = std::min(static_cast<int64_t>(ids.size()) - 1, n_left);
        scorer.add(ids.first(static_cast<size_t>(n_scored + 1)));
        n_left -= n_scored;
        job.console.progress("scoring", end_byte, text.size());
        return n_left > 0;
      });
  job.console.end_progress();
  report.text = scorer.score();
  report.context = pieces.context;
  if (report.text->n_tokens == 0) {
    throw formats::bad_input(
        fmt::format("{}: nothing to score; no piece of it has two tokens", job.options.text_path));
  }
  if (report.text->reference && report.text->reference->layers.empty()) {
    job.console.warn(
        "model and reference differ in layers or hidden size; the error of each layer is left out");
  }
}

std::vector<runtime::RetrievalCell> measure_retrieval(const EvalJob& job,
                                                      runtime::RetrievalKind kind,
                                                      const std::vector<int64_t>& lengths) {
  runtime::RetrievalGrid grid;
  grid.kind = kind;
  grid.lengths = lengths;
  grid.n_depths = job.options.n_depths;
  grid.n_seeds = job.options.n_seeds;
  int64_t n_right = 0;
  const auto on_case = [&](const runtime::RetrievalStep& step) {
    n_right += step.is_right ? 1 : 0;
    job.console.debug(fmt::format("{}: length {}, depth {:.3f}, seed {}: {}", retrieval_name(kind),
                                  step.spec.length, step.spec.depth, step.spec.seed,
                                  step.is_right ? "right" : "wrong"));
    if (step.n_done % grid.n_depths != 0) return;
    job.console.info(fmt::format("{}: {} of {} texts done, {} right", retrieval_name(kind),
                                 step.n_done, step.n_total, n_right));
  };
  return runtime::run_retrieval(*job.evaluated.model, *job.evaluated.tokenizer, grid,
                                {on_case, throw_if_interrupted});
}

runtime::TaskScore measure_task(const EvalJob& job, const std::vector<runtime::TaskItem>& items) {
  constexpr int64_t kReportEvery = 100;
  runtime::TaskOptions task;
  task.max_new_tokens = job.options.max_new_tokens;
  const auto on_answer = [&](int64_t n_done, int64_t n_right) {
    if (n_done % kReportEvery != 0) return;
    job.console.info(
        fmt::format("task: {} of {} questions, {} right", n_done, items.size(), n_right));
  };
  return runtime::run_task(*job.evaluated.model, *job.evaluated.tokenizer, items, task, on_answer,
                           throw_if_interrupted);
}

std::vector<EvalGate> gates_of(const EvalOptions& options, const EvalReport& report) {
  std::vector<EvalGate> gates;
  if (options.max_kl)
    gates.push_back({"--max-kl", report.text->reference->kl, *options.max_kl, false});
  if (options.max_nll)
    gates.push_back({"--max-nll", report.text->mean_nll, *options.max_nll, false});
  if (options.min_passkey) {
    gates.push_back(
        {"--min-passkey", overall_accuracy(*report.passkey), *options.min_passkey, true});
  }
  return gates;
}

EvalReport measure(const EvalOptions& options, const RankPlace& place) {
  const auto passkey_lengths = parse_lengths(options.passkey_lengths, "--passkey");
  const auto key_value_lengths = parse_lengths(options.key_value_lengths, "--kv-retrieval");
  const Inputs inputs = open_inputs(options);
  Evaluated evaluated = load(options.model, place);
  const EvalJob job{options, place, evaluated, *place.console};
  EvalReport report;
  report.model_path = options.model.folder;
  report.reference_path = options.reference_path;
  report.phase = options.model.phase;
  report.text_path = options.text_path;
  report.task_path = options.task_path;
  if (inputs.text) measure_text(job, text_of(*inputs.text), report);
  if (!passkey_lengths.empty())
    report.passkey = measure_retrieval(job, runtime::RetrievalKind::kPasskey, passkey_lengths);
  if (!key_value_lengths.empty())
    report.key_value = measure_retrieval(job, runtime::RetrievalKind::kKeyValue, key_value_lengths);
  if (!inputs.questions.empty()) report.task = measure_task(job, inputs.questions);
  if (place.is_first()) report.gates = gates_of(options, report);
  return report;
}

int run_eval(const EvalOptions& options, const RankPlace& place) {
  Console& console = *place.console;
  const EvalReport report = measure(options, place);
  if (!place.is_first()) return 0;
  if (!options.html_path.empty()) formats::write_text_file(options.html_path, eval_page(report));
  console.result(eval_json(report), eval_text(report));
  bool all_hold = true;
  for (const EvalGate& gate : report.gates) {
    if (gate.holds()) continue;
    all_hold = false;
    console.warn(gate.sentence());
  }
  return all_hold ? 0 : static_cast<int>(formats::ErrorCode::kGate);
}

}  // namespace

void add_eval_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand(
      "eval", "Measure a model: perplexity, distance from a reference, retrieval, tasks");
  auto options = std::make_shared<EvalOptions>();
  add_eval_options(*command, *options);
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      check_eval_options(*options);
      return run_over_ranks(options->model, console, common,
                            [&](const RankPlace& place) { return run_eval(*options, place); });
    });
  });
}

}  // namespace llmq::convert
