#include "runtime/evaluate/retrieval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "formats/error.h"
#include "runtime/evaluate/random_text.h"

namespace llmq::runtime {
namespace {

/// Streams of a seed: unit i has stream i, the needle one that no unit reaches.
constexpr uint64_t kNeedleStream = uint64_t{1} << 63U;

/// Composes texts of a spec with any number of units; keeps the units made so far.
class Composer {
 public:
  explicit Composer(const RetrievalSpec& spec) : spec_(spec) {}
  virtual ~Composer() = default;
  Composer(const Composer&) = delete;
  Composer& operator=(const Composer&) = delete;

  [[nodiscard]] virtual int64_t fewest_units() const = 0;
  /// All of a case but its tokens.
  virtual RetrievalCase compose(int64_t n_units) = 0;

 protected:
  RetrievalSpec spec_;
};

class PasskeyComposer final : public Composer {
 public:
  explicit PasskeyComposer(const RetrievalSpec& spec) : Composer(spec) {
    SeededNumbers numbers(spec.seed, kNeedleStream);
    key_ = fmt::format("{}", 10000 + numbers.below(90000));
  }

  [[nodiscard]] int64_t fewest_units() const override { return 1; }

  RetrievalCase compose(int64_t n_units) override {
    while (static_cast<int64_t>(sentences_.size()) < n_units) {
      SeededNumbers numbers(spec_.seed, sentences_.size());
      sentences_.push_back(filler_sentence(numbers));
    }
    RetrievalCase result;
    result.n_units = n_units;
    result.prompt = "There is a pass key hidden in the text below. Find it and remember it.\n\n";
    result.haystack_begin = result.prompt.size();
    size_t n_bytes = 0;
    for (int64_t i = 0; i < n_units; ++i) n_bytes += sentences_[static_cast<size_t>(i)].size();
    const double wanted = spec_.depth * static_cast<double>(n_bytes);
    bool is_placed = false;
    size_t at = 0;
    for (int64_t i = 0; i < n_units; ++i) {
      const std::string& sentence = sentences_[static_cast<size_t>(i)];
      if (!is_placed &&
          static_cast<double>(at) + 0.5 * static_cast<double>(sentence.size()) > wanted) {
        place(result);
        is_placed = true;
      }
      result.prompt += sentence;
      at += sentence.size();
    }
    if (!is_placed) place(result);
    result.haystack_end = result.prompt.size();
    result.prompt += "\n\nWhat is the pass key? The pass key is";
    result.answer = " " + key_;
    return result;
  }

 private:
  void place(RetrievalCase& result) const {
    result.needle_begin = result.prompt.size();
    result.prompt += fmt::format("The pass key is {0}. Remember it. {0} is the pass key. ", key_);
  }

  std::string key_;
  std::vector<std::string> sentences_;
};

class KeyValueComposer final : public Composer {
 public:
  using Composer::Composer;

  [[nodiscard]] int64_t fewest_units() const override { return 2; }

  RetrievalCase compose(int64_t n_units) override {
    while (static_cast<int64_t>(pairs_.size()) < n_units) {
      SeededNumbers numbers(spec_.seed, pairs_.size());
      std::string key = random_uuid(numbers);
      pairs_.emplace_back(std::move(key), random_uuid(numbers));
    }
    const int64_t asked = std::llround(spec_.depth * static_cast<double>(n_units - 1));
    RetrievalCase result;
    result.n_units = n_units;
    result.prompt = "Below is a JSON object of keys and values. Find the value of one key.\n\n{";
    result.haystack_begin = result.prompt.size();
    for (int64_t i = 0; i < n_units; ++i) {
      const auto& [key, value] = pairs_[static_cast<size_t>(i)];
      if (i == asked) result.needle_begin = result.prompt.size();
      result.prompt += fmt::format("\"{}\": \"{}\"{}", key, value, i + 1 < n_units ? ",\n" : "");
    }
    result.haystack_end = result.prompt.size();
    const auto& [key, value] = pairs_[static_cast<size_t>(asked)];
    result.prompt += fmt::format("}}\n\nThe value of one key is asked for.\n\"{}\": \"", key);
    result.answer = value;
    return result;
  }

 private:
  std::vector<std::pair<std::string, std::string>> pairs_;
};

std::unique_ptr<Composer> make_composer(const RetrievalSpec& spec) {
  if (spec.kind == RetrievalKind::kPasskey) return std::make_unique<PasskeyComposer>(spec);
  return std::make_unique<KeyValueComposer>(spec);
}

RetrievalCase encoded_case(const Tokenizer& tokenizer, Composer& composer, int64_t n_units) {
  RetrievalCase result = composer.compose(n_units);
  result.tokens = encode_continuation(tokenizer, result.prompt, result.answer);
  return result;
}

int64_t n_tokens(const RetrievalCase& text) {
  return static_cast<int64_t>(text.tokens.ids.size());
}

formats::Error too_short(const RetrievalSpec& spec, int64_t needed) {
  return formats::bad_input(
      fmt::format("a {} text of {} tokens is too short for its question and what is to be found; "
                  "with this tokenizer at least {} are needed",
                  retrieval_name(spec.kind), spec.length, needed));
}

double depth_of(int64_t index, int64_t n_depths) {
  return n_depths == 1 ? 0.5 : static_cast<double>(index) / static_cast<double>(n_depths - 1);
}

void check_grid(const Model& model, const Tokenizer& tokenizer, const RetrievalGrid& grid) {
  if (grid.lengths.empty() || grid.n_depths < 1 || grid.n_seeds < 1) {
    throw formats::usage_error("retrieval needs at least one length, one depth and one seed");
  }
  for (const int64_t length : grid.lengths) {
    if (length > model.length_limit()) {
      throw formats::bad_input(fmt::format(
          "a {} text of {} tokens is longer than the {} positions of this model; choose a shorter "
          "one, give the model a rope_scaling, or allow extrapolation",
          retrieval_name(grid.kind), length, model.length_limit()));
    }
    for (int64_t seed = 0; seed < grid.n_seeds; ++seed) {
      const RetrievalSpec spec{grid.kind, length, 0.0, static_cast<uint64_t>(seed)};
      const auto composer = make_composer(spec);
      const RetrievalCase least = encoded_case(tokenizer, *composer, composer->fewest_units());
      if (n_tokens(least) > length) throw too_short(spec, n_tokens(least));
    }
  }
}

}  // namespace

std::string_view retrieval_name(RetrievalKind kind) {
  return kind == RetrievalKind::kPasskey ? "passkey" : "kv-retrieval";
}

RetrievalCase make_retrieval_case(const Tokenizer& tokenizer, const RetrievalSpec& spec) {
  const auto composer = make_composer(spec);
  const int64_t fewest = composer->fewest_units();
  RetrievalCase best = encoded_case(tokenizer, *composer, fewest);
  const int64_t frame = n_tokens(best);
  if (frame > spec.length) throw too_short(spec, frame);
  // Tokens grow almost linearly with units: regula falsi between a count that fits and one that
  // does not, until they are neighbours.
  int64_t fits = fewest;
  int64_t fails = spec.length + fewest + 1;  // every unit has at least one token
  double per_unit = 16.0;
  while (fails - fits > 1) {
    const auto room = static_cast<double>(spec.length - n_tokens(best));
    const int64_t guess =
        std::clamp(fits + static_cast<int64_t>(room / per_unit), fits + 1, fails - 1);
    RetrievalCase tried = encoded_case(tokenizer, *composer, guess);
    const auto grown = static_cast<double>(std::max<int64_t>(n_tokens(tried) - frame, 1));
    per_unit = std::max(grown / static_cast<double>(guess - fewest), 1e-3);
    if (n_tokens(tried) <= spec.length) {
      fits = guess;
      best = std::move(tried);
    } else {
      fails = guess;
    }
  }
  return best;
}

std::vector<RetrievalCell> run_retrieval(Model& model, const Tokenizer& tokenizer,
                                         const RetrievalGrid& grid,
                                         const RetrievalObserver& observer) {
  check_grid(model, tokenizer, grid);
  std::vector<RetrievalCell> cells;
  ContinuationScorer scorer(model, observer.tick);
  RetrievalStep step;
  step.n_total = static_cast<int64_t>(grid.lengths.size()) * grid.n_depths * grid.n_seeds;
  for (const int64_t length : grid.lengths) {
    std::vector<int64_t> n_right(static_cast<size_t>(grid.n_depths));
    for (int64_t seed = 0; seed < grid.n_seeds; ++seed) {
      for (int64_t d = 0; d < grid.n_depths; ++d) {
        step.spec = {grid.kind, length, depth_of(d, grid.n_depths), static_cast<uint64_t>(seed)};
        const RetrievalCase text = make_retrieval_case(tokenizer, step.spec);
        step.is_right = scorer.score(text.tokens).is_greedy;
        n_right[static_cast<size_t>(d)] += step.is_right ? 1 : 0;
        ++step.n_done;
        if (observer.on_case) observer.on_case(step);
      }
    }
    for (int64_t d = 0; d < grid.n_depths; ++d) {
      const auto right = static_cast<double>(n_right[static_cast<size_t>(d)]);
      cells.push_back({length, depth_of(d, grid.n_depths),
                       right / static_cast<double>(grid.n_seeds), grid.n_seeds});
    }
  }
  return cells;
}

}  // namespace llmq::runtime
