#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/evaluate/continuation.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace llmq::runtime {

enum class RetrievalKind : uint8_t {
  kPasskey,  ///< a five-digit number in a sentence of its own among filler sentences
  kKeyValue  ///< one value of a JSON object of random UUID pairs
};

/// "passkey" or "kv-retrieval".
std::string_view retrieval_name(RetrievalKind kind);

/// Which text is wanted.
struct RetrievalSpec {
  RetrievalKind kind = RetrievalKind::kPasskey;
  int64_t length = 0;  ///< tokens of BOS (where the tokenizer adds one), prompt and answer
  double depth = 0.5;  ///< 0: first, 1: last place for what is to be found
  uint64_t seed = 0;   ///< filler, pairs and answers are a function of it
};

/// A text that asks for something in it.
struct RetrievalCase {
  std::string prompt;
  std::string answer;  ///< follows the prompt at once
  Continuation tokens;
  /// The haystack is prompt[haystack_begin, haystack_end); the needle starts at needle_begin in it.
  size_t haystack_begin = 0;
  size_t needle_begin = 0;
  size_t haystack_end = 0;
  int64_t n_units = 0;  ///< filler sentences, or pairs
};

/// Makes a text of at most spec.length tokens to which no further unit (filler sentence or pair)
/// could be added: it falls short by less than a unit (for pairs also by what another asked key may
/// differ in tokens). Texts of one seed have the same units in the same order whatever their length
/// and depth. The needle lies between the sentences where its distance from the haystack's
/// beginning is nearest to depth · haystack in bytes (pair number round(depth·(n − 1))).
///
/// Throws Error{kBadInput} when the length has no room for the questions and one sentence (two
/// pairs), saying how many tokens are needed. Thread-safe.
RetrievalCase make_retrieval_case(const Tokenizer& tokenizer, const RetrievalSpec& spec);

/// Lengths × depths × seeds.
struct RetrievalGrid {
  RetrievalKind kind = RetrievalKind::kPasskey;
  std::vector<int64_t> lengths;
  int64_t n_depths = 5;  ///< evenly from 0 to 1; a single one is 0.5
  int64_t n_seeds = 1;   ///< seeds 0 to n_seeds − 1
};

/// One length and depth.
struct RetrievalCell {
  int64_t length = 0;
  double depth = 0.0;
  double accuracy = 0.0;  ///< share of seeds whose answer greedy decoding gives token for token
  int64_t n = 0;          ///< seeds
};

/// What an observer is told after each text.
struct RetrievalStep {
  RetrievalSpec spec;
  bool is_right = false;
  int64_t n_done = 0;
  int64_t n_total = 0;
};

struct RetrievalObserver {
  std::function<void(const RetrievalStep&)> on_case;  ///< may be empty
  std::function<void()> tick;  ///< called within a text; throws to give up; may be empty
};

/// Runs a grid; cells come by length, then depth. Texts that share a beginning (all depths of a
/// length and seed) feed it once. Before anything is run, throws Error{kBadInput} for a length
/// beyond the model's positions or too short, and Error{kUsage} for an empty grid.
std::vector<RetrievalCell> run_retrieval(Model& model, const Tokenizer& tokenizer,
                                         const RetrievalGrid& grid,
                                         const RetrievalObserver& observer = {});

}  // namespace llmq::runtime
