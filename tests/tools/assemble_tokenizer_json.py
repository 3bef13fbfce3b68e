#!/usr/bin/env python3
"""Assembles a tokenizer.json from vocab.json, merges.txt and tokenizer_config.json.

The result has the shape of the files published with Qwen2, Qwen2.5 and Qwen3: a byte-level BPE model
with Qwen2's pre-tokenizer pattern and, by default, an NFC normalizer. Tests use it to read the same
vocabulary through both loaders.

    assemble_tokenizer_json.py FOLDER OUTPUT [--normalizer nfc|none] [--merges strings|pairs]
                               [--pattern qwen2|llama3|gpt2]
"""
import argparse
import json
import pathlib

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "qwen2": CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST,
    "llama3": CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,
}


def read_merges(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("#version")]


def read_added_tokens(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    added = config.get("added_tokens_decoder", {})
    return [{"id": int(token_id), **added[token_id]} for token_id in sorted(added, key=int)]


def pre_tokenizer(pattern):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    if pattern == "gpt2":
        return {**byte_level, "use_regex": True}
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}


def assemble(folder, normalizer, merge_form, pattern):
    merges = read_merges(folder / "merges.txt")
    if merge_form == "pairs":
        merges = [merge.split(" ") for merge in merges]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": read_added_tokens(folder),
        "normalizer": {"type": "NFC"} if normalizer == "nfc" else None,
        "pre_tokenizer": pre_tokenizer(pattern),
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
            "merges": merges,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--normalizer", choices=["nfc", "none"], default="nfc")
    parser.add_argument("--merges", choices=["strings", "pairs"], default="strings")
    parser.add_argument("--pattern", choices=["qwen2", "llama3", "gpt2"], default="qwen2")
    args = parser.parse_args()
    tokenizer = assemble(args.folder, args.normalizer, args.merges, args.pattern)
    args.output.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
