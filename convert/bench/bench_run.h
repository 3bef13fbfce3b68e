#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "formats/json.h"
#include "quant/kernels/limits/limits.h"
#include "runtime/model/linear_use.h"
#include "runtime/model/model.h"

namespace llmq::convert {

/// One line of a benchmark.
struct BenchCase {
  int64_t prefill_tokens = 1;  ///< per sequence, at least 1
  int64_t decode_tokens = 0;
  int64_t depth = 0;  ///< tokens in the KV cache before
  int64_t batch_size = 1;
  /// How the cache is filled up to depth: by running that many tokens, or with random values, which
  /// take the kernels as long to read and a millionth of the time to make.
  bool is_depth_prefilled = false;
};

/// Parses "[[prefill, decode], ...]". Throws Error{kUsage} with a sentence for anything else.
std::vector<BenchCase> parse_case_pairs(const std::string& text);

/// What a case took.
struct BenchTimes {
  double first_token_s = 0;  ///< all prompts to all first tokens
  double decode_s = 0;       ///< all further tokens; 0 where there are none
};

/// Runs a case on new sequences: caches filled up to depth, one call for all prompts, then
/// decode_tokens steps of one token a sequence. Throws as Model::last_logits, and
/// Error{kInterrupted} when a signal comes.
BenchTimes run_bench_case(runtime::Model& model, const BenchCase& one);

/// How long the model took to load.
struct BenchLoad {
  double seconds = 0;
  uint64_t size_bytes = 0;  ///< of all tensors of the folder
};

/// What the rows of a run have in common.
struct BenchContext {
  std::string name;  ///< of the model, for people
  BenchLoad load;
  quant::MachineLimits limits;
};

/// A row: the case, its times, the operations and bytes it needs at least, and which shares of the
/// limits that makes. share_of_peak is the time that the linears of the prefill (and the head's one
/// row a sequence) take at the measured peaks of their numbers, over the first token's time;
/// share_of_bandwidth the time that reading weights and KV cache of the decode steps takes at the
/// measured read bandwidth, over their time.
formats::Json bench_row(const runtime::Model& model, const BenchCase& one,
                        const BenchTimes& measured, const BenchContext& context);

/// Limits as a document: read_gb_per_s, threads, and peaks by kind and instruction.
formats::Json limits_json(const quant::MachineLimits& limits);
/// The same for people.
std::string limits_text(const quant::MachineLimits& limits);

/// Rows as comma-separated values with a heading line.
std::string bench_csv(const formats::Json& rows);
/// Rows as a table for people.
std::string bench_table(const formats::Json& rows);

}  // namespace llmq::convert
