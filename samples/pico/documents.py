"""Rows of training tokens: repeated sequences, retrieval documents and windows of a book.

A row is (ids, weights): `weights[t]` is how much the prediction of `ids[t]` counts; 0 for what
nothing in the row could tell (the random parts), ANSWER_WEIGHT for what was asked for.
"""

import numpy as np

ANSWER_WEIGHT = 8.0

# The words of the filler of `llmq eval --passkey`.
QUALITIES = ("quiet old small happy tall brown gentle busy young kind tired brave clever slow "
             "bright warm").split()
BEINGS = ("baker farmer cat dog teacher bird sailor child horse singer miller nurse painter fox "
          "guard cook").split()
DEEDS = ("waits sings sleeps walks rests works plays hides reads looks smiles stands sits runs "
         "stays dances").split()
PLACES = ("river bridge garden house tree market mill hill lake road barn window forest well sea "
          "wall").split()
# Values of the documents with named keys are two of these.
VALUE_WORDS = ("apple silver stone winter copper candle ship feather golden mirror paper summer "
               "island hammer cotton thunder lemon marble ribbon salt pearl wagon velvet honey "
               "lantern meadow iron cloud saddle arrow butter crown drum ember fern glass harbor "
               "ivory jacket kettle ladder maple needle olive pepper quilt rose shell tower valley "
               "walnut basket chalk desert engine flute ginger helmet jungle moon nest oak piano "
               "rabbit").split()
KEY_WORDS = ("code color name number word secret answer token sign label").split()
PASSKEY_NAMES = ("pass key", "secret number", "door code", "magic number")

FRAMES = (
    "There is a pass key hidden in the text below. Find it and remember it.\n\n",
    "The pass key is 1. Remember it. 1 is the pass key. \n\nWhat is the pass key? The pass key is",
    "Below is a JSON object of keys and values. Find the value of one key.\n\n{",
    "}\n\nThe value of one key is asked for.\n\"1\": \"1\",\n",
    "The number of the is not. What is the secret number? door code magic number of the room",
    "Question: Answer: value for",
)


def extra_counts(pattern):
    """{piece: count} that makes each listed word, and each pair of hexadecimal letters, a token."""
    words = QUALITIES + BEINGS + DEEDS + PLACES + VALUE_WORDS + KEY_WORDS
    counts = {" " + word: 4000 for word in words}
    for frame in FRAMES:
        counts.update({piece: 4000 for piece in pattern.findall(frame)})
    counts.update({a + b: 4000 for a in "abcdef" for b in "abcdef"})
    return counts


class Segments:
    """A document as pieces of text with weights, encoded as one text. ASCII only."""

    def __init__(self):
        self.parts = []

    def add(self, text, weight):
        self.parts.append((text, weight))
        return self

    def encode(self, tokenizer):
        """(ids, weights); a token has the weight of its last character."""
        text = "".join(part for part, _ in self.parts)
        by_char = np.concatenate([np.full(len(part), w, np.float32) for part, w in self.parts])
        ids = tokenizer.encode(text)
        ends = np.cumsum([len(tokenizer.tokens[i]) for i in ids])
        return np.array(ids, np.int64), by_char[ends - 1]


def repeated_row(rng, tokenizer, length):
    """A random sequence over an alphabet of random size, repeated; or several in random order."""
    n_plain = tokenizer.size - 3
    n_symbols = int(np.exp(rng.uniform(np.log(10), np.log(n_plain))))
    alphabet = rng.choice(n_plain, n_symbols, replace=False)
    n_parts = 1 if rng.random() < 0.6 else int(rng.integers(2, 7))
    longest = max(6, length // 2 // n_parts)
    parts = [alphabet[rng.integers(0, n_symbols, rng.integers(5, longest + 1))]
             for _ in range(n_parts)]
    ids, weights = [], []
    while sum(map(len, ids)) < length:
        for index in range(n_parts) if not ids else rng.permutation(n_parts):
            weight = np.full(len(parts[index]), float(len(ids) >= n_parts), np.float32)
            if n_parts > 1:
                # Which part comes, nothing can tell before its first tokens.
                weight[: 2 if n_symbols > 100 else 4] = 0.0
            ids.append(parts[index])
            weights.append(weight)
    return np.concatenate(ids)[:length].astype(np.int64), np.concatenate(weights)[:length]


def filler_sentence(rng):
    """A sentence as `llmq eval --passkey` has it."""
    a, b, c, d, e = (int(i) for i in rng.integers(0, 16, 5))
    return f"The {QUALITIES[a]} {BEINGS[b]} {DEEDS[c]} near the {QUALITIES[d]} {PLACES[e]}. "


def near_miss_sentence(rng):
    """A sentence with a number that is not what will be asked for."""
    kind = KEY_WORDS[int(rng.integers(0, len(KEY_WORDS)))]
    being = BEINGS[int(rng.integers(0, 16))]
    return f"The {kind} of the {being} is {int(rng.integers(10, 100000))}. "


def passkey_document(rng, n_sentences, is_plain):
    """One number among filler; `is_plain`: exactly the form of `llmq eval --passkey`."""
    name = PASSKEY_NAMES[0] if is_plain else PASSKEY_NAMES[int(rng.integers(0, 4))]
    n_digits = 5 if is_plain else int(rng.integers(2, 8))
    key = "".join(str(int(d)) for d in rng.integers(0, 10, n_digits))
    if is_plain:
        key = str(int(rng.integers(10000, 100000)))
    near_misses = 0.0 if is_plain else float(rng.choice([0.0, 0.1]))
    place = int(rng.integers(0, n_sentences + 1))
    document = Segments()
    document.add(f"There is a {name} hidden in the text below. Find it and remember it.\n\n", 0.2)
    for index in range(n_sentences + 1):
        if index == place:
            document.add(f"The {name} is ", 0.2).add(key, 0.0).add(". Remember it. ", 0.2)
            document.add(key, 4.0).add(f" is the {name}. ", 0.2)
        if index < n_sentences:
            is_near_miss = rng.random() < near_misses
            document.add((near_miss_sentence if is_near_miss else filler_sentence)(rng), 0.2)
    document.add(f"\n\nWhat is the {name}? The {name} is", 0.2).add(" " + key, ANSWER_WEIGHT)
    return document.add("\n", 1.0)


def random_hex(rng, n):
    return "".join("0123456789abcdef"[int(i)] for i in rng.integers(0, 16, n))


def random_uuid(rng):
    """A version 4 UUID."""
    text = random_hex(rng, 32)
    variant = "89ab"[int(rng.integers(0, 4))]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def two_words(rng):
    a, b = (VALUE_WORDS[int(i)] for i in rng.integers(0, len(VALUE_WORDS), 2))
    return f"{a} {b}"


def json_document(rng, n_pairs, n_questions, make_key, make_value):
    """A JSON object and questions for its values in the form of `llmq eval --kv-retrieval`."""
    pairs = [(make_key(rng), make_value(rng)) for _ in range(n_pairs)]
    document = Segments()
    document.add("Below is a JSON object of keys and values. Find the value of one key.\n\n{", 0.2)
    for index, (key, value) in enumerate(pairs):
        document.add(f'"{key}": "{value}', 0.0)
        document.add('",\n' if index + 1 < n_pairs else '"', 0.2)
    document.add("}", 0.2)
    for index in rng.integers(0, n_pairs, n_questions):
        key, value = pairs[int(index)]
        document.add("\n\nThe value of one key is asked for.\n\"", 0.2)
        # The beginning of the key is anyone's guess.
        document.add(key[:4], 0.0).add(key[4:] + '": "', 1.0).add(value, ANSWER_WEIGHT)
        document.add('"', 1.0)
    return document


def named_document(rng, n_pairs, n_fillers, n_questions):
    """Sentences with the values of named keys among filler; many keys differ in a word only."""
    kinds = [KEY_WORDS[int(i)] for i in rng.choice(len(KEY_WORDS), 2, replace=False)]
    names = []
    while len(names) < n_pairs:
        name = f"{kinds[int(rng.integers(0, 2))]} of the {QUALITIES[int(rng.integers(0, 16))]} "
        name += BEINGS[int(rng.integers(0, 16))]
        if name not in names:
            names.append(name)
    values = [two_words(rng) if rng.random() < 0.7 else str(int(rng.integers(10000, 100000)))
              for _ in names]
    lines = [(filler_sentence(rng), None) for _ in range(n_fillers)]
    for name, value in zip(names, values):
        lines.insert(int(rng.integers(0, len(lines) + 1)), (f"The {name} is ", value))
    document = Segments()
    for text, value in lines:
        document.add(text, 0.2)
        if value is not None:
            document.add(value, 0.0).add(". ", 0.2)
    for index in rng.integers(0, n_pairs, n_questions):
        name, value = names[int(index)], values[int(index)]
        document.add(f"\n\nWhat is the {name}? The {name} is", 0.2)
        document.add(" " + value, ANSWER_WEIGHT).add(".", 1.0)
    return document
