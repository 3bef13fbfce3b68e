"""A byte-level BPE tokenizer with Qwen2's way of cutting text: training, encoding, files."""

import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}"
)


def _category_ranges(initial):
    """Ranges of a character class with the code points whose category begins with `initial`."""
    ranges, start = [], None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and unicodedata.category(chr(code))[0] == initial
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            ranges.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    return "".join(ranges)


def compile_pattern():
    """Qwen2's pattern for Python's `re`, which knows no Unicode categories."""
    letters, numbers = _category_ranges("L"), _category_ranges("N")
    pattern = QWEN2_PATTERN.replace(r"\p{L}+", f"[{letters}]+")
    pattern = pattern.replace(r"|\p{N}|", f"|[{numbers}]|")
    return re.compile(pattern.replace(r"\p{L}", letters).replace(r"\p{N}", numbers))


def read_book(path):
    """The text of a Project Gutenberg file without its head, licence and line-end flavour."""
    with open(path, encoding="utf-8-sig", newline=None) as file:
        text = file.read()
    begin = text.find("*** START OF")
    end = text.find("*** END OF")
    if begin >= 0:
        text = text[text.find("\n", begin) :]
    return text[: end - begin] if end > begin >= 0 else text


def with_straight_quotes(text):
    """The text as files in ASCII have it."""
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2014: "--"})


def byte_characters():
    """The printable character that stands for each byte in tokenizer.json (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(plain))
    return table


def train_merges(counts, n_merges):
    """Learns merges from {piece: count}: always the most frequent pair, ties by the bytes.

    Returns a list of pairs of bytes. The counts of pairs are kept up to date with the pieces that
    a merge changes, so that a merge costs as much as it changes.
    """
    words = [[bytes([b]) for b in piece.encode()] for piece in counts]
    weights = list(counts.values())
    pairs, where = Counter(), defaultdict(set)
    for index, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += weights[index]
            where[pair].add(index)
    merges = []
    while len(merges) < n_merges:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for index in where.pop(best):
            word, weight = words[index], weights[index]
            for pair in zip(word, word[1:]):
                pairs[pair] -= weight
            words[index] = word = merge_pair(word, best)
            for pair in zip(word, word[1:]):
                pairs[pair] += weight
                where[pair].add(index)
        del pairs[best]
    return merges


def merge_pair(word, pair):
    """The word with each occurrence of the pair, from the left, joined."""
    joined, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            joined.append(word[i] + word[i + 1])
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return joined


class Tokenizer:
    """Ids 0..255 are the bytes, then the merges in their order, then the special tokens."""

    def __init__(self, merges):
        self.merges = merges
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        tokens = [bytes([b]) for b in range(256)] + [left + right for left, right in merges]
        self.tokens = tokens
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.special = {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.size = len(tokens) + len(SPECIAL_TOKENS)
        self._pattern = compile_pattern()
        self._cache = {}

    @staticmethod
    def train(text, extra_counts, vocab_size):
        """Learns from the pieces of a text and from {piece: count} that are added to them."""
        counts = Counter(compile_pattern().findall(text))
        counts.update(extra_counts)
        return Tokenizer(train_merges(counts, vocab_size - 256 - len(SPECIAL_TOKENS)))

    def encode_piece(self, piece):
        """Ids of one piece of the pattern."""
        found = self._cache.get(piece)
        if found is None:
            word = [bytes([b]) for b in piece.encode()]
            while len(word) > 1:
                pair = min(zip(word, word[1:]), key=lambda p: self.ranks.get(p, len(self.ranks)))
                if pair not in self.ranks:
                    break
                word = merge_pair(word, pair)
            found = [self.ids[token] for token in word]
            self._cache[piece] = found
        return found

    def encode(self, text):
        """Ids of a text; the names of special tokens in it are plain text."""
        ids = []
        for piece in self._pattern.findall(unicodedata.normalize("NFC", text)):
            ids.extend(self.encode_piece(piece))
        return ids

    def save(self, folder, max_length):
        """Writes tokenizer.json and tokenizer_config.json."""
        table = byte_characters()

        def shown(token):
            return "".join(table[b] for b in token)

        added = [
            {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for name, i in self.special.items()
        ]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                      "use_regex": False}
        split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated",
                 "invert": False}
        tokenizer = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None,
                "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                "byte_fallback": False, "ignore_merges": False,
                "vocab": {shown(token): i for i, token in enumerate(self.tokens)},
                "merges": [f"{shown(left)} {shown(right)}" for left, right in self.merges],
            },
        }
        config = {
            "add_bos_token": False, "add_prefix_space": False,
            "added_tokens_decoder": {
                str(entry["id"]): {k: v for k, v in entry.items() if k != "id"} for entry in added
            },
            "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
            "unk_token": None, "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False, "errors": "replace",
            "model_max_length": max_length, "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
        }
        for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
            with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False, indent=1)
                file.write("\n")
