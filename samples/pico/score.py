"""What a trained model can do, by PyTorch: a second opinion on `llmq eval`.

    python3 score.py --model samples/pico --text pride_and_prejudice.txt

Prints the share of documents of 512 tokens whose answer is right throughout, and the nats per token
of a text in windows of 512.
"""

import argparse
import json
import struct

import numpy as np
import torch

from documents import (ANSWER_WEIGHT, json_document, named_document, passkey_document, random_uuid)
from model import Qwen2
from rows import fitting
from trigram import load_tokenizer

LENGTH = 512


def load_model(folder):
    """A model from the files that train.py writes, in float32."""
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        model = Qwen2(json.load(file))
    with open(f"{folder}/model.safetensors", "rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n_header))
        data = file.read()
    state = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            bits = np.frombuffer(data[begin:end], "<u2").astype(np.uint32) << 16
            state[name.removeprefix("model.")] = torch.from_numpy(
                bits.view(np.float32).reshape(entry["shape"]).copy())
    model.load_state_dict(state)
    return model


def kinds_of_documents():
    """{name: function of (rng, n units)} with the tokens of a unit and the fewest units."""
    return {
        "passkey": (lambda rng, n: passkey_document(rng, n, True), 10, 1),
        "uuid": (lambda rng, n: json_document(rng, n, 1, random_uuid, random_uuid), 68, 2),
        "4 pairs": (lambda rng, n: named_document(rng, 4, n, 1), 10, 0),
    }


@torch.no_grad()
def accuracy(model, tokenizer, kind, n_documents):
    """Share of fixed documents whose whole answer has the highest logits throughout."""
    make, per_unit, fewest = kind
    n_right = 0
    for seed in range(n_documents):
        ids, weights = fitting(lambda n, s=seed: make(np.random.default_rng(10**6 + s), n),
                               tokenizer, LENGTH, per_unit, fewest)
        padded = torch.from_numpy(np.pad(ids, (0, LENGTH - len(ids))))
        best = model.logits(model.hidden(padded[None]))[0].argmax(-1).numpy()
        asked = np.flatnonzero(weights == ANSWER_WEIGHT)
        n_right += bool((best[asked - 1] == ids[asked]).all())
    return n_right / n_documents


@torch.no_grad()
def mean_nll(model, ids, begins):
    """Nats per token, but for the first, of the windows of a text that begin there."""
    losses = []
    for begin in begins:
        row = torch.from_numpy(ids[begin : begin + LENGTH].astype(np.int64))[None]
        # All tokens go in, since attention takes whole blocks; the last one's target is not scored.
        targets = torch.cat([row[:, 1:], row[:, :1]], 1)
        losses.append(model.losses(row, targets, torch.arange(LENGTH - 1)).numpy())
    return float(np.concatenate(losses).astype(np.float64).mean())


def summary(model, tokenizer, text_ids, n_documents=24, n_windows=12):
    """A line with all of it; windows are spread over the text."""
    parts = [f"{name} {accuracy(model, tokenizer, kind, n_documents):.3f}"
             for name, kind in kinds_of_documents().items()]
    if text_ids is not None:
        begins = np.linspace(0, len(text_ids) - LENGTH, n_windows).astype(int)
        parts.append(f"held-out {mean_nll(model, text_ids, begins):.3f}")
    return ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--text", required=True, help="a text that it was not trained on")
    parser.add_argument("--documents", type=int, default=100, help="of each kind")
    parser.add_argument("--windows", type=int, default=98, help="from the text's beginning")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model(args.model), load_tokenizer(f"{args.model}/tokenizer.json")
    with open(args.text, encoding="utf-8") as file:
        ids = np.array(tokenizer.encode(file.read()))
    begins = range(0, min(args.windows * LENGTH, len(ids) - LENGTH + 1), LENGTH)
    print(summary(model, tokenizer, None, args.documents))
    print(f"{mean_nll(model, ids, begins):.6f} nats per token on {len(begins) * (LENGTH - 1)}")


if __name__ == "__main__":
    main()
