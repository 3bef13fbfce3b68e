#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_model.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {

/// Last stage: cuts normalized segments into words and the words into ids.
class WordStage : public SegmentSink {
 public:
  using Emit = std::function<void(std::span<const int32_t>)>;

  /// `n_cached_words` as in BpeScratch. `model` must outlive the object.
  WordStage(const TokenizerModel& model, size_t n_cached_words, Emit emit);

  void text(std::string_view piece) override;
  void end_segment() override;
  void token(int32_t id) override;
  /// Hands over all ids that were made.
  void flush();

 private:
  void begin_segment(std::string_view piece);
  void split(bool is_last);
  void split_word(std::string_view word, size_t level);
  void forget_the_past();

  const TokenizerModel& model_;
  BpeScratch scratch_;
  Emit emit_;
  std::vector<std::unique_ptr<SplitterState>> states_;  // one for each splitter
  std::vector<int32_t> ids_;
  std::string text_;
  size_t begin_ = 0;         // of the next word in text_
  size_t worth_trying_ = 0;  // bytes of text_ below which splitting failed
  bool in_segment_ = false;
  bool at_text_start_ = true;  // nothing, not even a token, came before
};

/// Middle stage: normalizes the segments between raw added tokens and finds the added tokens that
/// are searched in normalized text.
class NormalizeStage : public SegmentSink {
 public:
  NormalizeStage(const TokenizerModel& model, bool parse_special, SegmentSink& next);

  void text(std::string_view piece) override;
  void end_segment() override;
  void token(int32_t id) override { next_.token(id); }

 private:
  std::vector<std::unique_ptr<NormalizerStep>> steps_;
  AddedTokenSplitter splitter_;
  SegmentSink& next_;
};

/// The way of a text through all stages. Not thread-safe.
struct EncoderStages {
  static constexpr size_t kDefaultChunkBytes = size_t{128} << 10;

  /// `chunk_bytes` (> 0) of input pass the stages at a time.
  EncoderStages(std::shared_ptr<const TokenizerModel> model, const EncodeOptions& options,
                size_t n_cached_words, WordStage::Emit emit,
                size_t chunk_bytes = kDefaultChunkBytes);

  /// Bytes of any length; small ones are gathered.
  void feed(std::string_view bytes);
  void finish();

 private:
  void pass(std::string_view bytes);

  std::shared_ptr<const TokenizerModel> model_;
  EncodeOptions options_;
  WordStage words_;
  NormalizeStage normalize_;
  AddedTokenSplitter raw_splitter_;
  Utf8Repair repair_;
  size_t chunk_bytes_;
  std::string gathered_;
  std::string repaired_;
};

}  // namespace llmq::runtime
