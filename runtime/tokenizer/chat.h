#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace llmq::runtime {

/// How the turns of a conversation are marked.
enum class ChatFormat {
  kNone,    ///< the model folder has no template
  kChatMl,  ///< <|im_start|>role … <|im_end|> (Qwen)
  kLlama3,  ///< <|start_header_id|>role<|end_header_id|> … <|eot_id|>
};

struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant"; "tool" where the format has it
  std::string content;
};

/// One row of the table of known templates: everything in which they differ.
struct ChatRules {
  std::string_view name;
  ChatFormat format = ChatFormat::kNone;
  /// Assistant turns before the last question lose their <think> part, later ones are rewritten
  /// with it, and the generation prompt can switch thinking off (Qwen3).
  bool rewrites_thinking = false;
  /// Consecutive results of tools become one user turn in <tool_response> tags.
  bool has_tool_role = false;
  /// Contents lose white space at both ends.
  bool trims_content = false;
  /// A system turn with the knowledge cut-off and a date comes first even without a system message
  /// (Llama 3.1 and later).
  bool dates_system = false;
  /// The generation prompt is put at the end whether asked for or not (Llama 3's first template).
  bool always_prompts = false;
};

/// A chat template that llmq knows. The template of a model is never executed: it is recognized by
/// the words it is made of, and rendering is written here. Immutable and thread-safe.
class ChatTemplate {
 public:
  /// No template: format() is kNone and render() refuses.
  ChatTemplate() = default;

  /// Recognizes the text of a Jinja template: every string literal and every name in it must be one
  /// that a row of the table knows, and the row's own must all be there, so that a changed template
  /// is refused rather than rendered wrongly. Default system messages and dates are read from the
  /// literals. Throws Error{kBadInput} with one sentence for a template that is not known.
  static ChatTemplate recognize(std::string_view template_text);

  /// The template of a model folder: chat_template of tokenizer_config.json, else
  /// chat_template.jinja, else ChatML with a default system message where the only tokenizer is
  /// qwen.tiktoken (Qwen1 wrote its prompts in code), else none. Throws as recognize().
  static ChatTemplate load(const std::filesystem::path& model_folder);

  /// The row of that name ("chatml", "qwen2", "qwen2.5", "qwen3", "llama3", "llama3.1") with a
  /// default system message ("" for none). Throws Error{kUsage} for an unknown name.
  static ChatTemplate by_name(std::string_view name, std::string default_system);

  [[nodiscard]] ChatFormat format() const { return rules_.format; }
  [[nodiscard]] std::string_view name() const { return rules_.name; }
  /// System message put where a conversation begins without one; "" for none.
  [[nodiscard]] const std::string& default_system() const { return default_system_; }

  struct RenderOptions {
    /// Ends with the header of an assistant turn, for the model to fill.
    bool add_generation_prompt = true;
    /// Qwen3: false puts an empty <think> part into the generation prompt.
    bool enable_thinking = true;
  };

  /// The prompt of a conversation, as the model's own template gives it. Its control tokens are
  /// text: encode with parse_special and without add_bos (Llama 3's <|begin_of_text|> is part of
  /// it). Throws Error{kUsage} for an empty conversation, for a role that the format has not, and
  /// when there is no template.
  [[nodiscard]] std::string render(std::span<const ChatMessage> messages,
                                   const RenderOptions& options) const;

 private:
  ChatRules rules_;
  std::string default_system_;
  std::string date_;
};

}  // namespace llmq::runtime
