#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/tokenizer/chat.h"
#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

using formats::Json;
using testing::HasSubstr;

std::string own_template(const std::string& name) {
  return formats::read_text_file(golden_folder() / "templates" / (name + ".jinja"));
}

std::string render(const ChatTemplate& chat, const Json& golden) {
  std::vector<ChatMessage> messages;
  for (const Json& message : golden["messages"]) {
    messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
  }
  return chat.render(messages,
                     {.add_generation_prompt = golden["add_generation_prompt"].get<bool>(),
                      .enable_thinking = golden["enable_thinking"].get<bool>()});
}

/// Every golden of a format (as Jinja2 rendered it), by a template at hand.
void expect_goldens(const ChatTemplate& chat, const std::string& format) {
  int n = 0;
  for (const Json& golden : read_golden("chat.json")) {
    if (golden["format"] != format) continue;
    ++n;
    EXPECT_EQ(render(chat, golden), golden["text"].get<std::string>()) << golden["messages"];
  }
  EXPECT_GT(n, 0);
}

TEST(GoldenChat, RendersEveryFormatAsJinjaRendersItsTemplate) {
  for (const Json& golden : read_golden("chat.json")) {
    const auto chat = ChatTemplate::by_name(golden["format"].get<std::string>(),
                                            golden["default_system"].get<std::string>());
    EXPECT_EQ(render(chat, golden), golden["text"].get<std::string>()) << golden;
  }
}

TEST(GoldenChat, RecognizesTheModelsOwnTemplates) {
  const auto folder = data_folder() / "tokenizers";
  if (!exists(folder / "chat-templates")) GTEST_SKIP() << "no data in " << folder;
  for (const char* file : {"Qwen-Qwen3-0.6B.jinja", "Qwen-Qwen2.5-7B-Instruct.jinja"}) {
    const auto chat =
        ChatTemplate::recognize(formats::read_text_file(folder / "chat-templates" / file));
    expect_goldens(chat, std::string(chat.name()));
    EXPECT_EQ(chat.name(), file[9] == '3' ? "qwen3" : "qwen2.5");
  }
  expect_goldens(ChatTemplate::load(folder / "qwen3"), "qwen3");
  expect_goldens(ChatTemplate::load(folder / "qwen2.5"), "qwen2.5");
}

TEST(Chat, RecognizesTemplatesByTheirWords) {
  for (const char* name : {"chatml", "qwen2", "llama3", "llama3.1"}) {
    const auto chat = ChatTemplate::recognize(own_template(name));
    EXPECT_EQ(chat.name(), name);
    EXPECT_EQ(chat.format(), name[0] == 'l' ? ChatFormat::kLlama3 : ChatFormat::kChatMl);
    expect_goldens(chat, name);
  }
  EXPECT_EQ(ChatTemplate::recognize(own_template("qwen2")).default_system(),
            "You answer in one sentence.");
}

TEST(Chat, RecognizesTheFirstLlama3TemplateWhichAlwaysPrompts) {
  std::string text = own_template("llama3");
  text.erase(text.find("{%- if add_generation_prompt"),
             std::string("{%- if add_generation_prompt %}").size());
  text.erase(text.rfind("{%- endif %}"));
  const auto chat = ChatTemplate::recognize(text);
  const std::vector<ChatMessage> messages = {{"user", "x"}};
  EXPECT_THAT(chat.render(messages, {.add_generation_prompt = false}),
              testing::EndsWith("assistant<|end_header_id|>\n\n"));
}

/// A template with one word changed must not be taken for the one it comes from.
TEST(Chat, RefusesATemplateThatWasChanged) {
  const std::vector<std::array<const char*, 3>> changes = {
      {"chatml", "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'"},
      {"chatml", "message['content']", "message['content'] | trim"},
      {"chatml", "message['content']", "message['content'] | upper"},
      {"chatml", "'<|im_end|>'", "'<|im_sep|>'"},
      {"chatml", "{{ ", "Hello {{ "},
      {"chatml", "{% endfor %}", "{% endfor %}\n\n"},
      {"qwen2", "!= 'system'", "== 'system'"},
      {"qwen2", "{%- for", "{{- 'Be good.' }}{%- for"},
      {"llama3", "| trim", ""},
      {"llama3", "bos_token", "eos_token"},
      {"llama3.1", "December 2023", "December 2024"},
  };
  for (const auto& [name, from, to] : changes) {
    std::string text = own_template(name);
    const size_t pos = text.find(from);
    ASSERT_NE(pos, std::string::npos);
    text.replace(pos, std::string_view(from).size(), to);
    EXPECT_THAT(error_or_none([&] { ChatTemplate::recognize(text); }), HasSubstr("--input_texts"))
        << name << ": " << from << " -> " << to;
  }
}

TEST(Chat, RefusesForeignAndBrokenTemplatesWithAReason) {
  EXPECT_THAT(
      error_or_none([] { ChatTemplate::recognize("[INST] {{ messages[0].content }} [/INST]"); }),
      HasSubstr("text outside of its tags"));
  EXPECT_THAT(error_or_none([] { ChatTemplate::recognize(""); }),
              HasSubstr("none that llmq knows"));
  EXPECT_THAT(error_or_none([] { ChatTemplate::recognize("{{ 'open"); }), HasSubstr("not closed"));
  EXPECT_THAT(error_or_none([] { ChatTemplate::recognize("{% if x"); }), HasSubstr("not closed"));
  EXPECT_THAT(error_or_none([] { ChatTemplate::recognize("{# comment"); }),
              HasSubstr("not closed"));
}

TEST(Chat, RefusesConversationsThatTheFormatDoesNotHave) {
  const auto usage = formats::ErrorCode::kUsage;
  const auto chat = ChatTemplate::by_name("qwen2", "");
  const std::vector<ChatMessage> none;
  const std::vector<ChatMessage> tool = {{"tool", "x"}};
  EXPECT_THAT(error_or_none([&] { (void)chat.render(none, {}); }, usage),
              HasSubstr("at least one"));
  EXPECT_THAT(error_or_none([&] { (void)chat.render(tool, {}); }, usage),
              HasSubstr("no role \"tool\""));
  EXPECT_THAT(error_or_none([&] { (void)ChatTemplate().render(tool, {}); }, usage),
              HasSubstr("--input_texts"));
  EXPECT_THAT(error_or_none([] { ChatTemplate::by_name("x", ""); }, usage), HasSubstr("\"x\""));
}

TEST(Chat, AFolderWithoutATemplateHasNoFormat) {
  EXPECT_EQ(ChatTemplate::load(golden_folder()).format(), ChatFormat::kNone);
}

}  // namespace
}  // namespace llmq::runtime
