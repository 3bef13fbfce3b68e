"""Rows of one length for a stage of the training, mixed from the three sources."""

from functools import partial

import numpy as np

from documents import (ANSWER_WEIGHT, Segments, json_document, named_document, passkey_document,
                       random_hex, random_uuid, repeated_row, two_words)

# Steps at which stages of the training begin: rows of 256 and of 512 tokens; fewer repetitions,
# more of what is still hard and some longer rows; the second form of the book.
MEDIUM_STEP, LONG_STEP, LATE_STEP, STRAIGHT_STEP = 296, 1036, 1740, 1750
DROPOUT_STEP = 2500  # from here on the book has been read often enough to be learnt by heart
UUID_STEPS = 1850  # UUIDs become the more frequent until three quarters of this


def row_length(step, rng):
    """The length of the rows of a step: short ones first, long ones now and then."""
    if step < LONG_STEP:
        return 128 if step < MEDIUM_STEP else 256
    if step > LATE_STEP and rng.random() < 0.1:
        return int(2 ** rng.uniform(9, 11)) // 128 * 128
    return 512


def fitting(make, tokenizer, length, per_unit, fewest, frame=0):
    """Encodes make(n) with about the largest n >= fewest at which it has at most `length` tokens.

    A unit has about `per_unit` tokens, the rest about `frame`. What does not fit even with the
    fewest units is cut off.
    """
    n = max(fewest, int((length - frame) / per_unit))
    while True:
        ids, weights = make(n).encode(tokenizer)
        if len(ids) <= length or n == fewest:
            return ids[:length], weights[:length]
        n = max(fewest, n - max(1, int((len(ids) - length) / per_unit)))


def chat_form(document):
    """A document as a turn of the user up to its first answer, and one of the assistant."""
    first = next(i for i, (_, w) in enumerate(document.parts) if w == ANSWER_WEIGHT)
    asked, answered = Segments(), Segments()
    asked.parts = document.parts[:first]
    answered.parts = document.parts[first:]
    text, weight = answered.parts[0]
    answered.parts[0] = (text.lstrip(" "), weight)
    return asked, answered


class ChatDocument:
    """Encodes chat_form() of a document."""

    def __init__(self, document):
        self.asked, self.answered = chat_form(document)

    def encode(self, tokenizer):
        begin, end = tokenizer.special["<|im_start|>"], tokenizer.special["<|im_end|>"]

        def plain(text, weight):
            ids = tokenizer.encode(text)
            return ids, [weight] * len(ids)

        parts = [([begin], [0.2]), plain("user\n", 0.2), self.asked.encode(tokenizer),
                 ([end], [0.2]), plain("\n", 0.2), ([begin], [1.0]), plain("assistant\n", 1.0),
                 self.answered.encode(tokenizer), ([end], [1.0]), plain("\n", 1.0)]
        return (np.concatenate([np.array(ids, np.int64) for ids, _ in parts]),
                np.concatenate([np.array(weights, np.float32) for _, weights in parts]))


class RowMaker:
    """Makes rows of `length` + 1 tokens. The mixture changes with the steps.

    books: ids of the book and of the same book with straight quotation marks, which joins later.
    """

    def __init__(self, tokenizer, books, seed):
        self.tokenizer, self.books = tokenizer, books
        self.step = 0
        self.rng = np.random.default_rng(seed)

    def batch(self, n_rows, length, step):
        """(ids, weights, is_book): twice [n_rows, length + 1], and [n_rows]."""
        self.step = step
        repeats = 0.40 if step < MEDIUM_STEP else 0.15 if step < LATE_STEP else 0.05
        documents = 0.40 if step < LATE_STEP else 0.30
        kinds = self.rng.random(n_rows)
        rows = []
        for kind in kinds:
            if kind < repeats:
                rows.append(repeated_row(self.rng, self.tokenizer, length + 1))
            elif kind < repeats + documents:
                rows.append(self.document_row(length + 1))
            else:
                rows.append(self.book_row(length + 1))
        return (np.stack([ids for ids, _ in rows]), np.stack([weights for _, weights in rows]),
                kinds >= repeats + documents)

    def book_window(self, length):
        which = int(self.rng.integers(0, len(self.books))) if self.step >= STRAIGHT_STEP else 0
        book = self.books[which]
        begin = int(self.rng.integers(0, len(book) - length))
        return book[begin : begin + length].astype(np.int64)

    def book_row(self, length):
        ids = self.book_window(length)
        weights = np.ones(length, np.float32)
        if self.rng.random() < 0.05:
            head, middle, tail = self.chat_frame()
            cut = length // 2
            ids[: len(head)], weights[: len(head)] = head, 0.2
            ids[cut : cut + len(middle)], weights[cut : cut + len(middle)] = middle, 0.2
            ids[length - len(tail) :] = tail
        return ids, weights

    def chat_frame(self):
        """Tokens around a passage of the user and its continuation by the assistant."""
        begin, end = self.tokenizer.special["<|im_start|>"], self.tokenizer.special["<|im_end|>"]
        encode = self.tokenizer.encode
        return ([begin, *encode("user\nContinue the text.\n\n")],
                [end, *encode("\n"), begin, *encode("assistant\n")], [end, *encode("\n")])

    def document_row(self, length):
        """A document at the row's beginning, or after a piece of the book."""
        rng = self.rng
        room = length if rng.random() < 0.5 else int(
            rng.uniform(max(0.4, min(1.0, 110 / length)), 1.0) * length)
        ids, weights = self.document(room)
        end = self.tokenizer.special["<|endoftext|>"]
        n_left = length - len(ids)
        if room == length or n_left < 2:
            return (np.concatenate([ids, np.full(n_left, end)]),
                    np.concatenate([weights, np.zeros(n_left, np.float32)]))
        before = self.book_window(length)[: n_left - 1]
        return (np.concatenate([before, [end], ids]),
                np.concatenate([np.ones(n_left - 1, np.float32), [np.float32(0)], weights]))

    def document(self, room):
        rng, wrap = self.rng, (ChatDocument if self.rng.random() < 0.08 else lambda d: d)
        kind = rng.random()
        # Numbers are soon found; long keys are not.
        passkeys, named = (0.35, 0.20) if self.step < LATE_STEP else (0.20, 0.15)
        if kind < passkeys:
            is_plain = rng.random() < 0.6
            return fitting(lambda n: wrap(passkey_document(rng, n, is_plain)), self.tokenizer,
                           room, 10.0, 1, 50)
        if kind < passkeys + named:
            n_questions = int(rng.integers(1, 4)) if room > 150 else 1
            n_pairs = min(int(rng.integers(1, 9)), max(1, (room - 24 * n_questions) // 16))
            return fitting(lambda n: wrap(named_document(rng, n_pairs, n, n_questions)),
                           self.tokenizer, room, 10.0, 0, 14 * n_pairs + 22 * n_questions)
        return self.json(room, wrap)

    def json(self, room, wrap):
        """Pairs of UUIDs, or of shorter strings: the shorter the earlier in the training."""
        rng = self.rng
        n_questions = int(rng.integers(1, 4))
        form = rng.random()
        if room >= 250 and form < min(0.75, self.step / UUID_STEPS):
            make_key = make_value = random_uuid
            per_pair = 68
            n_questions = min(n_questions, 1 if room < 400 else 2)
        else:
            n_key, n_value = int(rng.integers(5, 13)), int(rng.integers(4, 17))
            make_key = partial(random_hex, n=n_key)
            if rng.random() < 0.4:
                make_value, n_value = two_words, 2
            else:
                make_value = partial(random_hex, n=n_value)
            per_pair = n_key + n_value + 4
            n_questions = min(n_questions, max(1, room // (4 * per_pair)))
        frame = 30 + n_questions * (per_pair + 14)
        n_most = max(2, int((room - frame) / per_pair))
        n_pairs = n_most if rng.random() < 0.5 else int(rng.integers(2, n_most + 1))
        return fitting(lambda n: wrap(json_document(rng, n, n_questions, make_key, make_value)),
                       self.tokenizer, min(room, frame + n_pairs * per_pair), per_pair, 2, frame)
