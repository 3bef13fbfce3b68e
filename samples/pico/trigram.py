"""Nats per token of an interpolated trigram model, to compare the trained model with.

    python3 trigram.py --text war_and_peace.txt --held-out pride_and_prejudice.txt

Needs NumPy only. The tokens are those of tokenizer.json beside this file, and the scored ones are
those that `llmq eval --text HELD_OUT --context N --max-tokens M` scores.
"""

import argparse
import json
import os

import numpy as np

from tokenizer import Tokenizer, byte_characters, read_book, with_straight_quotes

# Weights of the orders are fitted per group of contexts that were seen about equally often.
COUNT_LIMITS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192])


def load_tokenizer(path):
    """A tokenizer from the file that Tokenizer.save() wrote."""
    with open(path, encoding="utf-8") as file:
        merges = json.load(file)["model"]["merges"]
    as_byte = {character: byte for byte, character in byte_characters().items()}
    return Tokenizer([tuple(bytes(as_byte[c] for c in part) for part in merge.split(" "))
                      for merge in merges])


class Counts:
    """How often each key of an array occurs."""

    def __init__(self, keys):
        self.keys, self.counts = np.unique(keys, return_counts=True)

    def of(self, keys):
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0)


class Trigram:
    """p = Σ_k w_k(context)·p_k over trigrams, bigrams, unigrams and the uniform distribution
    (Jelinek and Mercer 1980); the weights are fitted by EM on tokens that were not counted."""

    def __init__(self, counted, fitted, vocab_size):
        self.size = vocab_size
        self.n = [Counts(self.keys(counted, order)) for order in (1, 2, 3)]
        self.total = len(counted)
        self.weights = np.full((len(COUNT_LIMITS) + 1, len(COUNT_LIMITS) + 1, 4), 0.25)
        parts, groups = self.parts(fitted)
        for _ in range(30):
            share = parts * self.weights[groups]
            share /= share.sum(1, keepdims=True)
            sums = np.full_like(self.weights, 0.1)  # groups without tokens stay even
            np.add.at(sums, groups, share)
            self.weights = sums / sums.sum(-1, keepdims=True)

    def keys(self, ids, order):
        """One number for each run of `order` ids."""
        ids = ids.astype(np.int64)
        n = len(ids) - order + 1
        return sum(ids[i : i + n] * self.size ** (order - 1 - i) for i in range(order))

    def parts(self, ids):
        """Probabilities [n - 2, 4] of ids[2:] by order, and the groups of their contexts."""
        one, two, three = (self.n[i].of(self.keys(ids, i + 1))[2 - i :] for i in range(3))
        context1 = self.n[0].of(self.keys(ids, 1))[1:-1]
        context2 = self.n[1].of(self.keys(ids, 2))[:-1]
        parts = np.stack([np.full(len(one), 1 / self.size), one / self.total,
                          two / np.maximum(context1, 1), three / np.maximum(context2, 1)], 1)
        groups = tuple(np.searchsorted(COUNT_LIMITS, c, side="right") for c in (context1, context2))
        return parts, groups

    def nats(self, ids):
        """Nats for each of ids[2:]."""
        parts, groups = self.parts(ids)
        return -np.log((parts * self.weights[groups]).sum(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--text", required=True, help="the book that is counted")
    parser.add_argument("--held-out", required=True, help="the book that is scored")
    parser.add_argument("--straight", action="store_true",
                        help="count the form with straight quotation marks")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=50000)
    args = parser.parse_args()
    tokenizer = load_tokenizer(os.path.join(os.path.dirname(__file__), "tokenizer.json"))
    text = read_book(args.text)
    counted = np.array(tokenizer.encode(with_straight_quotes(text) if args.straight else text))
    n_fitted = len(counted) // 20
    model = Trigram(counted[:-n_fitted], counted[-n_fitted:], tokenizer.size)
    with open(args.held_out, encoding="utf-8") as file:
        scored = np.array(tokenizer.encode(file.read()))
    # The first token of a window is not scored; the second has the trigram's context even so.
    where = np.arange(2, len(scored))
    where = where[where % args.context != 0][: args.max_tokens]
    nats = model.nats(scored)[where - 2]
    print(f"{nats.mean():.4f} nats per token on {len(nats)} tokens")


if __name__ == "__main__":
    main()
