#!/usr/bin/python3
"""Writes a copy of a small Qwen2 model that computes the same and has outliers in its activations.

    make_outlier_model.py MODEL TEXT DESTINATION

Norm gains are folded into the linears that read the norms (and the head, untied from the embedding
for that), and the residual stream is rotated into the principal basis of what it holds on the text:
x' = x U with U the eigenvectors of the mean of xᵀx. RMSNorm without gains commutes with U, so the
logits are unchanged; the largest principal components become channels far above the others, and
since they are the stream's own directions, no scaling of channels alone takes them apart again.
Weights are written in float32. NumPy alone, float64.
"""

import json
import pathlib
import shutil
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tools"), str(HERE.parent.parent / "samples" / "pico")]

import safetensors_io
import tokenizer as pico_tokenizer

CONTEXT = 512


def floats(raw):
    """A stored tensor in float64."""
    if raw.dtype == "BF16":
        bits = np.frombuffer(raw.data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(raw.shape).astype(np.float64)
    kinds = {"F16": np.float16, "F32": np.float32}
    return np.frombuffer(raw.data, kinds[raw.dtype]).reshape(raw.shape).astype(np.float64)


def token_ids(model, text):
    document = json.loads((model / "tokenizer.json").read_text())
    table = pico_tokenizer.byte_characters()
    byte_of = {table[b]: b for b in range(256)}
    pairs = [
        tuple(bytes(byte_of[c] for c in side) for side in merge.split(" "))
        for merge in document["model"]["merges"]
    ]
    return pico_tokenizer.Tokenizer(pairs).encode(text)


class Decoder:
    """Qwen2 in float64; remembers the sum of xᵀx over the residual stream."""

    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        n = config["hidden_size"]
        self.moment = np.zeros((n, n))

    def norm(self, x, name):
        mean_square = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean_square + self.config["rms_norm_eps"]) * self.weights[name + ".weight"]

    def linear(self, x, name):
        bias = self.weights.get(name + ".bias", 0.0)
        return x @ self.weights[name + ".weight"].T + bias

    def rotate(self, x):
        half = x.shape[-1] // 2
        inverse = self.config["rope_theta"] ** (-np.arange(half) / half)
        angle = np.arange(x.shape[1])[:, None] * inverse
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, x, at):
        n_heads, n_kv = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        length = len(x)
        heads = lambda name, n: self.linear(x, f"{at}.{name}").reshape(length, n, -1).swapaxes(0, 1)
        q, k = self.rotate(heads("q_proj", n_heads)), self.rotate(heads("k_proj", n_kv))
        k, v = (np.repeat(y, n_heads // n_kv, 0) for y in (k, heads("v_proj", n_kv)))
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True)) @ v
        return self.linear(mixed.swapaxes(0, 1).reshape(length, -1), f"{at}.o_proj")

    def logits(self, ids):
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            self.moment += x.T @ x
            x = x + self.attention(self.norm(x, f"{at}.input_layernorm"), f"{at}.self_attn")
            self.moment += x.T @ x
            y = self.norm(x, f"{at}.post_attention_layernorm")
            gate = self.linear(y, f"{at}.mlp.gate_proj")
            up = self.linear(y, f"{at}.mlp.up_proj")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, f"{at}.mlp.down_proj")
        self.moment += x.T @ x
        return self.linear(self.norm(x, "model.norm"), "lm_head")


def rotated(weights, basis, n_layers):
    """The same function with gains folded and the stream in the columns of `basis`."""
    out = dict(weights)

    def read(norm, names):
        for name in names:
            gained = weights[name + ".weight"] * weights[norm + ".weight"]
            out[name + ".weight"] = gained @ basis
        out[norm + ".weight"] = np.ones_like(weights[norm + ".weight"])

    for layer in range(n_layers):
        at = f"model.layers.{layer}"
        read(f"{at}.input_layernorm", [f"{at}.self_attn.{p}_proj" for p in "qkv"])
        read(f"{at}.post_attention_layernorm", [f"{at}.mlp.{p}_proj" for p in ("gate", "up")])
        for name in (f"{at}.self_attn.o_proj", f"{at}.mlp.down_proj"):
            out[name + ".weight"] = basis.T @ weights[name + ".weight"]
            if name + ".bias" in weights:
                out[name + ".bias"] = weights[name + ".bias"] @ basis
    read("model.norm", ["lm_head"])
    out["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] @ basis
    return out


def main():
    model, text, destination = (pathlib.Path(a) for a in sys.argv[1:])
    config = json.loads((model / "config.json").read_text())
    weights = {k: floats(v) for k, v in safetensors_io.read_folder(model).items()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    ids = token_ids(model, text.read_text())
    decoder = Decoder(config, weights)
    windows = [ids[i : i + CONTEXT] for i in range(0, len(ids), CONTEXT)]
    before = [decoder.logits(window) for window in windows]
    values, basis = np.linalg.eigh(decoder.moment)
    after_weights = rotated(weights, basis, config["num_hidden_layers"])
    after = [Decoder(config, after_weights).logits(window) for window in windows]
    change = max(np.abs(a - b).max() for a, b in zip(before, after))
    if not change < 1e-9:
        sys.exit(f"the copy's logits differ by {change:.3g}")
    destination.mkdir(parents=True, exist_ok=True)
    for file in model.glob("*.json"):
        shutil.copy(file, destination / file.name)
    config.update(tie_word_embeddings=False, torch_dtype="float32")
    (destination / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: safetensors_io.Raw("F32", w.shape, w.astype("<f4").tobytes())
        for name, w in after_weights.items()
    }
    safetensors_io.write_file(destination / "model.safetensors", tensors)
    share = values[-1] / values.sum()
    print(f"{len(ids)} tokens; the first component holds {100 * share:.0f} % of the energy")


if __name__ == "__main__":
    main()
