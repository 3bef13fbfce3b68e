#include "runtime/tokenizer/chat_table.h"

#include <array>

namespace llmq::runtime {
namespace {

using Words = std::string_view;

constexpr std::array kCommonLiterals = {Words("role"), Words("content"), Words("\n"), Words("")};
constexpr std::array kCommonNames = {
    Words("for"),  Words("in"),      Words("endfor"),  Words("if"),      Words("elif"),
    Words("else"), Words("endif"),   Words("set"),     Words("not"),     Words("and"),
    Words("or"),   Words("is"),      Words("defined"), Words("true"),    Words("false"),
    Words("none"), Words("loop"),    Words("first"),   Words("last"),    Words("index0"),
    Words("role"), Words("content"), Words("message"), Words("messages")};

// ChatML

constexpr std::array kChatMlLiterals = {Words("<|im_start|>"), Words("<|im_end|>"),
                                        Words("<|im_start|>assistant\n")};
constexpr Words kChatMlTurn =
    "'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}";
constexpr Words kChatMlPrompt = "if add_generation_prompt%}'<|im_start|>assistant\n'}}";
constexpr std::array kChatMlCode = {kChatMlTurn, kChatMlPrompt};
constexpr std::array kPromptName = {Words("add_generation_prompt")};

constexpr std::array kQwen2Code = {
    Words("if loop.first and messages[0]['role']!='system'%}'<|im_start|>system\n"), kChatMlTurn,
    kChatMlPrompt};
constexpr std::array kSystemLiteral = {Words("system")};

// Qwen2.5 and Qwen3; what their templates say about tools does not matter without tools

constexpr std::array kQwenToolLiterals = {
    Words("system"),
    Words("user"),
    Words("assistant"),
    Words("tool"),
    Words("<|im_start|>system\n"),
    Words("<|im_start|>user"),
    Words("<|im_end|>\n"),
    Words("\n\n"),
    Words("\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou "
          "are "
          "provided with function signatures within <tools></tools> XML tags:\n<tools>"),
    Words("# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
          "provided with function signatures within <tools></tools> XML tags:\n<tools>"),
    Words("\n</tools>\n\nFor each function call, return a json object with function name and "
          "arguments "
          "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
          "\"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n"),
    Words("\n<tool_call>\n{\"name\": \""),
    Words("<tool_call>\n{\"name\": \""),
    Words("\", \"arguments\": "),
    Words("}\n</tool_call>"),
    Words("\n<tool_response>\n"),
    Words("\n</tool_response>"),
    Words("<tool_response>"),
    Words("</tool_response>"),
    Words("<think>"),
    Words("</think>"),
    Words("\n<think>\n"),
    Words("\n</think>\n\n"),
    Words("<think>\n\n</think>\n\n")};
constexpr std::array kQwen25Names = {Words("add_generation_prompt"),
                                     Words("arguments"),
                                     Words("function"),
                                     Words("name"),
                                     Words("tojson"),
                                     Words("tool"),
                                     Words("tool_call"),
                                     Words("tool_calls"),
                                     Words("tools")};
constexpr Words kQwenTurn = "'<|im_start|>'+message.role+'\n'+message.content+'<|im_end|>'+'\n'}}";
constexpr Words kQwenToolTurn = "'\n<tool_response>\n'}}message.content}}'\n</tool_response>'}}";
constexpr std::array kQwen25Code = {
    Words("if messages[0]['role']=='system'%}'<|im_start|>system\n'+messages[0]['content']+"
          "'<|im_end|>\n'}}else%}'<|im_start|>system\n"),
    Words("if(message.role=='user')or(message.role=='system'and not loop.first)or(message.role=="
          "'assistant'and not message.tool_calls)%}"),
    kQwenTurn, kQwenToolTurn, kChatMlPrompt};

constexpr std::array kQwen3Names = {Words("add_generation_prompt"),
                                    Words("arguments"),
                                    Words("function"),
                                    Words("name"),
                                    Words("tojson"),
                                    Words("tool"),
                                    Words("tool_call"),
                                    Words("tool_calls"),
                                    Words("tools"),
                                    Words("namespace"),
                                    Words("ns"),
                                    Words("length"),
                                    Words("index"),
                                    Words("last_query_index"),
                                    Words("multi_step_tool"),
                                    Words("enable_thinking"),
                                    Words("startswith"),
                                    Words("endswith"),
                                    Words("lstrip"),
                                    Words("rstrip"),
                                    Words("strip"),
                                    Words("split"),
                                    Words("string"),
                                    Words("reasoning_content")};
constexpr std::array kQwen3Code = {
    Words("'<|im_start|>system\n'+messages[0].content+'<|im_end|>\n'}}"),
    Words("set ns=namespace(multi_step_tool=true,last_query_index=messages|length-1)%}"),
    Words("not(message.content.startswith('<tool_response>')and message.content.endswith("
          "'</tool_response>'))%}set ns.multi_step_tool=false%}set ns.last_query_index=index%}"),
    Words("content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')%}"),
    Words("content.split('</think>')[-1].lstrip('\n')%}"),
    Words(
        "if loop.index0>ns.last_query_index%}if loop.last or(not loop.last and reasoning_content)%}"
        "'<|im_start|>'+message.role+'\n<think>\n'+reasoning_content.strip('\n')+'\n</think>\n\n'+"
        "content.lstrip('\n')}}else%}'<|im_start|>'+message.role+'\n'+content}}endif%}else%}"
        "'<|im_start|>'+message.role+'\n'+content}}endif%}"),
    kChatMlPrompt,
    Words(
        "if enable_thinking is defined and enable_thinking is false%}'<think>\n\n</think>\n\n'}}")};

// Llama 3

constexpr std::array kLlama3Literals = {Words("<|start_header_id|>"),
                                        Words("<|end_header_id|>\n\n"), Words("<|eot_id|>"),
                                        Words("<|start_header_id|>assistant<|end_header_id|>\n\n")};
constexpr Words kLlama3Turn =
    "'<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+"
    "'<|eot_id|>'";
constexpr Words kLlama3Prompt =
    "if add_generation_prompt%}'<|start_header_id|>assistant<|end_header_id|>\n\n'}}";
constexpr Words kLlama3Bos = "if loop.index0==0%}set content=bos_token+content%}";
constexpr std::array kLlama3Code = {kLlama3Turn, kLlama3Bos, kLlama3Prompt};
constexpr std::array kLlama3PromptsCode = {
    kLlama3Turn, kLlama3Bos,
    Words("endfor%}'<|start_header_id|>assistant<|end_header_id|>\n\n'}}")};
constexpr std::array kLlama3Names = {Words("bos_token"), Words("loop_messages"), Words("trim"),
                                     Words("add_generation_prompt")};
constexpr std::array kLlama3PromptsNames = {Words("bos_token"), Words("loop_messages"),
                                            Words("trim")};

// Llama 3.1 to 3.3

constexpr std::array kLlama31Code = {
    Words("if messages[0]['role']=='system'%}set system_message=messages[0]['content']|trim%}"
          "set messages=messages[1:]%}else%}set system_message=''%}endif%}"
          "'<|start_header_id|>system<|end_header_id|>\n\n'}}"),
    Words("'Cutting Knowledge Date: December 2023\n'}}'Today Date: '+date_string+'\n\n'}}"),
    Words("system_message}}'<|eot_id|>'}}"), kLlama3Turn, kLlama3Prompt};
constexpr std::array kLlama31Names = {Words("add_generation_prompt"),
                                      Words("bos_token"),
                                      Words("trim"),
                                      Words("arg_name"),
                                      Words("arg_val"),
                                      Words("arguments"),
                                      Words("builtin_tools"),
                                      Words("custom_tools"),
                                      Words("date_string"),
                                      Words("first_user_message"),
                                      Words("function"),
                                      Words("indent"),
                                      Words("items"),
                                      Words("iterable"),
                                      Words("join"),
                                      Words("length"),
                                      Words("mapping"),
                                      Words("name"),
                                      Words("raise_exception"),
                                      Words("reject"),
                                      Words("strftime_now"),
                                      Words("system_message"),
                                      Words("t"),
                                      Words("tojson"),
                                      Words("tool_call"),
                                      Words("tool_calls"),
                                      Words("tools"),
                                      Words("tools_in_user_message")};
constexpr std::array kLlama31Literals = {
    Words("system"),
    Words("tool"),
    Words("ipython"),
    Words("tool_calls"),
    Words("equalto"),
    Words("code_interpreter"),
    Words(", "),
    Words("%d %b %Y"),
    Words("\n\n"),
    Words("<|start_header_id|>system<|end_header_id|>\n\n"),
    Words("<|start_header_id|>user<|end_header_id|>\n\n"),
    Words("<|start_header_id|>ipython<|end_header_id|>\n\n"),
    Words("Environment: ipython\n"),
    Words("Tools: "),
    Words("Cutting Knowledge Date: December 2023\n"),
    Words("Today Date: "),
    Words("You have access to the following functions. To call a function, please respond with "
          "JSON for "
          "a function call."),
    Words("Respond in the format {\"name\": function name, \"parameters\": dictionary of argument "
          "name "
          "and its value}."),
    Words("Do not use variables.\n\n"),
    Words("Cannot put tools in the first user message when there's no first user message!"),
    Words("Given the following functions, please respond with a JSON for a function call "),
    Words("with its proper arguments that best answers the given prompt.\n\n"),
    Words("This model only supports single tool-calls at once!"),
    Words("<|python_tag|>"),
    Words(".call("),
    Words("=\""),
    Words("\""),
    Words(")"),
    Words("{\"name\": \""),
    Words("\", "),
    Words("\"parameters\": "),
    Words("}"),
    Words("<|eom_id|>")};

constexpr std::array kTable = {
    ChatRow{.rules = {.name = "qwen3",
                      .format = ChatFormat::kChatMl,
                      .rewrites_thinking = true,
                      .has_tool_role = true},
            .needs_literals = kChatMlLiterals,
            .needs_code = kQwen3Code,
            .more_names = kQwen3Names,
            .more_literals = kQwenToolLiterals},
    ChatRow{.rules = {.name = "qwen2.5", .format = ChatFormat::kChatMl, .has_tool_role = true},
            .needs_literals = kChatMlLiterals,
            .needs_code = kQwen25Code,
            .more_names = kQwen25Names,
            .more_literals = kQwenToolLiterals,
            .has_default_system = true},
    ChatRow{.rules = {.name = "qwen2", .format = ChatFormat::kChatMl},
            .needs_literals = kChatMlLiterals,
            .needs_code = kQwen2Code,
            .more_names = kPromptName,
            .more_literals = kSystemLiteral,
            .has_default_system = true},
    ChatRow{.rules = {.name = "chatml", .format = ChatFormat::kChatMl},
            .needs_literals = kChatMlLiterals,
            .needs_code = kChatMlCode,
            .more_names = kPromptName,
            .more_literals = {}},
    ChatRow{.rules = {.name = "llama3.1",
                      .format = ChatFormat::kLlama3,
                      .trims_content = true,
                      .dates_system = true},
            .needs_literals = kLlama3Literals,
            .needs_code = kLlama31Code,
            .more_names = kLlama31Names,
            .more_literals = kLlama31Literals},
    ChatRow{.rules = {.name = "llama3", .format = ChatFormat::kLlama3, .trims_content = true},
            .needs_literals = kLlama3Literals,
            .needs_code = kLlama3Code,
            .more_names = kLlama3Names,
            .more_literals = {}},
    ChatRow{.rules = {.name = "llama3-prompting",
                      .format = ChatFormat::kLlama3,
                      .trims_content = true,
                      .always_prompts = true},
            .needs_literals = kLlama3Literals,
            .needs_code = kLlama3PromptsCode,
            .more_names = kLlama3PromptsNames,
            .more_literals = {}},
};

}  // namespace

std::span<const ChatRow> chat_table() {
  return kTable;
}
std::span<const std::string_view> common_chat_literals() {
  return kCommonLiterals;
}
std::span<const std::string_view> common_chat_names() {
  return kCommonNames;
}

}  // namespace llmq::runtime
