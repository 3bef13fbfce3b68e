#!/usr/bin/env python3
"""Trains the two small BPE vocabularies that tests use where no model's files are at hand.

Writes small_byte_level.json (GPT-4's pattern, 256 bytes and 200 merges) and small_metaspace.json
(Llama-2's form: characters, byte fallback and 150 merges) as tokenizer.json files beside the other
goldens. Plain byte-pair encoding on the text below; the result does not depend on anything else.
"""
import collections
import json
import pathlib
import re

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "runtime" / "tokenizer" / "goldens"

TEXT = """
A tokenizer turns a text into numbers, and the numbers back into the text. The model never sees the
letters: it sees the numbers, so a tokenizer that is wrong by one number makes the whole answer wrong.
We don't guess here; we count what there is. It's the same for words, for numbers such as 1024 or 4096,
for code like "for (int i = 0; i < n; ++i) { sum += x[i]; }", and for the spaces    between them.
Ein Wort auf Deutsch: Übermäßigkeit. Un mot français : déjà vu. Слово по-русски: привет, мир.
中文的词语没有空格，所以很难。日本語の文も同じです。
The weights of the model are quantized to eight bits, the activations of the model are quantized as
they come, and the scales are what is left of the numbers that were there. They're small, but they'll
do; you've seen that the model's answers are the same, and I'd say that's what we're after.
"""


def most_frequent_pair(words):
    pairs = collections.Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:]):
            pairs[pair] += count
    if not pairs:
        return None
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def apply_merge(word, pair):
    merged, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            merged.append(word[i] + word[i + 1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


def train(words, n_merges):
    merges = []
    for _ in range(n_merges):
        pair = most_frequent_pair(words)
        if pair is None:
            break
        merges.append(pair)
        new_words = collections.Counter()
        for word, count in words.items():
            new_words[apply_merge(word, pair)] += count
        words = new_words
    return merges


def byte_alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, n_others = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + n_others)
            n_others += 1
    return table


def special(token_id, content):
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"id": token_id, "content": content, **flags, "special": True}


def model(vocabulary, merges, **options):
    base = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return {**base, **options, "vocab": vocabulary, "merges": [" ".join(pair) for pair in merges]}


def write(name, added_tokens, parts):
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens}
    path = GOLDENS / name
    path.write_text(json.dumps({**head, **parts}, ensure_ascii=False) + "\n", encoding="utf-8")


def make_byte_level():
    alphabet = byte_alphabet()
    pieces = re.findall(r" ?[^\W\d_]+|\d{1,3}| ?[^\s\w]+|\s+", TEXT)
    words = collections.Counter(
        tuple(alphabet[byte] for byte in piece.encode()) for piece in pieces
    )
    merges = train(words, 200)
    tokens = [alphabet[byte] for byte in range(256)] + [a + b for a, b in merges]
    n = len(tokens)
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = False
    write(
        "small_byte_level.json",
        [special(n, "<|begin|>"), special(n + 1, "<|im_start|>"), special(n + 2, "<|im_end|>")],
        {
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": model({token: i for i, token in enumerate(tokens)}, merges),
        },
    )


def make_metaspace():
    pieces = [("\u2581" + word) for line in TEXT.split("\n") for word in line.split(" ")]
    merges = train(collections.Counter(tuple(piece) for piece in pieces), 150)
    characters = sorted(set("\u2581" + TEXT.replace("\n", "").replace(" ", "")))
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += [a + b for a, b in merges] + characters
    replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    bos = {"id": "<s>", "type_id": 0}
    write(
        "small_metaspace.json",
        [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "\u2581"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                ],
            },
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": bos}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"SpecialToken": bos}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
            },
            "model": model(
                {token: i for i, token in enumerate(tokens)},
                merges,
                unk_token="<unk>",
                fuse_unk=True,
                byte_fallback=True,
            ),
        },
    )


if __name__ == "__main__":
    make_byte_level()
    make_metaspace()
