#include "runtime/tokenizer/encoder_stages.h"

#include <algorithm>
#include <utility>

namespace llmq::runtime {
namespace {

constexpr size_t kIdsPerBatch = 8192;

/// Appends `piece` with every space replaced.
void append_metaspace(std::string_view piece, std::string_view replacement, std::string& out) {
  for (size_t pos = 0; pos < piece.size();) {
    const size_t space = std::min(piece.find(' ', pos), piece.size());
    out.append(piece.substr(pos, space - pos));
    if (space < piece.size()) out.append(replacement);
    pos = space + 1;
  }
}

}  // namespace

WordStage::WordStage(const TokenizerModel& model, size_t n_cached_words, Emit emit)
    : model_(model), scratch_(n_cached_words), emit_(std::move(emit)) {
  for (const auto& splitter : model.pre_tokenizer.splitters) {
    states_.push_back(splitter->new_state());
  }
}

void WordStage::begin_segment(std::string_view piece) {
  in_segment_ = true;
  const PreTokenizer& rules = model_.pre_tokenizer;
  if (rules.add_prefix_space && piece.front() != ' ') text_.push_back(' ');
  if (!rules.metaspace) return;
  const bool wanted = rules.metaspace->prepend == Metaspace::Prepend::kAlways ||
                      (rules.metaspace->prepend == Metaspace::Prepend::kFirst && at_text_start_);
  if (wanted && piece.front() != ' ' && !piece.starts_with(rules.metaspace->replacement)) {
    text_.append(rules.metaspace->replacement);
  }
}

void WordStage::text(std::string_view piece) {
  if (piece.empty()) return;
  if (!in_segment_) begin_segment(piece);
  at_text_start_ = false;
  if (model_.pre_tokenizer.metaspace) {
    append_metaspace(piece, model_.pre_tokenizer.metaspace->replacement, text_);
  } else {
    text_.append(piece);
  }
  if (text_.size() - begin_ < worth_trying_) return;
  split(false);
  // An unfinished word is looked at again when it has doubled, so that the work stays linear.
  worth_trying_ = 2 * (text_.size() - begin_);
  forget_the_past();
}

void WordStage::end_segment() {
  if (!in_segment_) return;
  split(true);
  text_.clear();
  begin_ = 0;
  worth_trying_ = 0;
  in_segment_ = false;
}

void WordStage::token(int32_t id) {
  ids_.push_back(id);
  at_text_start_ = false;
  if (ids_.size() >= kIdsPerBatch) flush();
}

void WordStage::flush() {
  if (!ids_.empty()) emit_(ids_);
  ids_.clear();
}

void WordStage::split(bool is_last) {
  const auto& splitters = model_.pre_tokenizer.splitters;
  if (splitters.empty()) {
    if (!is_last) return;
    split_word(std::string_view(text_).substr(begin_), 0);
    begin_ = text_.size();
    return;
  }
  while (begin_ < text_.size()) {
    const auto piece = splitters[0]->next(text_, begin_, is_last, states_[0].get());
    if (!piece) return;
    if (piece->keep) {
      split_word(std::string_view(text_).substr(begin_, piece->end - begin_), 1);
    }
    begin_ = piece->end;
  }
}

void WordStage::split_word(std::string_view word, size_t level) {
  if (word.empty()) return;
  if (level >= states_.size()) {
    model_.bpe.encode_word(word, scratch_, ids_);
    if (ids_.size() >= kIdsPerBatch) flush();
    return;
  }
  for (size_t begin = 0; begin < word.size();) {
    const auto piece =
        model_.pre_tokenizer.splitters[level]->next(word, begin, true, states_[level].get());
    if (piece->keep) split_word(word.substr(begin, piece->end - begin), level + 1);
    begin = piece->end;
  }
}

void WordStage::forget_the_past() {
  size_t first_needed = begin_;
  const auto& splitters = model_.pre_tokenizer.splitters;
  const size_t n_behind = splitters.empty() ? 0 : splitters[0]->look_behind();
  for (size_t n = 0; n < n_behind && first_needed > 0; ++n) {
    first_needed = previous_char(text_, first_needed);
  }
  text_.erase(0, first_needed);
  begin_ -= first_needed;
}

NormalizeStage::NormalizeStage(const TokenizerModel& model, bool parse_special, SegmentSink& next)
    : steps_(model.normalizer.new_steps()),
      splitter_(model.normalized_tokens, parse_special, next),
      next_(next) {}

void NormalizeStage::text(std::string_view piece) {
  if (steps_.empty()) return splitter_.feed(piece);
  std::string text(piece);
  for (const auto& step : steps_) {
    std::string out;
    out.reserve(text.size());
    step->feed(text, out);
    text = std::move(out);
  }
  splitter_.feed(text);
}

void NormalizeStage::end_segment() {
  for (size_t i = 0; i < steps_.size(); ++i) {
    std::string text;
    steps_[i]->finish(text);
    for (size_t later = i + 1; later < steps_.size(); ++later) {
      std::string out;
      steps_[later]->feed(text, out);
      text = std::move(out);
    }
    splitter_.feed(text);
  }
  splitter_.finish();
}

EncoderStages::EncoderStages(std::shared_ptr<const TokenizerModel> model,
                             const EncodeOptions& options, size_t n_cached_words,
                             WordStage::Emit emit, size_t chunk_bytes)
    : model_(std::move(model)),
      options_(options),
      words_(*model_, n_cached_words, std::move(emit)),
      normalize_(*model_, options.parse_special, words_),
      raw_splitter_(model_->raw_tokens, options.parse_special, normalize_),
      chunk_bytes_(chunk_bytes) {}

void EncoderStages::pass(std::string_view bytes) {
  repaired_.clear();
  repair_.feed(bytes, repaired_);
  raw_splitter_.feed(repaired_);
}

void EncoderStages::feed(std::string_view bytes) {
  while (gathered_.size() + bytes.size() >= chunk_bytes_) {
    const size_t n_taken = chunk_bytes_ - gathered_.size();
    if (gathered_.empty()) {
      pass(bytes.substr(0, n_taken));
    } else {
      gathered_.append(bytes.substr(0, n_taken));
      pass(gathered_);
      gathered_.clear();
    }
    bytes.remove_prefix(n_taken);
  }
  gathered_.append(bytes);
}

void EncoderStages::finish() {
  pass(gathered_);
  gathered_.clear();
  repaired_.clear();
  repair_.finish(repaired_);
  raw_splitter_.feed(repaired_);
  raw_splitter_.finish();
  if (options_.add_eos) {
    for (const int32_t id : model_->suffix_ids) words_.token(id);
  }
  words_.flush();
}

}  // namespace llmq::runtime
