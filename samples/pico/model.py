"""A Qwen2 decoder for training on a CPU, and its files in Hugging Face's form."""

import json
import struct

import torch
from torch import nn
from torch.nn import functional

BLOCK = 128  # rows of the attention matrix made at a time, so that they stay in the cache

SHAPE = {
    "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
}


class CausalAttention(torch.autograd.Function):
    """softmax(q·kᵀ)·v below the diagonal, by blocks of queries.

    q: [n, group, time, head_dim], already scaled; k, v: [n, time, head_dim]; n runs over batch and
    KV heads. Blocks above the diagonal are never computed.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        n, group, time, dim = q.shape
        out = torch.empty_like(q)
        block = min(BLOCK, time)
        mask = torch.full((block, block), float("-inf")).triu(1)
        probabilities = []
        for begin in range(0, time, block):
            end = begin + block
            rows = q[:, :, begin:end].reshape(n, group * block, dim)
            scores = torch.bmm(rows, k[:, :end].transpose(1, 2))
            scores.view(n, group, block, end)[..., begin:] += mask
            p = torch.softmax(scores, -1)
            out[:, :, begin:end] = torch.bmm(p, v[:, :end]).view(n, group, block, dim)
            probabilities.append(p)
        ctx.save_for_backward(q, k, v, *probabilities)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *probabilities = ctx.saved_tensors
        n, group, time, dim = q.shape
        block = min(BLOCK, time)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for p, begin in zip(probabilities, range(0, time, block)):
            end = begin + block
            rows = q[:, :, begin:end].reshape(n, group * block, dim)
            g = grad[:, :, begin:end].reshape(n, group * block, dim)
            grad_v[:, :end].baddbmm_(p.transpose(1, 2), g)
            dp = torch.bmm(g, v[:, :end].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            grad_q[:, :, begin:end] = torch.bmm(ds, k[:, :end]).view(n, group, block, dim)
            grad_k[:, :end].baddbmm_(ds.transpose(1, 2), rows)
        return grad_q, grad_k, grad_v


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rope_tables(shape, time):
    """cos and sin [time, head_dim / 2] of the angles of rotary position embedding."""
    half = shape["head_dim"] // 2
    rates = shape["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(time, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """Turns the pairs (i, i + head_dim / 2) of x [..., time, head_dim]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.n_kv, self.dim = shape["num_key_value_heads"], shape["head_dim"]
        self.group = shape["num_attention_heads"] // self.n_kv
        width, n_heads = shape["hidden_size"], shape["num_attention_heads"]
        self.q_proj = nn.Linear(width, n_heads * self.dim)
        self.k_proj = nn.Linear(width, self.n_kv * self.dim)
        self.v_proj = nn.Linear(width, self.n_kv * self.dim)
        self.o_proj = nn.Linear(n_heads * self.dim, width, bias=False)

    def forward(self, x, cos, sin):
        batch, time, _ = x.shape

        def heads(y):
            return y.view(batch, time, -1, self.dim).transpose(1, 2)

        q = rotate(heads(self.q_proj(x)), cos, sin) * self.dim**-0.5
        k = rotate(heads(self.k_proj(x)), cos, sin).reshape(-1, time, self.dim)
        v = heads(self.v_proj(x)).reshape(-1, time, self.dim)
        q = q.reshape(-1, self.group, time, self.dim)
        out = CausalAttention.apply(q, k, v)
        out = out.view(batch, -1, time, self.dim).transpose(1, 2).reshape(batch, time, -1)
        return self.o_proj(out)


class Mlp(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, inner = shape["hidden_size"], shape["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        eps = shape["rms_norm_eps"]
        self.input_layernorm = RmsNorm(shape["hidden_size"], eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RmsNorm(shape["hidden_size"], eps)
        self.mlp = Mlp(shape)

    def forward(self, x, cos, sin, dropped):
        x = x + dropped(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + dropped(self.mlp(self.post_attention_layernorm(x)))


class Qwen2(nn.Module):
    """Names of the parameters, after "model.", are those of Hugging Face's Qwen2."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape["vocab_size"], shape["hidden_size"])
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape["num_hidden_layers"]))
        self.norm = RmsNorm(shape["hidden_size"], shape["rms_norm_eps"])
        nn.init.normal_(self.embed_tokens.weight, std=0.06)
        residual_scale = (2 * shape["num_hidden_layers"]) ** -0.5
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.dim() == 2 and "embed" not in name:
                nn.init.normal_(weight, std=0.5 * weight.shape[1] ** -0.5)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.data *= residual_scale
        start_copying(self)

    def hidden(self, ids, drop_rates=None):
        """Normalized hidden states [batch, time, hidden] of ids [batch, time].

        drop_rates: dropout of each row [batch], on what the embedding and each part of a layer
        add; none without it.
        """
        cos, sin = rope_tables(self.shape, ids.shape[1])

        def dropped(x):
            if drop_rates is None:
                return x
            keep = 1 - drop_rates[:, None, None]
            return x * ((torch.rand(x.shape) < keep) / keep)

        x = dropped(self.embed_tokens(ids))
        for layer in self.layers:
            x = layer(x, cos, sin, dropped)
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed_tokens.weight.t()

    def losses(self, ids, targets, where, drop_rates=None):
        """Nats per token [n] for the positions `where` (flat indices) of a batch."""
        hidden = self.hidden(ids, drop_rates).flatten(0, 1)[where]
        return functional.cross_entropy(self.logits(hidden), targets.flatten()[where],
                                        reduction="none")


@torch.no_grad()
def start_copying(model):
    """Sets the attention of the first two layers so that it copies, badly, before training.

    "What followed this token when it was last seen?" takes a head that looks one token back and,
    in the layer above, one that finds what it wrote. From random weights the two take a large part
    of a short training to find each other (Olsson et al. 2022); from here on they are learnt like
    all else. For 8 heads over 4 KV heads whose sizes add up to the width.
    """
    first, second = (layer.self_attn for layer in model.layers[:2])
    look_back(first, rope_tables(model.shape, 8), (1, 2, 1, 3, 1, 2, 1, 4))
    width, dim = model.shape["hidden_size"], first.dim
    read, write, copy = (torch.linalg.qr(torch.randn(width, width))[0] for _ in range(3))
    first.v_proj.weight.copy_(read)
    first.o_proj.weight.mul_(0.3)
    k, q = second.k_proj.weight.view(-1, dim, width), second.q_proj.weight.view(-1, dim, width)
    second.k_proj.weight.mul_(0.3)
    second.q_proj.weight.mul_(0.3)
    second.v_proj.weight.copy_(copy)
    # Only lanes that turn slowly compare tokens alike at every distance.
    slow = torch.cat([torch.arange(dim // 4, dim // 2), torch.arange(3 * dim // 4, dim)])
    for kv in range(first.n_kv):
        rows = slice(dim * kv, dim * (kv + 1))
        first.o_proj.weight[:, 2 * dim * kv : dim * (2 * kv + 1)] = 0.06 * write[:, rows]
        k[kv, slow] = 4.0 * write[:, rows].t()[: len(slow)]
        for head in (2 * kv, 2 * kv + 1):
            q[head, slow] = 4.0 * read[rows][: len(slow)]
            second.o_proj.weight[:, dim * head : dim * (head + 1)] = 0.5 * copy[rows].t()


@torch.no_grad()
def look_back(attention, tables, distances, score=20.0, n_lanes=5):
    """Sets the biases so that head i attends to the token `distances[i]` before.

    Through rotary embedding the biases of q and k alone make the score of a distance d:
    score · mean cos((d - wanted)·rate) over the `n_lanes` fastest lanes, which leaves the wanted
    one 87 % of the attention.
    """
    cos, sin = tables
    half = attention.dim // 2
    size = (score / n_lanes) ** 0.5 * attention.dim**0.25
    attention.k_proj.bias.view(-1, 2, half)[:, 0, :n_lanes] = size
    bias = attention.q_proj.bias.view(-1, 2, half)
    for head, distance in enumerate(distances):
        bias[head, 0, :n_lanes] = size * cos[distance, :n_lanes]
        bias[head, 1, :n_lanes] = -size * sin[distance, :n_lanes]


def save_bf16(state, path):
    """Writes a state dict as a safetensors file in bf16, rounded half to even."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(state):
        tensor = state[name].detach().to(torch.bfloat16).contiguous()
        blob = tensor.view(torch.int16).numpy().astype("<i2").tobytes()
        header["model." + name] = {"dtype": "BF16", "shape": list(tensor.shape),
                                   "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def save_configs(shape, tokenizer, folder):
    """Writes config.json and generation_config.json."""
    stop = tokenizer.special["<|im_end|>"]
    end_of_text = tokenizer.special["<|endoftext|>"]
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **shape,
        "attention_dropout": 0.0, "bos_token_id": end_of_text, "eos_token_id": stop,
        "hidden_act": "silu", "initializer_range": 0.02, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
    }
    generation = {"bos_token_id": end_of_text, "do_sample": False,
                  "eos_token_id": [stop, end_of_text], "pad_token_id": end_of_text}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
