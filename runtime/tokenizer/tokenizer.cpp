#include "runtime/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <utility>

#include "formats/error.h"
#include "runtime/tokenizer/encoder_stages.h"
#include "runtime/tokenizer/tokenizer_model.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerModel> model) : model_(std::move(model)) {}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_bos) ids = model_->prefix_ids;
  // A short prompt does not pay for a large cache.
  EncoderStages stages(model_, options, text.size() / 8, [&](std::span<const int32_t> batch) {
    ids.insert(ids.end(), batch.begin(), batch.end());
  });
  stages.feed(text);
  stages.finish();
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDecoder decoder(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += decoder.feed(id);
  return text + decoder.finish();
}

int32_t Tokenizer::vocab_size() const {
  return model_->vocabulary.size();
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return model_->vocabulary.find(token);
}

std::optional<std::string> Tokenizer::id_to_token(int32_t id) const {
  const Vocabulary& vocabulary = model_->vocabulary;
  if (!vocabulary.in_range(id) || !vocabulary.is_token(id)) return std::nullopt;
  return std::string(vocabulary.content(id));
}

bool Tokenizer::is_special(int32_t id) const {
  return model_->vocabulary.in_range(id) && model_->vocabulary.is_special(id);
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return model_->bos_id;
}
const std::vector<int32_t>& Tokenizer::eos_ids() const {
  return model_->eos_ids;
}
bool Tokenizer::adds_bos() const {
  return model_->adds_bos;
}
bool Tokenizer::adds_eos() const {
  return model_->adds_eos;
}

StreamEncoder::StreamEncoder(const Tokenizer& tokenizer, const EncodeOptions& options, Sink sink) {
  constexpr size_t kCachedWords = size_t{1} << 15;
  if (options.add_bos && !tokenizer.model_->prefix_ids.empty()) sink(tokenizer.model_->prefix_ids);
  stages_ =
      std::make_unique<EncoderStages>(tokenizer.model_, options, kCachedWords, std::move(sink));
}

StreamEncoder::~StreamEncoder() = default;
void StreamEncoder::feed(std::string_view bytes) {
  stages_->feed(bytes);
}
void StreamEncoder::finish() {
  stages_->finish();
}

struct StreamDecoder::State {
  std::shared_ptr<const TokenizerModel> model;
  bool skip_special;
  Utf8Repair repair;
  bool is_first = true;
  size_t n_strip_left = 0;

  void start() {
    is_first = true;
    n_strip_left = model->decoder.n_strip();
  }

  std::string strip(std::string text) {
    if (n_strip_left == 0 || text.empty()) return text;
    size_t n = 0;
    while (n < text.size() && n < n_strip_left && text[n] == model->decoder.strip()) ++n;
    n_strip_left = n == text.size() ? n_strip_left - n : 0;
    return text.substr(n);
  }
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : state_(std::make_unique<State>()) {
  state_->model = tokenizer.model_;
  state_->skip_special = skip_special;
  state_->start();
}

StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::feed(int32_t id) {
  const Vocabulary& vocabulary = state_->model->vocabulary;
  if (!vocabulary.in_range(id)) {
    throw formats::bad_input(fmt::format("the token id {} is outside of the tokenizer's 0 to {}",
                                         id, vocabulary.size() - 1));
  }
  if (!vocabulary.is_token(id) || (state_->skip_special && vocabulary.is_special(id))) return {};
  std::string text;
  state_->repair.feed(state_->model->decoder.bytes_of(id, std::exchange(state_->is_first, false)),
                      text);
  return state_->strip(std::move(text));
}

std::string StreamDecoder::finish() {
  std::string text;
  state_->repair.finish(text);
  text = state_->strip(std::move(text));
  state_->start();
  return text;
}

}  // namespace llmq::runtime
