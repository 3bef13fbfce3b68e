"""Trains samples/pico: tokenizer, then model, on a book and on made-up texts.

    python3 train.py --text war_and_peace.txt --out samples/pico --work /tmp/pico

Needs PyTorch and NumPy. With the same seed, steps and versions of both the result is the same.
A checkpoint in --work is written every few minutes; --resume goes on from it.
"""

import argparse
import os
import time

import numpy as np
import torch

from documents import (ANSWER_WEIGHT, extra_counts, json_document, passkey_document, random_uuid,
                       named_document)
from model import SHAPE, Qwen2, save_bf16, save_configs
from optimizer import Optimizers
from rows import RowMaker, fitting
from tokenizer import Tokenizer, compile_pattern, read_book, with_straight_quotes

TOKENS_PER_STEP = 4096


def window_of(progress, rng):
    """The length of the rows of a step: short ones first, long ones now and then."""
    if progress < 0.051:
        return 128
    if progress < 0.1785:
        return 256
    if progress > 0.3 and rng.random() < 0.1:
        return int(2 ** rng.uniform(9, 11)) // 128 * 128
    return 512


def rate_scale(step, n_steps):
    """Warm-up, plateau, linear decay over the last 45 %."""
    return min(1.0, (step + 1) / 400, (n_steps - step) / (0.45 * n_steps))


@torch.no_grad()
def accuracy(model, tokenizer, make, per_unit, fewest, length=512, n=24):
    """Share of `n` fixed documents whose whole answer has the highest logits throughout."""
    rows = [fitting(make(np.random.default_rng(10**6 + i)), tokenizer, length, per_unit, fewest)
            for i in range(n)]
    n_right = 0
    for ids, weights in rows:
        padded = np.pad(ids, (0, length - len(ids)))
        best = model.logits(model.hidden(torch.from_numpy(padded)[None]))[0].argmax(-1).numpy()
        asked = np.flatnonzero(weights == ANSWER_WEIGHT)
        n_right += bool((best[asked - 1] == ids[asked]).all())
    return n_right / n


@torch.no_grad()
def mean_nll(model, ids, n_windows=12, length=512):
    """Nats per token on windows spread over a text."""
    total = 0.0
    for begin in np.linspace(0, len(ids) - length - 1, n_windows).astype(int):
        row = torch.from_numpy(ids[begin : begin + length + 1].astype(np.int64))
        where = torch.arange(length)
        total += model.losses(row[None, :-1], row[None, 1:], where).mean().item()
    return total / n_windows


def evaluate(model, tokenizer, held_out):
    """A line with what the model can do at 512 tokens."""
    passkey = accuracy(model, tokenizer, lambda r: lambda n: passkey_document(r, n, True), 10, 1)
    uuid = accuracy(model, tokenizer,
                    lambda r: lambda n: json_document(r, n, 1, random_uuid, random_uuid), 68, 2)
    named = accuracy(model, tokenizer, lambda r: lambda n: named_document(r, 4, n, 1), 10, 0)
    line = f"passkey {passkey:.2f} uuid {uuid:.2f} named {named:.2f}"
    return line + (f" held-out {mean_nll(model, held_out):.3f}" if held_out is not None else "")


class Training:
    """State of a run: model, its running mean, optimizers, random numbers."""

    def __init__(self, args, tokenizer, books):
        torch.manual_seed(args.seed)
        self.args, self.tokenizer = args, tokenizer
        self.model = Qwen2(SHAPE)
        self.mean = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizers = Optimizers(self.model, args.matrix_rate, args.other_rate)
        self.rows = RowMaker(tokenizer, books, args.seed)
        self.step = 0

    def run_step(self):
        progress = self.step / self.args.steps
        length = window_of(progress, self.rows.rng)
        ids, weights = self.rows.batch(max(1, TOKENS_PER_STEP // length), length, progress)
        weights = torch.from_numpy(weights[:, 1:].copy()).flatten()
        ids = torch.from_numpy(ids)
        where = weights.nonzero().flatten()
        losses = self.model.losses(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), where)
        loss = (losses * weights[where]).sum() / weights.sum()
        loss.backward()
        self.optimizers.step(rate_scale(self.step, self.args.steps))
        self.step += 1
        keep = min(0.998, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.mean[name].lerp_(value, 1 - keep)
        return loss.item(), length

    def save(self, path):
        state = {"model": self.model.state_dict(), "mean": self.mean, "step": self.step,
                 "muon": self.optimizers.muon.buffers,
                 "adam": self.optimizers.adam.state_dict(),
                 "rng": self.rows.rng.bit_generator.state}
        torch.save(state, path + ".new")
        os.replace(path + ".new", path)

    def load(self, path):
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.mean, self.step = state["mean"], state["step"]
        self.optimizers.muon.buffers = state["muon"]
        self.optimizers.adam.load_state_dict(state["adam"])
        self.rows.rng.bit_generator.state = state["rng"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--text", required=True, help="the book that is trained on")
    parser.add_argument("--held-out", help="a book whose loss is reported meanwhile")
    parser.add_argument("--out", required=True, help="folder of the model")
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=5800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--matrix-rate", type=float, default=0.015)
    parser.add_argument("--other-rate", type=float, default=0.003)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--stop-after", type=int, help="stop after this step, for trials")
    return parser.parse_args()


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    os.makedirs(args.work, exist_ok=True)
    os.makedirs(args.out, exist_ok=True)
    text = read_book(args.text)
    tokenizer = Tokenizer.train(text, extra_counts(compile_pattern()), SHAPE["vocab_size"])
    tokenizer.save(args.out, SHAPE["max_position_embeddings"])
    save_configs(SHAPE, tokenizer, args.out)
    books = [np.array(tokenizer.encode(form), np.uint16)
             for form in (text, with_straight_quotes(text))]
    held_out = np.array(tokenizer.encode(read_book(args.held_out))) if args.held_out else None
    print(f"{len(text)} characters, {len(books[0])} tokens", flush=True)
    training = Training(args, tokenizer, books)
    checkpoint = f"{args.work}/checkpoint.pt"
    if args.resume:
        training.load(checkpoint)
    began, first, recent = time.time(), training.step, []
    while training.step < min(args.steps, args.stop_after or args.steps):
        loss, length = training.run_step()
        recent.append(loss)
        if training.step % 50 == 0:
            per_step = (time.time() - began) / (training.step - first)
            print(f"step {training.step} window {length} loss {np.mean(recent):.3f} "
                  f"{per_step:.3f} s/step", flush=True)
            recent = []
        if training.step % 250 == 0:
            training.save(checkpoint)
            print("  ", evaluate(training.model, tokenizer, held_out), flush=True)
    training.save(checkpoint)
    final = training.model.state_dict() if training.step == args.steps else training.mean
    save_bf16(final, f"{args.out}/model.safetensors")


if __name__ == "__main__":
    main()
