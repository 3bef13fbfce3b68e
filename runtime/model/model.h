#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "formats/dtype.h"
#include "formats/model_config.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/kv_cache.h"
#include "runtime/attention/phase.h"
#include "runtime/model/emulation.h"
#include "runtime/model/generation_config.h"
#include "runtime/model/layer_weights.h"
#include "runtime/model/rank_part.h"

namespace llmq::runtime {

struct ModelOptions {
  int n_threads = 0;  ///< 0: quant::default_thread_count()
  /// kF32, kBF16, or kI8 for a model with stored scales (C8 or FAQuant). Such a model always keeps
  /// int8 codes, whatever stands here, since its engines do.
  formats::DType kv_dtype = formats::DType::kF32;
  int64_t page_size = 128;  ///< tokens per KV page
  /// Rows that go through a layer at once; a longer prompt is taken in pieces. Memory for
  /// activations grows with it, results do not change.
  int64_t prefill_chunk = 512;
  /// Permits positions beyond max_positions(config).
  bool allow_extrapolation = false;
  /// Whose arithmetic linears with quantized activations are run with.
  Emulation emulation = Emulation::kSpec;
  /// Phase of every token, whatever its BatchItem says. Matters for schemes that differ between
  /// phases only.
  std::optional<Phase> phase = std::nullopt;
  /// The ranks that run a model together, of which each loads the folder with its own part (cut as
  /// formats/slicing.h describes, embedding and head by vocabulary); all then make the same calls
  /// and see the same values. Null for a whole model.
  Communicator* ranks = nullptr;
  Reduction reduction = Reduction::kInt32;  ///< how partial products are added up
};

/// One text: what has been fed so far, as keys and values. Owns its memory; made by
/// Model::new_sequence, and continued by a model of the same folder and KV options only.
class Sequence {
 public:
  explicit Sequence(const KvLayout& layout) : cache_(layout) {}

  /// Tokens fed so far.
  [[nodiscard]] int64_t length() const { return cache_.length(); }
  /// Forgets the tokens from `length` on, so that another continuation can be fed.
  void truncate(int64_t length) { cache_.truncate(length); }
  [[nodiscard]] uint64_t size_bytes() const { return cache_.size_bytes(); }
  [[nodiscard]] KvCache& cache() { return cache_; }

 private:
  KvCache cache_;
};

/// New tokens of one sequence.
struct BatchItem {
  Sequence* sequence = nullptr;
  std::span<const int32_t> tokens;
  /// score() visits logits of tokens[first_scored] and later ones.
  int64_t first_scored = 0;
  Phase phase = Phase::kPrefill;
};

/// Where a row of a batch comes from.
struct RowOrigin {
  int64_t item = 0;      ///< index into the batch
  int64_t token = 0;     ///< index into its tokens
  int64_t position = 0;  ///< in the sequence
};

/// Sees rows [rows.size(), n] (final hidden states or logits), in the order of the batch's items
/// and their tokens. The matrix is valid during the call only.
using RowVisitor =
    std::function<void(const quant::ConstMatrixF32& values, std::span<const RowOrigin> rows)>;

/// Sees the residual stream [rows.size(), hidden_size] of a piece of the batch: stage 0 after the
/// embedding, stage i + 1 after layer i, stage n_layers + 1 after the final norm.
using StageObserver = std::function<void(int64_t stage, const quant::ConstMatrixF32& hidden,
                                         std::span<const RowOrigin> rows)>;

/// A decoder-only language model, executed from its mapped checkpoint: large matrices are read
/// where they lie, only norms, biases and scales are copied. Float32 activations.
///
/// Logits of a token depend on the tokens before it and on nothing else: their bits are the same
/// for every prefill chunk, page size, batch, thread count and instruction set. Over ranks, linears
/// with int8 activations give the bits of the whole model (Reduction::kInt32); float linears add
/// their inputs up in another order, the same for threads and processes.
/// One call at a time per model; several models may run at the same time.
class Model {
 public:
  /// Opens a folder (config.json, weights, quant_model_description.json where quantized,
  /// generation_config.json). Throws Error{kBadInput} for what does not fit together, naming file,
  /// key or tensor, and Error{kUsage} for options out of range.
  static std::unique_ptr<Model> load(const std::filesystem::path& folder,
                                     const ModelOptions& options = {});

  /// The same of one rank's part, whose ranks are options.ranks; generation_config.json is in
  /// `side_folder`.
  static std::unique_ptr<Model> load_part(RankPart part, const std::filesystem::path& side_folder,
                                          const ModelOptions& options);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const formats::ModelConfig& config() const;
  [[nodiscard]] const GenerationConfig& generation_config() const;
  [[nodiscard]] const ModelOptions& options() const;
  [[nodiscard]] int n_threads() const;
  [[nodiscard]] quant::ThreadTeam& team();
  /// Weights of a layer, as they are executed.
  [[nodiscard]] const LayerWeights& layer(int64_t index) const;
  [[nodiscard]] const OuterWeights& outer() const;
  /// Longest sequence accepted: max_positions(config), or INT64_MAX with allow_extrapolation.
  [[nodiscard]] int64_t length_limit() const;

  /// Throws Error{kBadInput} when a sequence of `n_before` tokens cannot be continued by `tokens`:
  /// an id outside the vocabulary, or a length beyond length_limit().
  void check_tokens(std::span<const int32_t> tokens, int64_t n_before) const;

  /// An empty sequence in this model's KV layout. Allocates pages only when fed.
  [[nodiscard]] Sequence new_sequence() const;

  /// Feeds every item's tokens to its sequence. `visit`, where given, sees the final-norm hidden
  /// states [.., hidden_size] of every token, piece by piece.
  ///
  /// Throws Error{kBadInput} before anything is changed when a token id is outside the vocabulary
  /// or a sequence would pass length_limit(); Error{kMemory} when a KV cache cannot grow (pieces
  /// fed before remain fed).
  void forward(std::span<const BatchItem> items, const RowVisitor& visit = {},
               const StageObserver& observer = {});

  /// Logits of hidden states that forward() showed. hidden [m, hidden_size]; out [m, vocab_size];
  /// `phase` is that of their items.
  void logits(const quant::ConstMatrixF32& hidden, const quant::MatrixF32& out,
              Phase phase = Phase::kPrefill);

  /// forward(), then the logits of each item's last token into row i of `out` [items, vocab_size].
  /// Throws as forward, and Error{kUsage} for an item without tokens.
  void last_logits(std::span<const BatchItem> items, const quant::MatrixF32& out);

  /// forward(), with the logits [.., vocab_size] of every token from first_scored on shown to
  /// `visit`, at most `max_rows` rows at a time, so that memory does not grow with the batch.
  /// Row t of an item predicts its token t + 1.
  void score(std::span<const BatchItem> items, const RowVisitor& visit, int64_t max_rows = 32,
             const StageObserver& observer = {});

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);

  void plan_piece(std::span<const BatchItem> items, size_t& item, size_t& token);
  void run_piece(std::span<const BatchItem> items, const RowVisitor& visit,
                 const StageObserver& observer);
  [[nodiscard]] Phase phase_of(const BatchItem& item) const;

  std::unique_ptr<State> state_;
};

}  // namespace llmq::runtime
