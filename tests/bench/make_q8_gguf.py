#!/usr/bin/env python3
"""make_q8_gguf.py CONFIG_JSON OUT: a GGUF file of a model's shape with random weights in Q8_0.

The peer of `llmq bench --shape` for programs that read GGUF: run llama.cpp's llama-bench on it, with
the same threads. Qwen2, Qwen3 and Llama configurations with a tied head; there is no vocabulary, so
the file serves measurements of speed and nothing else. Needs Python's own modules alone.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""
import json
import pathlib
import random
import struct
import sys

UINT32, FLOAT32, STRING = 4, 6, 8  # types of metadata
F32, Q8_0 = 0, 8                   # types of tensors
ALIGNMENT = 32
BLOCK = 32                         # weights that share a scale in Q8_0


def text(word):
    return struct.pack("<Q", len(word)) + word.encode()


def entry(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", FLOAT32, value)
    return text(key) + struct.pack("<II", UINT32, value)


def metadata(config, head_dim):
    arch = config["model_type"]
    of_arch = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config["rope_theta"]),
        "vocab_size": config["vocab_size"],
    }
    entries = {"general.architecture": arch, "general.name": "random", "tokenizer.ggml.model": "no_vocab"}
    return {**entries, **{f"{arch}.{key}": value for key, value in of_arch.items()}}


def layer_tensors(config, head_dim):
    """(name, shape) of a layer's tensors; matrices are [outputs, inputs]."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    n_query = config["num_attention_heads"] * head_dim
    n_key = config["num_key_value_heads"] * head_dim
    tensors = [("attn_norm", [hidden]), ("attn_q", [n_query, hidden]), ("attn_k", [n_key, hidden]),
               ("attn_v", [n_key, hidden]), ("attn_output", [hidden, n_query]), ("ffn_norm", [hidden]),
               ("ffn_gate", [wide, hidden]), ("ffn_up", [wide, hidden]), ("ffn_down", [hidden, wide])]
    tensors = [(name + ".weight", shape) for name, shape in tensors]
    if config["model_type"] == "qwen2":
        tensors += [("attn_q.bias", [n_query]), ("attn_k.bias", [n_key]), ("attn_v.bias", [n_key])]
    if config["model_type"] == "qwen3":
        tensors += [("attn_q_norm.weight", [head_dim]), ("attn_k_norm.weight", [head_dim])]
    return tensors


def all_tensors(config, head_dim):
    tensors = [("token_embd.weight", [config["vocab_size"], config["hidden_size"]]),
               ("output_norm.weight", [config["hidden_size"]])]
    for layer in range(config["num_hidden_layers"]):
        tensors += [(f"blk.{layer}.{name}", shape) for name, shape in layer_tensors(config, head_dim)]
    return tensors


def padding(size):
    return b"\0" * (-size % ALIGNMENT)


def size_bytes(shape):
    return 4 * shape[0] if len(shape) == 1 else shape[0] * shape[1] // BLOCK * (2 + BLOCK)


def random_blocks(n_blocks=1 << 14):
    rng = random.Random(1)
    return b"".join(struct.pack("<e", 6e-4 * rng.random()) + rng.randbytes(BLOCK)
                    for _ in range(n_blocks))


def write(config, path):
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    entries = metadata(config, head_dim)
    tensors = all_tensors(config, head_dim)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    head += b"".join(entry(*item) for item in entries.items())
    offset = 0
    for name, shape in tensors:
        extents = struct.pack(f"<{len(shape)}Q", *reversed(shape))
        kind = F32 if len(shape) == 1 else Q8_0
        head += text(name) + struct.pack("<I", len(shape)) + extents + struct.pack("<IQ", kind, offset)
        offset += size_bytes(shape) + len(padding(size_bytes(shape)))
    blocks = random_blocks()
    with open(path, "wb") as out:
        out.write(head + padding(len(head)))
        for name, shape in tensors:
            size = size_bytes(shape)
            if len(shape) == 1:
                out.write(struct.pack("<f", 1.0 if "norm" in name else 0.01) * shape[0])
            else:
                for begin in range(0, size, len(blocks)):
                    out.write(blocks[:size - begin])
            out.write(padding(size))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    config = json.loads(pathlib.Path(sys.argv[1]).read_text())
    if config.get("model_type") not in ("llama", "qwen2", "qwen3"):
        sys.exit(f"{sys.argv[1]}: no configuration of a Qwen2, Qwen3 or Llama model")
    if not config.get("tie_word_embeddings"):
        sys.exit(f"{sys.argv[1]}: only models whose head is tied to the embedding are written")
    write(config, sys.argv[2])


if __name__ == "__main__":
    main()
