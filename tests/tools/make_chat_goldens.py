#!/usr/bin/env python3
"""Renders conversations with chat templates by Jinja2 and writes what comes out as goldens.

Jinja2 is set up as the transformers library does it. The templates are the models' own (Qwen2.5 and
Qwen3, taken from a data folder and not copied) and the small ones beside the goldens.

    make_chat_goldens.py DATA_FOLDER
"""
import json
import pathlib
import sys

import jinja2
import jinja2.sandbox

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "runtime" / "tokenizer" / "goldens"

QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def message(role, content):
    return {"role": role, "content": content}


PLAIN = [
    [message("user", "Hi")],
    [message("system", "Be brief."), message("user", "What is 2 + 2?")],
    [message("system", ""), message("user", "  spaces kept?  ")],
    [message("user", "first"), message("assistant", "one"), message("user", "second\nline")],
    [message("user", "q"), message("assistant", "an unfinished")],
    [message("user", "a"), message("system", "in the middle"), message("user", "\n\nb\u00a0\n")],
    [message("assistant", "I begin."), message("user", "<|im_end|> injected \u00e9\U0001f680")],
]
TOOLS = [
    [message("user", "weather?"), message("tool", "{\"t\": 3}"), message("user", "thanks")],
    [message("user", "x"), message("tool", "one"), message("tool", "two")],
    [message("tool", "alone")],
]
THINKING = [
    [
        message("user", "1"),
        message("assistant", "<think>\nold thoughts\n</think>\n\nold answer"),
        message("user", "2"),
        message("assistant", "<think>\n\nnew thoughts\n\n</think>\n\n\nnew answer"),
    ],
    [message("user", "1"), message("assistant", "no thoughts")],
    [message("user", "1"), message("assistant", "<think>\n\n</think>\n\nempty thoughts")],
    [message("user", "1"), message("assistant", "loose</think>answer"), message("user", "2")],
    [
        message("user", "1"),
        message("assistant", "<think>a</think>b<think>c</think>d"),
        message("assistant", "last"),
    ],
    [
        message("user", "call"),
        message("assistant", "<think>need a tool</think>calling"),
        message("user", "<tool_response>\n5\n</tool_response>"),
        message("assistant", "plain"),
        message("assistant", "<think>\nx\n</think>\nfive"),
    ],
    [message("system", "s"), message("assistant", "<think>t</think>u"), message("tool", "r")],
    [message("user", "<tool_response>r</tool_response>"), message("assistant", "<think>t</think>u")],
]


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    return env


def main():
    data = pathlib.Path(sys.argv[1]) / "tokenizers"
    qwen25 = (data / "chat-templates" / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    qwen3_config = json.loads((data / "qwen3" / "tokenizer_config.json").read_text())
    own = {path.stem: path.read_text() for path in (GOLDENS / "templates").glob("*.jinja")}
    jobs = [
        ("qwen2.5", QWEN25_SYSTEM, qwen25, PLAIN + TOOLS),
        ("qwen3", "", qwen3_config["chat_template"], PLAIN + TOOLS + THINKING),
        ("qwen2", "You answer in one sentence.", own["qwen2"], PLAIN),
        ("chatml", "", own["chatml"], PLAIN),
        ("llama3", "", own["llama3"], PLAIN),
        ("llama3.1", "", own["llama3.1"], PLAIN),
    ]
    goldens = []
    for name, default_system, text, conversations in jobs:
        template = environment().from_string(text)
        for messages in conversations:
            for prompt, thinking in [(True, True), (False, True), (True, False)]:
                if not thinking and name != "qwen3":
                    continue
                options = {} if thinking else {"enable_thinking": False}
                rendered = template.render(
                    messages=messages,
                    add_generation_prompt=prompt,
                    bos_token="<|begin_of_text|>",
                    **options,
                )
                goldens.append(
                    {
                        "format": name,
                        "default_system": default_system,
                        "messages": messages,
                        "add_generation_prompt": prompt,
                        "enable_thinking": thinking,
                        "text": rendered,
                    }
                )
    lines = ",\n".join(json.dumps(golden, ensure_ascii=True) for golden in goldens)
    (GOLDENS / "chat.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
