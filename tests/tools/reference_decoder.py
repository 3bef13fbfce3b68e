"""A decoder of the qwen, qwen2, qwen3 (dense and MoE), llama and mistral families in PyTorch, for golden values.

Written from the papers (RoPE arXiv 2104.09864, position interpolation 2306.15595, YaRN 2309.00071,
RMSNorm 1910.07467, SwiGLU 2002.05202, grouped queries 2305.13245) and from the configurations that
models are published with; it shares no code with the library under test. Slow and plain on purpose.
"""

import math
from typing import Dict, List, NamedTuple, Tuple

import torch

from safetensors_io import Raw

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class Variant(NamedTuple):
    """Deliberate mistakes of the computation, for the self-test; the default makes none."""

    interleaved_rope: bool = False
    no_qk_norm: bool = False
    qk_norm_after_rope: bool = False
    no_attention_bias: bool = False
    no_mlp_bias: bool = False
    attention_factor_once: bool = False
    kv_head_by_modulo: bool = False
    scores_by_hidden_per_head: bool = False
    swapped_gate_and_up: bool = False
    other_topk_norm: bool = False
    one_expert_less: bool = False
    no_shared_expert: bool = False
    no_shared_switch: bool = False
    no_window: bool = False
    window_one_longer: bool = False
    window_in_every_layer: bool = False


class Outcome(NamedTuple):
    """A forward pass: logits [t, vocab]; hidden: [t, hidden] after embedding, each layer, norm."""

    logits: torch.Tensor
    hidden: List[torch.Tensor]


# ---- arithmetic in a stated order ---------------------------------------------------------------
# Sums run over k one term at a time, so that results depend on no library's blocking. The float32
# pass runs in both directions; the larger of the two errors is reported.


def product(a: torch.Tensor, b: torch.Tensor, backward: bool) -> torch.Tensor:
    """[..., n, k] x [..., k, m] -> [..., n, m], summed in the order of k (or against it)."""
    steps = range(a.shape[-1] - 1, -1, -1) if backward else range(a.shape[-1])
    total = None
    for k in steps:
        term = a[..., :, k, None] * b[..., k, None, :]
        total = term if total is None else total + term
    return total


def exponential(x: torch.Tensor) -> torch.Tensor:
    """exp rounded once to the dtype of x."""
    return torch.exp(x.double()).to(x.dtype)


def root_mean_square_norm(x, weight, epsilon: float, backward: bool) -> torch.Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis."""
    ones = torch.ones(x.shape[-1], 1, dtype=x.dtype)
    mean = product(x * x, ones, backward) / x.shape[-1]
    return x / torch.sqrt(mean + epsilon) * weight


# ---- rotary embedding ---------------------------------------------------------------------------


def rope_parameters(config: Dict) -> Dict:
    """The scaling object under whichever key, with kind and theta filled in."""
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    scaling["rope_type"] = scaling.get("rope_type", scaling.get("type", "default"))
    theta = config.get("rope_theta", 10000.0)
    scaling["rope_theta"] = float(scaling.get("rope_theta", theta))
    scaling.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    return scaling


def rope_frequencies(config: Dict, head_dim: int) -> Tuple[List[float], float]:
    """Inverse frequency of each of the head_dim/2 pairs, and the factor on cos and sin."""
    rope = rope_parameters(config)
    theta, kind = rope["rope_theta"], rope["rope_type"]
    plain = [theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    original = rope["original_max_position_embeddings"]
    if kind == "default":
        return plain, 1.0
    factor = float(rope["factor"])
    if kind == "linear":
        return [f / factor for f in plain], 1.0
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        return [llama3_frequency(f, factor, low, high, original) for f in plain], 1.0
    if kind != "yarn":
        raise ValueError(f"rope_type {kind} is not implemented here")

    def dimension(turns: float) -> float:
        """The (fractional) pair that makes so many turns within the original length."""
        return head_dim * math.log(original / (2.0 * math.pi * turns)) / (2.0 * math.log(theta))

    first, last = dimension(rope.get("beta_fast", 32.0)), dimension(rope.get("beta_slow", 1.0))
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first if last != first else 0.001
    scaled = []
    for i, frequency in enumerate(plain):
        ramp = min(max((i - first) / width, 0.0), 1.0)
        scaled.append(ramp * frequency / factor + (1.0 - ramp) * frequency)
    temperature = 0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0
    attention_factor = rope.get("attention_factor")
    attention_factor = temperature if attention_factor is None else float(attention_factor)
    return scaled, attention_factor


def llama3_frequency(plain: float, factor, low, high, original) -> float:
    """Llama 3.1: short waves kept, long ones divided by factor, a linear blend between."""
    wave = 2.0 * math.pi / plain
    if wave < original / high:
        return plain
    if wave > original / low:
        return plain / factor
    blend = (original / wave - low) / (high - low)
    return (1.0 - blend) * plain / factor + blend * plain


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool):
    """x [heads, t, d]; cos, sin [t, d/2]. Pairs are (i, i + d/2), or (2i, 2i+1)."""
    half = x.shape[-1] // 2
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


# ---- what a family calls things ------------------------------------------------------------------

FAMILIES = ("qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "llama", "mistral")

# Modules of the first Qwen under the names that all others use.
QWEN_MODULES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.gate_proj": "mlp.w2",
    "mlp.up_proj": "mlp.w1",
    "mlp.down_proj": "mlp.c_proj",
}


def canonical_config(config: Dict) -> Dict:
    """The first Qwen's keys under the names that all others use; other configurations as is."""
    if config["model_type"] != "qwen":
        return config
    return {
        **config,
        "head_dim": config["kv_channels"],
        "hidden_act": "silu",
        "intermediate_size": config["intermediate_size"] // 2,
        "max_position_embeddings": config["seq_length"],
        "rms_norm_eps": config["layer_norm_epsilon"],
        "rope_theta": config["rotary_emb_base"],
    }


def canonical_weights(config: Dict, weights: Dict) -> Dict:
    """The first Qwen's tensors under the names that all others use, its fused matrix cut in three.

    Embedding models are published without the "model." that names begin with; it is put back.
    """
    if "norm.weight" in weights:
        return {f"model.{name}": weight for name, weight in weights.items()}
    if config["model_type"] != "qwen":
        return weights
    out = {"lm_head.weight": weights["lm_head.weight"]}
    for name in ("model.embed_tokens", "model.norm"):
        out[f"{name}.weight"] = weights[f"{QWEN_MODULES[name]}.weight"]
    for layer in range(config["num_hidden_layers"]):
        old, new = f"transformer.h.{layer}", f"model.layers.{layer}"
        for name, its in QWEN_MODULES.items():
            if not name.startswith("model."):
                out[f"{new}.{name}.weight"] = weights[f"{old}.{its}.weight"]
        for kind in ("weight", "bias"):
            parts = weights[f"{old}.attn.c_attn.{kind}"].chunk(3)
            for letter, part in zip("qkv", parts):
                out[f"{new}.self_attn.{letter}_proj.{kind}"] = part
    return out


def window_of(config: Dict, layer: int) -> int:
    """Tokens that a position of the layer sees, itself counted; 0 for all before it."""
    types, window = config.get("layer_types"), config.get("sliding_window")
    if types is not None:
        return window if types[layer] == "sliding_attention" else 0
    if not config["model_type"].startswith("qwen"):
        return window or 0
    if not config.get("use_sliding_window") or window is None:
        return 0
    return window if layer >= config["max_window_layers"] else 0


def has_experts(config: Dict, layer: int) -> bool:
    if not config["model_type"].endswith("_moe") or layer in config.get("mlp_only_layers", []):
        return False
    return (layer + 1) % config.get("decoder_sparse_step", 1) == 0


# ---- the model ----------------------------------------------------------------------------------


class Model:
    """A decoder of one of FAMILIES, computed in `dtype` throughout."""

    def __init__(self, config: Dict, raw: Dict, dtype=torch.float64, backward=False):
        family = config["model_type"]
        if family not in FAMILIES:
            raise ValueError(f"model_type {family} is not implemented here")
        weights = {name: to_tensor(tensor).to(dtype) for name, tensor in raw.items()}
        weights = canonical_weights(config, weights)
        config = canonical_config(config)
        self.config, self.dtype, self.backward = config, dtype, backward
        self.family = family
        # How far the last expert chosen led the first one not chosen, over all tokens so far.
        self.routing_gap = math.inf
        if config["hidden_act"] != "silu":
            raise ValueError(f"hidden_act {config['hidden_act']} is not implemented here")
        self.n_heads = config["num_attention_heads"]
        self.n_kv_heads = config.get("num_key_value_heads") or self.n_heads
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.n_heads
        self.weights = weights
        self.transposed = {
            name: w.T.contiguous() for name, w in self.weights.items() if w.dim() == 2
        }

    def linear(self, x: torch.Tensor, name: str, has_bias: bool) -> torch.Tensor:
        y = product(x, self.transposed[f"{name}.weight"], self.backward)
        bias = self.weights.get(f"{name}.bias")
        if bias is None or not has_bias:
            return y
        return y + bias

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        epsilon = self.config.get("rms_norm_eps", 1e-6)
        return root_mean_square_norm(x, self.weights[f"{name}.weight"], epsilon, self.backward)

    def rope_tables(self, length: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [length, head_dim/2], the attention factor multiplied in."""
        frequencies, factor = rope_frequencies(self.config, self.head_dim)
        inverse = torch.tensor(frequencies, dtype=torch.float64).to(self.dtype)
        angles = torch.arange(length, dtype=self.dtype)[:, None] * inverse[None, :]
        cos = torch.cos(angles.double()).to(self.dtype)
        sin = torch.sin(angles.double()).to(self.dtype)
        return cos * factor, sin * factor

    def attention(self, x, at: str, tables, window: int, variant: Variant) -> torch.Tensor:
        length, group = x.shape[0], self.n_heads // self.n_kv_heads
        biased = not variant.no_attention_bias

        def heads(name: str, count: int) -> torch.Tensor:
            y = self.linear(x, f"{at}.{name}_proj", biased)
            return y.reshape(length, count, self.head_dim).transpose(0, 1)

        q, k = heads("q", self.n_heads), heads("k", self.n_kv_heads)
        v = heads("v", self.n_kv_heads)
        normed = self.family in ("qwen3", "qwen3_moe") and not variant.no_qk_norm
        steps = ["norm", "rope"] if normed else ["rope"]
        for step in reversed(steps) if variant.qk_norm_after_rope else steps:
            if step == "norm":
                q = self.norm(q, f"{at}.q_norm")
                k = self.norm(k, f"{at}.k_norm")
            else:
                q = rotate(q, *tables, variant.interleaved_rope)
                if variant.attention_factor_once:
                    q = q / rope_frequencies(self.config, self.head_dim)[1]
                k = rotate(k, *tables, variant.interleaved_rope)
        owner = [
            h % self.n_kv_heads if variant.kv_head_by_modulo else h // group
            for h in range(self.n_heads)
        ]
        k, v = k[owner], v[owner]
        width = self.head_dim
        if variant.scores_by_hidden_per_head:
            width = self.config["hidden_size"] // self.n_heads
        scores = product(q, k.transpose(1, 2), self.backward) / math.sqrt(width)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
        if window > 0:
            past = torch.ones(length, length, dtype=torch.bool).tril(-window)
            scores = scores.masked_fill(past, -math.inf)
        e = exponential(scores - scores.amax(-1, keepdim=True))
        p = e / product(e, torch.ones(length, 1, dtype=e.dtype), self.backward)
        mixed = product(p, v, self.backward).transpose(0, 1).reshape(length, -1)
        return self.linear(mixed, f"{at}.o_proj", biased)

    def feed_forward(self, x: torch.Tensor, at: str, variant: Variant) -> torch.Tensor:
        biased = not variant.no_mlp_bias
        gate = self.linear(x, f"{at}.gate_proj", biased)
        gate = gate / (1.0 + exponential(-gate))
        if variant.swapped_gate_and_up:
            gate = self.linear(x, f"{at}.up_proj", biased)
            gate = gate / (1.0 + exponential(-gate))
            up = self.linear(x, f"{at}.gate_proj", biased)
            return self.linear(gate * up, f"{at}.down_proj", biased)
        up = self.linear(x, f"{at}.up_proj", biased)
        return self.linear(gate * up, f"{at}.down_proj", biased)

    def routing(self, x: torch.Tensor, at: str, variant: Variant):
        """Experts [t, k] of every token and their weights, the most probable first."""
        n_chosen = self.config["num_experts_per_tok"] - int(variant.one_expert_less)
        logits = self.linear(x, f"{at}.gate", False)
        e = exponential(logits - logits.amax(-1, keepdim=True))
        p = e / product(e, torch.ones(e.shape[-1], 1, dtype=e.dtype), self.backward)
        weights, experts = torch.topk(p, n_chosen, dim=-1)
        if n_chosen < p.shape[-1]:
            ranked = p.sort(-1, descending=True).values
            gap = (ranked[:, n_chosen - 1] - ranked[:, n_chosen]).min().item()
            self.routing_gap = min(self.routing_gap, gap)
        if self.config.get("norm_topk_prob", False) != variant.other_topk_norm:
            ones = torch.ones(n_chosen, 1, dtype=e.dtype)
            weights = weights / product(weights, ones, self.backward)
        return experts, weights

    def mixture(self, x: torch.Tensor, at: str, variant: Variant) -> torch.Tensor:
        """Every token by itself, through the experts that it is routed to."""
        experts, weights = self.routing(x, at, variant)
        rows = []
        for token in range(x.shape[0]):
            row = x[token : token + 1]
            total = torch.zeros_like(row)
            for expert, weight in zip(experts[token].tolist(), weights[token]):
                y = self.feed_forward(row, f"{at}.experts.{expert}", variant)
                total = total + weight * y
            rows.append(total)
        total = torch.cat(rows)
        if self.family == "qwen2_moe" and not variant.no_shared_expert:
            switch = self.linear(x, f"{at}.shared_expert_gate", False)
            switch = 1.0 / (1.0 + exponential(-switch))
            if variant.no_shared_switch:
                switch = torch.ones_like(switch)
            total = total + switch * self.feed_forward(x, f"{at}.shared_expert", variant)
        return total

    def window(self, layer: int, variant: Variant) -> int:
        window = window_of(self.config, layer)
        if variant.window_in_every_layer:
            window = self.config["sliding_window"]
        if variant.no_window:
            return 0
        return window + 1 if window and variant.window_one_longer else window

    def forward(self, ids: List[int], variant: Variant = Variant()) -> Outcome:
        tables = self.rope_tables(len(ids))
        x = self.weights["model.embed_tokens.weight"][ids]
        hidden = [x]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            normed = self.norm(x, f"{at}.input_layernorm")
            x = x + self.attention(normed, f"{at}.self_attn", tables, self.window(layer, variant), variant)
            normed = self.norm(x, f"{at}.post_attention_layernorm")
            if has_experts(self.config, layer):
                x = x + self.mixture(normed, f"{at}.mlp", variant)
            else:
                x = x + self.feed_forward(normed, f"{at}.mlp", variant)
            hidden.append(x)
        x = self.norm(x, "model.norm")
        hidden.append(x)
        tied = self.config.get("tie_word_embeddings", False)
        head = "model.embed_tokens" if tied else "lm_head"
        return Outcome(self.linear(x, head, False), hidden)


def to_tensor(raw: Raw) -> torch.Tensor:
    """The values of a stored tensor in its own dtype."""
    return torch.frombuffer(bytearray(raw.data), dtype=TORCH_DTYPES[raw.dtype]).reshape(raw.shape)
