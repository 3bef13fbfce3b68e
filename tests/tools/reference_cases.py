"""The tiny random-weight models behind tests/golden: configurations, weights and prompts.

Every weight comes from raw 64-bit outputs of PCG64, seeded by the case's seed and the tensor's
name, and is uniform; so a file's bytes depend on neither the order of tensors, nor the machine.
"""

import zlib
from typing import Dict, List, NamedTuple, Optional

import numpy as np
import torch

from reference_decoder import has_experts
from safetensors_io import Raw

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
RAW_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Case(NamedTuple):
    """One tiny model. `every_position`: store the short prompt's logits at every position.

    `is_embedder`: stored as embedding models are published, without a head and without the
    "model." that the names of tensors begin with.
    """

    name: str
    seed: int
    config: Dict
    short_length: int
    long_length: int
    every_position: bool = False
    is_embedder: bool = False


def _config(architecture: str, model_type: str, dtype: str, /, **keys) -> Dict:
    """The keys that all these families' config.json share; a value of ... removes a key."""
    config = {
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 128,
        "model_type": model_type,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    config.update(keys)
    return {key: config[key] for key in sorted(config) if config[key] is not ...}


def _qwen2(dtype: str, /, **keys) -> Dict:
    window = {"use_sliding_window": False, "sliding_window": 128, "max_window_layers": 2}
    base = {"rope_theta": 1000000.0, **window}
    return _config("Qwen2ForCausalLM", "qwen2", dtype, **{**base, **keys})


def _qwen3(dtype: str, /, **keys) -> Dict:
    window = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 2}
    base = {"attention_bias": False, "rope_theta": 1000000, **window}
    return _config("Qwen3ForCausalLM", "qwen3", dtype, **{**base, **keys})


def _llama(dtype: str, /, **keys) -> Dict:
    base = {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
    base.update(rms_norm_eps=1e-05, rope_theta=10000.0)
    return _config("LlamaForCausalLM", "llama", dtype, **{**base, **keys})


def _moe(experts: int, chosen: int, inner: int, **keys) -> Dict:
    base = {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": False,
        "num_experts": experts,
        "num_experts_per_tok": chosen,
        "moe_intermediate_size": inner,
    }
    return {**base, **keys}


def _qwen(dtype: str, hidden: int, inner: int, layers: int, heads: int, vocab: int) -> Dict:
    """The first Qwen's keys; intermediate_size counts w1 and w2 together."""
    return {
        "architectures": ["QWenLMHeadModel"],
        "eos_token_id": 2,
        "hidden_size": hidden,
        "intermediate_size": 2 * inner,
        "kv_channels": hidden // heads,
        "layer_norm_epsilon": 1e-06,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "rotary_emb_base": 5000.0,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": 96,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "vocab_size": vocab,
    }


def _sizes(hidden, intermediate, layers, heads, kv_heads, vocab) -> Dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }


# Original lengths are chosen so that the ramps of yarn and llama3 have a pair in each of their
# three zones, and so that the long prompt ends beyond them.
CASES: List[Case] = [
    Case(
        "qwen2-tied",
        11,
        _qwen2("bfloat16", tie_word_embeddings=True, **_sizes(32, 56, 3, 4, 2, 128)),
        24,
        61,
        every_position=True,
    ),
    Case("qwen2-untied", 21, _qwen2("float16", **_sizes(40, 72, 2, 5, 1, 120)), 24, 56),
    Case(
        "qwen2-yarn",
        31,
        _qwen2(
            "bfloat16",
            max_position_embeddings=40,
            rope_scaling={
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 40,
            },
            **_sizes(48, 64, 2, 3, 1, 112),
        ),
        24,
        80,
    ),
    Case(
        "qwen2-linear",
        41,
        _qwen2(
            "float16",
            tie_word_embeddings=True,
            rope_scaling={"rope_type": "linear", "factor": 4.0},
            **_sizes(32, 48, 2, 4, 2, 128),
        ),
        28,
        72,
    ),
    Case(
        "qwen3-head-dim",
        51,
        _qwen3(
            "bfloat16", tie_word_embeddings=True, head_dim=16, **_sizes(32, 56, 2, 4, 2, 128)
        ),
        24,
        64,
        every_position=True,
    ),
    # As transformers 5 writes it: rope_parameters, dtype; and with yarn's optional keys.
    Case(
        "qwen3-yarn-rope-parameters",
        61,
        _qwen3(
            "bfloat16",
            head_dim=16,
            rope_scaling=...,
            rope_theta=...,
            torch_dtype=...,
            dtype="bfloat16",
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 3.0,
                "original_max_position_embeddings": 32,
                "attention_factor": 1.25,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
            },
            **_sizes(32, 56, 2, 4, 1, 96),
        ),
        26,
        77,
    ),
    Case(
        "llama-llama3-rope",
        72,
        _llama(
            "float32",
            head_dim=16,
            rope_theta=500000.0,
            rope_scaling={
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 48,
                "rope_type": "llama3",
            },
            **_sizes(32, 56, 2, 4, 2, 128),
        ),
        25,
        80,
    ),
    # As the first Llama 2 files: neither head_dim, rope_theta, num_key_value_heads nor *_bias.
    Case(
        "llama2-multi-head",
        81,
        _llama(
            "float16",
            attention_bias=...,
            mlp_bias=...,
            rope_theta=...,
            **{**_sizes(32, 56, 2, 4, 4, 160), "num_key_value_heads": ...},
        ),
        24,
        48,
    ),
    Case(
        "mistral",
        91,
        _config(
            "MistralForCausalLM",
            "mistral",
            "bfloat16",
            rms_norm_eps=1e-05,
            rope_theta=1000000.0,
            rope_scaling=...,
            sliding_window=None,
            **_sizes(48, 60, 2, 6, 2, 100),
        ),
        24,
        70,
    ),
    Case(
        "llama-biases",
        101,
        _llama(
            "float32",
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            **_sizes(24, 40, 3, 3, 3, 80),
        ),
        24,
        50,
    ),
    Case(
        "llama-odd-sizes",
        111,
        _llama("float16", head_dim=24, **_sizes(45, 36, 2, 9, 3, 97)),
        27,
        53,
        every_position=True,
    ),
    # Three experts of six for each token, one dense layer between, a shared expert.
    Case(
        "qwen2-moe",
        122,
        _config(
            "Qwen2MoeForCausalLM",
            "qwen2_moe",
            "bfloat16",
            rope_theta=1000000.0,
            use_sliding_window=False,
            sliding_window=None,
            max_window_layers=3,
            shared_expert_intermediate_size=28,
            **_moe(6, 3, 20, mlp_only_layers=[1]),
            **_sizes(32, 48, 3, 4, 2, 96),
        ),
        24,
        52,
    ),
    Case(
        "qwen3-moe",
        132,
        _config(
            "Qwen3MoeForCausalLM",
            "qwen3_moe",
            "float16",
            attention_bias=False,
            head_dim=16,
            rope_theta=1000000.0,
            use_sliding_window=False,
            sliding_window=None,
            max_window_layers=3,
            **_moe(8, 2, 16, norm_topk_prob=True, decoder_sparse_step=2),
            **_sizes(32, 48, 4, 4, 2, 96),
        ),
        24,
        52,
    ),
    Case("qwen", 141, _qwen("float16", 40, 52, 3, 5, 104), 24, 60),
    Case(
        "mistral-window",
        151,
        _config(
            "MistralForCausalLM",
            "mistral",
            "bfloat16",
            rms_norm_eps=1e-05,
            rope_theta=10000.0,
            rope_scaling=...,
            sliding_window=7,
            **_sizes(32, 48, 2, 4, 2, 100),
        ),
        24,
        50,
    ),
    Case(
        "qwen2-window",
        161,
        _qwen2(
            "bfloat16",
            use_sliding_window=True,
            sliding_window=9,
            **{**_sizes(32, 48, 3, 4, 2, 100)},
        ),
        24,
        50,
    ),
    # As newer files say it.
    Case(
        "qwen3-layer-types",
        171,
        _qwen3(
            "bfloat16",
            head_dim=16,
            use_sliding_window=True,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            **_sizes(32, 48, 3, 4, 2, 100),
        ),
        24,
        50,
    ),
    Case(
        "qwen2-embedding",
        183,
        {
            **_qwen2("bfloat16", tie_word_embeddings=True, **_sizes(32, 56, 2, 4, 2, 112)),
            "architectures": ["Qwen2Model"],
        },
        24,
        49,
        is_embedder=True,
    ),
]


def uniform(seed: int, name: str, n_values: int) -> np.ndarray:
    """n_values float64 in [-1, 1), the same on every machine."""
    stream = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    bits = stream.random_raw(n_values) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-52 - 1.0


def prompt_ids(case: Case, length: int) -> List[int]:
    """Token ids of a prompt, none of them the first three (unknown, begin, end)."""
    values = (uniform(case.seed, f"prompt {length}", length) + 1.0) / 2.0
    return [3 + int(v * (case.config["vocab_size"] - 3)) for v in values]


def _tensor(seed: int, name: str, shape, deviation: float, mean: float = 0.0) -> torch.Tensor:
    count = int(np.prod(shape))
    values = uniform(seed, name, count).reshape(shape) * (deviation * 3.0**0.5) + mean
    return torch.from_numpy(values)


def _mlps(config: Dict, layer: int) -> List:
    """Name, inner size and gain of down_proj of every MLP of a layer."""
    if not has_experts(config, layer):
        return [("", config["intermediate_size"], 0.8)]
    # What a token gets of an expert is scaled by a probability.
    size = config["moe_intermediate_size"]
    mlps = [(f".experts.{e}", size, 1.6) for e in range(config["num_experts"])]
    shared = config.get("shared_expert_intermediate_size", 0)
    return mlps + ([(".shared_expert", shared, 1.0)] if shared else [])


def _make_qwen_weights(case: Case) -> Dict[str, Raw]:
    """All tensors of a first Qwen."""
    config = case.config
    dtype = TORCH_DTYPES[config["torch_dtype"]]
    hidden, inner = config["hidden_size"], config["intermediate_size"] // 2
    width = config["kv_channels"] * config["num_attention_heads"]
    vocab = config["vocab_size"]
    # Name, shape, deviation, mean.
    table = [("transformer.wte.weight", [vocab, hidden], 0.02, 0.0)]
    for layer in range(config["num_hidden_layers"]):
        at = f"transformer.h.{layer}"
        table += [
            (f"{at}.ln_1.weight", [hidden], 0.25, 1.0),
            (f"{at}.attn.c_attn.weight", [3 * width, hidden], 1.4 / hidden**0.5, 0.0),
            (f"{at}.attn.c_attn.bias", [3 * width], 0.4, 0.0),
            (f"{at}.attn.c_proj.weight", [hidden, width], 0.8 / width**0.5, 0.0),
            (f"{at}.ln_2.weight", [hidden], 0.25, 1.0),
            (f"{at}.mlp.w1.weight", [inner, hidden], 0.8 / hidden**0.5, 0.0),
            (f"{at}.mlp.w2.weight", [inner, hidden], 1.2 / hidden**0.5, 0.0),
            (f"{at}.mlp.c_proj.weight", [hidden, inner], 0.8 / inner**0.5, 0.0),
        ]
    table += [
        ("transformer.ln_f.weight", [hidden], 0.3, 1.0),
        ("lm_head.weight", [vocab, hidden], 3.0 / hidden**0.5, 0.0),
    ]
    return {name: _stored(_tensor(case.seed, name, *rest), dtype) for name, *rest in table}


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> Raw:
    words = tensor.to(dtype).view(torch.int32 if dtype == torch.float32 else torch.int16)
    return Raw(RAW_DTYPES[dtype], tuple(tensor.shape), words.numpy().tobytes())


def make_weights(case: Case) -> Dict[str, Raw]:
    """All tensors of a case as its file stores them.

    Deviations are far from a real initialisation on purpose: scores of several units make
    attention sharp, and small embeddings make the epsilon of the norms count, so that a wrong
    ingredient moves the logits.
    """
    if case.config["model_type"] == "qwen":
        return _make_qwen_weights(case)
    config = case.config
    dtype = TORCH_DTYPES[config.get("torch_dtype", config.get("dtype"))]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", hidden // heads)
    attention_bias = config.get("attention_bias", False)
    qkv_bias = config["model_type"] in ("qwen2", "qwen2_moe") or attention_bias
    tied = config["tie_word_embeddings"]
    out: Dict[str, Raw] = {}

    def add(name: str, shape, deviation: float, mean: float = 0.0) -> None:
        out[name] = _stored(_tensor(case.seed, name, shape, deviation, mean), dtype)

    def linear(name: str, n: int, k: int, gain: float, bias: Optional[float]) -> None:
        add(f"{name}.weight", [n, k], gain / k**0.5)
        if bias is not None:
            add(f"{name}.bias", [n], bias)

    add("model.embed_tokens.weight", [config["vocab_size"], hidden], 0.3 if tied else 0.02)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        add(f"{at}.input_layernorm.weight", [hidden], 0.25, 1.0)
        add(f"{at}.post_attention_layernorm.weight", [hidden], 0.25, 1.0)
        q_size, kv_size = heads * head_dim, kv_heads * head_dim
        qk_bias, v_bias = (0.5, 0.2) if qkv_bias else (None, None)
        linear(f"{at}.self_attn.q_proj", q_size, hidden, 1.6, qk_bias)
        linear(f"{at}.self_attn.k_proj", kv_size, hidden, 1.6, qk_bias)
        linear(f"{at}.self_attn.v_proj", kv_size, hidden, 0.8, v_bias)
        linear(f"{at}.self_attn.o_proj", hidden, q_size, 0.8, 0.2 if attention_bias else None)
        if config["model_type"] in ("qwen3", "qwen3_moe"):
            add(f"{at}.self_attn.q_norm.weight", [head_dim], 0.4, 1.4)
            add(f"{at}.self_attn.k_norm.weight", [head_dim], 0.4, 1.4)
        mlp_bias = 0.2 if config.get("mlp_bias", False) else None
        for name, size, gain in _mlps(config, layer):
            linear(f"{at}.mlp{name}.gate_proj", size, hidden, 1.2, mlp_bias)
            linear(f"{at}.mlp{name}.up_proj", size, hidden, 0.8, mlp_bias)
            linear(f"{at}.mlp{name}.down_proj", hidden, size, gain, mlp_bias)
        if has_experts(config, layer):
            linear(f"{at}.mlp.gate", config["num_experts"], hidden, 1.0, None)
        if has_experts(config, layer) and "shared_expert_intermediate_size" in config:
            linear(f"{at}.mlp.shared_expert_gate", 1, hidden, 1.0, None)
    add("model.norm.weight", [hidden], 0.3, 2.0 if tied else 1.0)
    if not tied:
        add("lm_head.weight", [config["vocab_size"], hidden], 3.0 / hidden**0.5)
    if case.is_embedder:
        return {name[len("model.") :]: raw for name, raw in out.items()}
    return out
