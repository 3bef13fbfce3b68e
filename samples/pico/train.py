"""Trains samples/pico: tokenizer, then model, on a book and on made-up texts.

    python3 train.py --text war_and_peace.txt --out samples/pico --work /tmp/pico

Needs PyTorch and NumPy. A checkpoint in --work is written every 250 steps; --resume goes on from
it. What is trained on depends on the seed and the step alone; --steps says when the rate has fallen
to zero. README.md has the commands that made the model.
"""

import argparse
import os
import time

import numpy as np
import torch

from documents import extra_counts
from model import SHAPE, Qwen2, save_bf16, save_configs
from optimizer import Optimizers
from rows import DROPOUT_STEP, RowMaker, row_length
from score import summary
from tokenizer import Tokenizer, compile_pattern, read_book, with_straight_quotes

TOKENS_PER_STEP = 4096


def rate_scale(step, n_steps):
    """Warm-up, plateau, linear decay over the last 45 %."""
    return min(1.0, (step + 1) / 400, (n_steps - step) / (0.45 * n_steps))


class Training:
    """State of a run: model, its running mean (and that of DROPOUT_STEP), optimizers, numbers."""

    def __init__(self, args, tokenizer, books):
        torch.manual_seed(args.seed)
        self.args, self.tokenizer = args, tokenizer
        self.model = Qwen2(SHAPE)
        self.mean = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizers = Optimizers(self.model, args.matrix_rate, args.other_rate)
        self.rows = RowMaker(tokenizer, books, args.seed)
        self.step = 0
        self.early = None

    def run_step(self):
        length = row_length(self.step, self.rows.rng)
        ids, weights, is_book = self.rows.batch(max(1, TOKENS_PER_STEP // length), length,
                                                self.step)
        weights = torch.from_numpy(weights[:, 1:].copy()).flatten()
        ids = torch.from_numpy(ids)
        where = weights.nonzero().flatten()
        torch.manual_seed(self.step)
        drop_rates = None
        if self.step >= DROPOUT_STEP:
            drop_rates = torch.from_numpy(is_book) * self.args.book_dropout
        losses = self.model.losses(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), where,
                                   drop_rates)
        loss = (losses * weights[where]).sum() / weights.sum()
        loss.backward()
        self.optimizers.step(rate_scale(self.step, self.args.steps))
        self.step += 1
        keep = min(0.998, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.mean[name].lerp_(value, 1 - keep)
        if self.step == DROPOUT_STEP:
            self.early = {name: value.clone() for name, value in self.mean.items()}
        return loss.item(), length

    def save(self, path):
        state = {"model": self.model.state_dict(), "mean": self.mean, "early": self.early,
                 "step": self.step,
                 "muon": self.optimizers.muon.buffers,
                 "adam": self.optimizers.adam.state_dict(),
                 "rng": self.rows.rng.bit_generator.state}
        torch.save(state, path + ".new")
        os.replace(path + ".new", path)

    def result(self):
        """The mean of the weights around now and, once there are such, around DROPOUT_STEP.

        The former were trained longer, the latter know less of the book by heart; half-way between
        them the model is better than either on what it has not seen.
        """
        if self.early is None:
            return self.mean
        return {name: value.lerp(self.early[name], 0.5) for name, value in self.mean.items()}

    def load(self, path):
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.mean, self.early, self.step = state["mean"], state["early"], state["step"]
        self.optimizers.muon.buffers = state["muon"]
        self.optimizers.adam.load_state_dict(state["adam"])
        self.rows.rng.bit_generator.state = state["rng"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--text", required=True, help="the book that is trained on")
    parser.add_argument("--held-out", help="a book whose loss is reported meanwhile")
    parser.add_argument("--out", required=True, help="folder of the model")
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--matrix-rate", type=float, default=0.015)
    parser.add_argument("--other-rate", type=float, default=0.003)
    parser.add_argument("--book-dropout", type=float, default=0.1)
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
            print("  ", summary(training.model, tokenizer, held_out), flush=True)
    training.save(checkpoint)
    save_bf16(training.result(), f"{args.out}/model.safetensors")


if __name__ == "__main__":
    main()
