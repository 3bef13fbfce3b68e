#include "runtime/model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "formats/error.h"
#include "formats/slicing.h"
#include "quant/kernels/huge_vector.h"
#include "runtime/attention/rope.h"
#include "runtime/model/decoder.h"

namespace llmq::runtime {
namespace {

using formats::ModelConfig;
using quant::ConstMatrixF32;
using quant::MatrixF32;

ConstMatrixF32 readable(const MatrixF32& m) {
  return {m.data, m.n_rows, m.n_cols, m.row_stride};
}

int thread_count(const ModelOptions& options) {
  return options.n_threads == 0 ? quant::default_thread_count() : options.n_threads;
}

void check_options(const ModelOptions& options) {
  if (options.prefill_chunk < 1) {
    throw formats::usage_error(
        fmt::format("prefill_chunk is {}; it must be at least 1", options.prefill_chunk));
  }
  if (options.page_size < 1) {
    throw formats::usage_error(
        fmt::format("page_size is {}; it must be at least 1", options.page_size));
  }
}

}  // namespace

/// Members stand in the order in which they depend on each other.
struct Model::State {
  State(RankPart rank_part, const std::filesystem::path& side_folder,
        const ModelOptions& model_options)
      : options(model_options),
        part(std::move(rank_part)),
        generation(read_generation_config(side_folder, part.config)),
        team(thread_count(model_options)),
        loader({.checkpoint = &part.checkpoint,
                .config = &part.own_config,
                .description = part.description.get(),
                .emulation = options.emulation,
                .ranks = options.ranks,
                .reduction = options.reduction,
                .embedding = part.embedding,
                .compressed = &part.compressed},
               team),
        runner(part.own_config, team) {
    kv_layout = {.n_layers = part.config.n_layers,
                 .n_kv_heads = part.own_config.n_kv_heads,
                 .head_dim = part.config.head_dim,
                 .page_size = options.page_size,
                 .dtype = options.kv_dtype};
    outer = loader.outer();
    layers.reserve(static_cast<size_t>(part.config.n_layers));
    for (int64_t layer = 0; layer < part.config.n_layers; ++layer)
      layers.push_back(loader.layer(layer));
    set_kv_codes();
    runner.set_padded_heads(part.padded_heads);
    static_cast<void>(kv_layout.page_size_bytes());
  }

  void set_kv_codes() {
    const auto codes = std::make_shared<KvCodeTable>();
    for (const LayerWeights& layer : layers) {
      if (!layer.kv.empty()) codes->add_layer(layer.kv);
      if (!layer.fa.empty()) codes->add_layer(layer.fa, part.config.head_dim);
    }
    if (!codes->key_scale.empty()) {
      kv_layout.dtype = formats::DType::kI8;
      kv_layout.codes = codes;
    } else if (kv_layout.dtype == formats::DType::kI8) {
      throw formats::usage_error(
          "an int8 KV cache needs the scales that quantizing with C8 stores; this model has none");
    }
  }

  [[nodiscard]] bool is_whole() const {
    return options.ranks == nullptr || options.ranks->size() == 1;
  }
  [[nodiscard]] int64_t rank() const { return is_whole() ? 0 : options.ranks->rank(); }

  /// Looks the row of a token up. Of several ranks each writes what it has, its rows or its
  /// columns, and zeros for the rest.
  void embed(int32_t token, std::span<float> out) const {
    const LinearWeights& embedding = outer.embedding;
    std::fill(out.begin(), out.end(), 0.0F);
    if (part.embedding == formats::EmbeddingCut::kHidden) {
      const std::span<float> own = out.subspan(static_cast<size_t>(rank() * embedding.n_in),
                                               static_cast<size_t>(embedding.n_in));
      return widen_row(embedding, token, own);
    }
    const int64_t row = token - rank() * embedding.n_out;
    if (row >= 0 && row < embedding.n_out) widen_row(embedding, row, out);
  }

  /// The head on rows of hidden states, over all ranks. Rows that pad the vocabulary give nothing.
  void apply_head(const ConstMatrixF32& x, const MatrixF32& out, std::span<const PhaseRun> runs) {
    const LinearWeights& head = outer.head;
    if (head.ranks != nullptr) {  // tied to an embedding whose columns are cut
      const ConstMatrixF32 own{x.data + rank() * head.n_in, x.n_rows, head.n_in, x.row_stride};
      return apply_linear(head, own, out, team, runs);
    }
    if (is_whole()) return apply_linear(head, x, out, team, runs);
    const int64_t n_own = head.n_out;
    const auto n_values = static_cast<size_t>(x.n_rows * n_own);
    own_logits.resize(n_values);
    all_logits.resize(n_values * static_cast<size_t>(options.ranks->size()));
    apply_linear(head, x, {own_logits.data(), x.n_rows, n_own, n_own}, team, runs);
    options.ranks->gather(own_logits, all_logits);
    const float* from = all_logits.data();
    for (int64_t other = 0; other < options.ranks->size(); ++other) {
      const int64_t n_used = std::clamp<int64_t>(part.config.vocab_size - other * n_own, 0, n_own);
      for (int64_t row = 0; row < x.n_rows; ++row, from += n_own)
        std::copy_n(from, n_used, out.data + row * out.row_stride + other * n_own);
    }
  }

  ModelOptions options;
  RankPart part;
  GenerationConfig generation;
  quant::ThreadTeam team;
  WeightLoader loader;
  KvLayout kv_layout;
  OuterWeights outer;
  std::vector<LayerWeights> layers;
  DecoderRunner runner;

  // Of the piece that is being run.
  std::vector<BatchSegment> segments;
  std::vector<RowOrigin> rows;
  quant::HugeVector<float> hidden;
  quant::HugeVector<float> logits;
  quant::HugeVector<float> own_logits;  // of this rank's part of the vocabulary
  quant::HugeVector<float> all_logits;  // of all ranks, one after the other
};

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

std::unique_ptr<Model> Model::load(const std::filesystem::path& folder,
                                   const ModelOptions& options) {
  check_options(options);
  return std::unique_ptr<Model>(
      new Model(std::make_unique<State>(whole_model(folder), folder, options)));
}

std::unique_ptr<Model> Model::load_part(RankPart part, const std::filesystem::path& side_folder,
                                        const ModelOptions& options) {
  check_options(options);
  return std::unique_ptr<Model>(
      new Model(std::make_unique<State>(std::move(part), side_folder, options)));
}

const ModelConfig& Model::config() const {
  return state_->part.config;
}
const GenerationConfig& Model::generation_config() const {
  return state_->generation;
}
const ModelOptions& Model::options() const {
  return state_->options;
}
int Model::n_threads() const {
  return state_->team.n_threads();
}
quant::ThreadTeam& Model::team() {
  return state_->team;
}
const LayerWeights& Model::layer(int64_t index) const {
  return state_->layers.at(static_cast<size_t>(index));
}
const OuterWeights& Model::outer() const {
  return state_->outer;
}

int64_t Model::length_limit() const {
  return state_->options.allow_extrapolation ? std::numeric_limits<int64_t>::max()
                                             : max_positions(state_->part.config);
}

Sequence Model::new_sequence() const {
  return Sequence(state_->kv_layout);
}

void Model::check_tokens(std::span<const int32_t> tokens, int64_t n_before) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < state_->part.config.vocab_size) continue;
    throw formats::bad_input(
        fmt::format("token {} has id {}, outside the model's vocabulary of {}; the tokenizer does "
                    "not belong to this model",
                    i, tokens[i], state_->part.config.vocab_size));
  }
  const auto n_tokens = static_cast<int64_t>(tokens.size());
  if (n_tokens > length_limit() - n_before) {
    throw formats::bad_input(fmt::format(
        "{} tokens are more than the {} positions of this model; shorten the text, give "
        "the model a rope_scaling, or allow extrapolation",
        n_before + n_tokens, length_limit()));
  }
}

void Model::forward(std::span<const BatchItem> items, const RowVisitor& visit,
                    const StageObserver& observer) {
  std::set<const Sequence*> seen;
  for (const BatchItem& item : items) {
    if (item.sequence == nullptr || !seen.insert(item.sequence).second) {
      throw formats::Error(formats::ErrorCode::kInternal,
                           "an item of a batch has no sequence of its own");
    }
    check_tokens(item.tokens, item.sequence->length());
  }
  size_t item = 0;
  size_t token = 0;
  while (item < items.size()) {
    plan_piece(items, item, token);
    if (!state_->rows.empty()) run_piece(items, visit, observer);
  }
}

void Model::plan_piece(std::span<const BatchItem> items, size_t& item, size_t& token) {
  State& state = *state_;
  state.segments.clear();
  state.rows.clear();
  int64_t n_free = state.options.prefill_chunk;
  while (item < items.size() && n_free > 0) {
    KvCache& cache = items[item].sequence->cache();
    const auto n_left = static_cast<int64_t>(items[item].tokens.size() - token);
    const int64_t n = std::min(n_left, n_free);
    if (n > 0) {
      state.segments.push_back({&cache, static_cast<int64_t>(state.rows.size()), n, cache.length(),
                                phase_of(items[item])});
    }
    for (int64_t i = 0; i < n; ++i) {
      state.rows.push_back(
          {static_cast<int64_t>(item), static_cast<int64_t>(token) + i, cache.length() + i});
    }
    n_free -= n;
    token += static_cast<size_t>(n);
    if (n == n_left) {
      ++item;
      token = 0;
    }
  }
}

void Model::run_piece(std::span<const BatchItem> items, const RowVisitor& visit,
                      const StageObserver& observer) {
  State& state = *state_;
  const auto n_rows = static_cast<int64_t>(state.rows.size());
  const int64_t n_hidden = state.part.config.hidden_size;
  state.hidden.resize(static_cast<size_t>(n_rows * n_hidden));
  const MatrixF32 hidden{state.hidden.data(), n_rows, n_hidden, n_hidden};
  const auto observe = [&](int64_t stage) {
    if (observer) observer(stage, readable(hidden), state.rows);
  };
  state.runner.begin(state.segments);
  for (int64_t row = 0; row < n_rows; ++row) {
    const RowOrigin& origin = state.rows[static_cast<size_t>(row)];
    const std::span<const int32_t> tokens = items[static_cast<size_t>(origin.item)].tokens;
    state.embed(tokens[static_cast<size_t>(origin.token)],
                {hidden.data + row * n_hidden, static_cast<size_t>(n_hidden)});
  }
  if (!state.is_whole()) state.options.ranks->sum(std::span<float>(state.hidden));
  observe(0);
  for (int64_t layer = 0; layer < state.part.config.n_layers; ++layer) {
    state.runner.run_layer(state.layers[static_cast<size_t>(layer)], {layer, layer}, hidden);
    observe(layer + 1);
  }
  for (const BatchSegment& segment : state.segments) segment.cache->advance(segment.n_rows);
  if (!visit && !observer) return;
  rms_norm(state.outer.final_norm, state.part.config.rms_norm_eps, readable(hidden), hidden,
           state.team);
  observe(state.part.config.n_layers + 1);
  if (visit) visit(readable(hidden), state.rows);
}

Phase Model::phase_of(const BatchItem& item) const {
  return state_->options.phase.value_or(item.phase);
}

void Model::logits(const ConstMatrixF32& hidden, const MatrixF32& out, Phase phase) {
  const PhaseRun run{state_->options.phase.value_or(phase), 0, hidden.n_rows};
  state_->apply_head(hidden, out, {&run, 1});
}

void Model::last_logits(std::span<const BatchItem> items, const MatrixF32& out) {
  for (const BatchItem& item : items) {
    if (item.tokens.empty()) throw formats::usage_error("an item of a batch has no tokens");
  }
  const int64_t n_hidden = state_->part.config.hidden_size;
  std::vector<float> last(items.size() * static_cast<size_t>(n_hidden));
  forward(items, [&](const ConstMatrixF32& hidden, std::span<const RowOrigin> rows) {
    for (size_t row = 0; row < rows.size(); ++row) {
      const auto item = static_cast<size_t>(rows[row].item);
      if (rows[row].token + 1 != static_cast<int64_t>(items[item].tokens.size())) continue;
      const float* from = hidden.data + static_cast<int64_t>(row) * hidden.row_stride;
      std::copy_n(from, n_hidden, last.data() + static_cast<int64_t>(item) * n_hidden);
    }
  });
  std::vector<Phase> phases;
  phases.reserve(items.size());
  for (const BatchItem& item : items) phases.push_back(phase_of(item));
  state_->apply_head({last.data(), static_cast<int64_t>(items.size()), n_hidden, n_hidden}, out,
                     phase_runs(phases));
}

void Model::score(std::span<const BatchItem> items, const RowVisitor& visit, int64_t max_rows,
                  const StageObserver& observer) {
  const int64_t n_vocab = state_->part.config.vocab_size;
  const int64_t step = std::max<int64_t>(max_rows, 1);
  const auto show = [&](const ConstMatrixF32& hidden, std::span<const RowOrigin> rows) {
    const auto is_scored = [&](size_t row) {
      return rows[row].token >= items[static_cast<size_t>(rows[row].item)].first_scored;
    };
    const auto phase_at = [&](size_t row) {
      return phase_of(items[static_cast<size_t>(rows[row].item)]);
    };
    size_t begin = 0;
    while (begin < rows.size()) {
      if (!is_scored(begin)) {
        ++begin;
        continue;
      }
      size_t end = begin + 1;
      const Phase phase = phase_at(begin);
      while (end < rows.size() && end - begin < static_cast<size_t>(step) && is_scored(end) &&
             phase_at(end) == phase)
        ++end;
      const auto n = static_cast<int64_t>(end - begin);
      state_->logits.resize(static_cast<size_t>(std::max(n, step) * n_vocab));
      const MatrixF32 out{state_->logits.data(), n, n_vocab, n_vocab};
      logits({hidden.data + static_cast<int64_t>(begin) * hidden.row_stride, n, hidden.n_cols,
              hidden.row_stride},
             out, phase);
      visit(readable(out), rows.subspan(begin, end - begin));
      begin = end;
    }
  };
  forward(items, show, observer);
}

}  // namespace llmq::runtime
