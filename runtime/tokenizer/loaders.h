#pragma once

#include <filesystem>
#include <string_view>

#include "formats/json.h"
#include "runtime/tokenizer/tokenizer_config.h"
#include "runtime/tokenizer/tokenizer_model.h"

namespace llmq::runtime {

/// The parts of a parsed tokenizer.json. The configuration decides add_bos_token and add_eos_token
/// where it names them, and bos_token and eos_token. Throws Error{kBadInput} that names what is
/// damaged or not supported.
TokenizerSpec spec_from_tokenizer_json(const formats::Json& file, const TokenizerConfig& config);

/// The parts of vocab.json, merges.txt and (may be null) added_tokens.json. `model_type` is that of
/// config.json, used where the configuration names no tokenizer class; known are Qwen2's and
/// GPT-2's. Throws Error{kBadInput}; also when merges are missing, counted against the vocabulary.
TokenizerSpec spec_from_vocab_and_merges(const formats::Json& vocab, std::string_view merges,
                                         const formats::Json& added_tokens,
                                         const TokenizerConfig& config,
                                         std::string_view model_type);

/// The parts of a qwen.tiktoken, the file of Qwen1: lines of a token's bytes in base64 and its
/// rank, which is its id. Ranks take the place of merges: of all neighbours that make a token when
/// joined, those of the lowest rank are joined first (https://github.com/openai/tiktoken). Texts
/// are normalized (NFC) and cut as Qwen2's. After the ranks come the control tokens <|endoftext|>,
/// <|im_start|>, <|im_end|> and <|extra_0|> to <|extra_204|>; the first and the third end a text.
/// Throws Error{kBadInput} naming the line or the rank for what is no such file, for ranks with
/// gaps or twice, for a token twice or of more than 256 bytes, and where a byte has no token.
TokenizerSpec spec_from_tiktoken(std::string_view file, const TokenizerConfig& config);

/// Sets bos_id, eos_ids and the defaults for adding them from the configuration, where it names
/// them and the tokens exist.
void apply_config(const TokenizerConfig& config, TokenizerSpec& spec);

}  // namespace llmq::runtime
