#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmq::runtime {

struct TokenizerModel;
struct EncoderStages;

/// How a text becomes ids.
struct EncodeOptions {
  /// Contents of special tokens in the text become these tokens; with false they are ordinary text.
  /// Added tokens that are not special are always found, as in the Hugging Face library.
  bool parse_special = true;
  /// Puts the beginning-of-text ids before the text; no effect where the tokenizer has none.
  /// Tokenizer::adds_bos says what the model was trained with.
  bool add_bos = false;
  /// Puts the ids that the tokenizer's template has after the text; see Tokenizer::adds_eos.
  bool add_eos = false;
};

/// Text to token ids and back, as the files of a Hugging Face model folder say: tokenizer.json,
/// vocab.json and merges.txt, or qwen.tiktoken. Immutable and thread-safe; copies share their
/// tables.
///
/// Texts are UTF-8. Invalid bytes are replaced by U+FFFD before anything else (one for each maximal
/// prefix of a character, as the Hugging Face tokenizers see texts read with errors="replace"). For
/// byte-level families without a normalizer that changes the text, decode(encode(x)) = x for every
/// valid x (with skip_special false where special tokens are parsed).
class Tokenizer {
 public:
  /// Reads the tokenizer of a model folder: tokenizer.json, else vocab.json and merges.txt with the
  /// added tokens of tokenizer_config.json and added_tokens.json, else qwen.tiktoken. Throws
  /// Error{kBadInput} with one sentence when there is none, when it is damaged, or when it uses
  /// what is not supported (named); Error{kIo} when a file cannot be read.
  static Tokenizer load(const std::filesystem::path& model_folder);

  /// From the text of a tokenizer.json and (may be empty) of a tokenizer_config.json. Throws
  /// Error{kBadInput}.
  static Tokenizer from_json(std::string_view tokenizer_json,
                             std::string_view tokenizer_config = {});

  explicit Tokenizer(std::shared_ptr<const TokenizerModel> model);

  /// Ids of a text; none for an empty one (apart from BOS and EOS where asked for). Throws
  /// Error{kBadInput} when a pattern of the file exceeds its limits on this text.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text,
                                            const EncodeOptions& options) const;

  /// Text of ids, always valid UTF-8 (U+FFFD for bytes that make no character; also where a run of
  /// byte tokens is only partly valid, where the Hugging Face library replaces the whole run).
  /// Special tokens are left out unless `skip_special` is false; ids in a hole of the vocabulary
  /// give nothing. No clean-up of spaces. Throws Error{kBadInput} for an id outside of
  /// 0..vocab_size()-1.
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  /// Largest token id + 1 (models often have more rows in their embedding).
  [[nodiscard]] int32_t vocab_size() const;
  /// Id of a token as the files write it ("Ġthe", "<|im_end|>").
  [[nodiscard]] std::optional<int32_t> token_to_id(std::string_view token) const;
  /// Token as the files write it; nothing for an id out of range or without a token.
  [[nodiscard]] std::optional<std::string> id_to_token(int32_t id) const;
  /// Whether the id is that of a special token; false for ids out of range.
  [[nodiscard]] bool is_special(int32_t id) const;

  /// The token that begins a text, where the tokenizer names one.
  [[nodiscard]] std::optional<int32_t> bos_id() const;
  /// Tokens that end a text: eos_token and, where the folder has one, generation_config.json's.
  [[nodiscard]] const std::vector<int32_t>& eos_ids() const;
  /// Whether texts begin with BOS by default (add_bos_token, or the post-processor's template).
  [[nodiscard]] bool adds_bos() const;
  /// Whether texts end with EOS by default (add_eos_token, or the template; embedding models do).
  [[nodiscard]] bool adds_eos() const;

  [[nodiscard]] const TokenizerModel& model() const { return *model_; }

 private:
  friend class StreamEncoder;
  friend class StreamDecoder;
  std::shared_ptr<const TokenizerModel> model_;
};

/// Encodes a text that arrives in pieces, cut anywhere, to exactly the ids that encode() gives for
/// the whole. A piece is released only where no later byte can change it: characters are completed
/// first, text that may become an added token waits, NFC waits for a character that never combines,
/// and a pattern's match counts only when it ended without looking at the end of what has arrived.
/// Without a pattern (Llama-2) the text is cut where no merge of the model reaches across. Memory
/// is bounded by about 1 MiB and the longest word; a hostile "word" takes 40 bytes a byte. Not
/// thread-safe; many encoders may share a tokenizer.
class StreamEncoder {
 public:
  /// Takes ids in order, a batch at a time; the span is valid during the call only.
  using Sink = std::function<void(std::span<const int32_t>)>;

  StreamEncoder(const Tokenizer& tokenizer, const EncodeOptions& options, Sink sink);
  ~StreamEncoder();
  StreamEncoder(const StreamEncoder&) = delete;
  StreamEncoder& operator=(const StreamEncoder&) = delete;

  /// The next bytes of the text. Throws as encode(), and what the sink throws; after that the
  /// object must not be used any more.
  void feed(std::string_view bytes);

  /// The text has ended: gives the sink all that is left. Call once, at the end.
  void finish();

 private:
  std::unique_ptr<EncoderStages> stages_;
};

/// Decodes ids one at a time and gives out only whole characters. The pieces joined are what
/// decode() gives for all ids. Not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(const StreamDecoder&) = delete;
  StreamDecoder& operator=(const StreamDecoder&) = delete;

  /// Text that is complete with this id, often "". Throws Error{kBadInput} for an id out of range.
  std::string feed(int32_t id);

  /// The end: U+FFFD for an incomplete character, else "". The object can be used again.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmq::runtime
