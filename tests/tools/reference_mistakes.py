"""What reference_model.py --self-test tries: formulas, and the mistakes that goldens must show.

Values of formulas were worked out apart from this code; a mistake is a configuration that is read
wrongly, or a Variant of the decoder.
"""

import math
from typing import Dict, List, Tuple

import torch

from reference_cases import Case
from reference_decoder import Variant, rope_frequencies, rope_parameters, rotate


def check_formulas() -> List[str]:
    """Values worked out apart from this code, from the papers' formulas."""
    wrong = []

    def near(what: str, got: float, want: float) -> None:
        if abs(got - want) > 2e-9 * max(abs(want), 1e-9):
            wrong.append(f"{what}: {got!r}, expected {want!r}")

    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], dtype=torch.float64)
    angle = torch.tensor([[3.0, 0.03]], dtype=torch.float64)
    for interleaved, want in (
        (False, [-1.413352521, 1.879118067, -2.828857482, 4.058191135]),
        (True, [-1.272232513, -1.838864985, 2.878668100, 4.088186636]),
    ):
        got = rotate(x, torch.cos(angle), torch.sin(angle), interleaved)[0, 0].tolist()
        for i in range(4):
            near(f"rotation interleaved={interleaved} lane {i}", got[i], want[i])

    def frequencies(theta, scaling):
        config = {"max_position_embeddings": 131072, "rope_theta": theta, "rope_scaling": scaling}
        return rope_frequencies(config, 128)

    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    got, factor = frequencies(1e6, yarn)
    near("yarn attention factor", factor, 1.138629436)
    for i, want in {
        23: 6.97830585e-3,
        24: 5.37532149e-3,
        31: 8.02959728e-4,
        39: 6.49039432e-5,
        40: 4.44569853e-5,
        63: 3.10234440e-7,
    }.items():
        near(f"yarn frequency {i}", got[i], want)
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    got, factor = frequencies(5e5, llama3)
    near("llama3 attention factor", factor, 1.0)
    for i, want in {
        29: 2.16657076e-3,
        31: 8.56751413e-4,
        34: 1.78507813e-4,
        63: 3.06892599e-7,
    }.items():
        near(f"llama3 frequency {i}", got[i], want)
    got, _ = frequencies(1e4, {"rope_type": "linear", "factor": 2.0})
    near("linear frequency 32", got[32], 0.005)
    return wrong


def without(table: Dict, *keys: str) -> Dict:
    return {key: value for key, value in table.items() if key not in keys}


def rope_mistakes(config: Dict) -> Dict[str, Dict]:
    """Configurations as readers see them that miss or mistake a key of the rotary embedding."""
    rope, out = rope_parameters(config), {}

    def altered(**keys) -> Dict:
        return {**without(config, "rope_scaling"), "rope_parameters": {**rope, **keys}}

    longest = config["max_position_embeddings"]
    if rope["rope_theta"] != 10000.0:
        out["theta 10000"] = altered(rope_theta=10000.0)
    if rope["rope_type"] != "default":
        out["no rope scaling"] = altered(rope_type="default")
        out["factor 2"] = altered(factor=2.0)
    has_original = rope["rope_type"] in ("yarn", "llama3")
    if has_original and rope["original_max_position_embeddings"] != longest:
        out["original length from max_position"] = altered(original_max_position_embeddings=longest)
    if rope["rope_type"] == "yarn":
        out["attention factor 1"] = altered(attention_factor=1.0)
        out["ramp not truncated"] = altered(truncate=False)
        if "attention_factor" in rope:
            default = 0.1 * math.log(rope["factor"]) + 1.0
            out["attention_factor not read"] = altered(attention_factor=None)
            out["attention_factor multiplied"] = altered(
                attention_factor=default * rope["attention_factor"]
            )
        if "beta_fast" in rope:
            out["betas not read"] = altered(beta_fast=32.0, beta_slow=1.0)
    if rope["rope_type"] == "llama3":
        out["llama3 as linear"] = altered(rope_type="linear")
        out["llama3 without blend"] = altered(low_freq_factor=rope["high_freq_factor"] - 1e-9)
    return out


def mistakes(case: Case) -> Dict[str, Tuple[Dict, Variant]]:
    """The mistakes that this model must be able to show."""
    if case.config["model_type"] == "qwen":
        return qwen_mistakes(case.config)
    config = case.config
    hidden_per_head = config["hidden_size"] // config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", config["num_attention_heads"])
    out = {name: (altered, Variant()) for name, altered in rope_mistakes(config).items()}
    out["eps 1e-3"] = ({**config, "rms_norm_eps": 1e-3}, Variant())
    if not config["tie_word_embeddings"]:
        other = 1e-5 if config["rms_norm_eps"] == 1e-6 else 1e-6
        out[f"eps {other:.0e}"] = ({**config, "rms_norm_eps": other}, Variant())

    def add(what: str, **flags) -> None:
        out[what] = (config, Variant(**flags))

    add("interleaved rope", interleaved_rope=True)
    if config["model_type"] in ("qwen3", "qwen3_moe"):
        add("no q/k norm", no_qk_norm=True)
        add("q/k norm after rope", qk_norm_after_rope=True)
    if config["model_type"] in ("qwen2", "qwen2_moe") or config.get("attention_bias"):
        add("no attention biases", no_attention_bias=True)
    if config.get("mlp_bias"):
        add("no mlp biases", no_mlp_bias=True)
    if rope_parameters(config)["rope_type"] == "yarn":
        add("attention factor once, not on q and k", attention_factor_once=True)
    if 1 < kv_heads < config["num_attention_heads"]:
        add("kv head by modulo", kv_head_by_modulo=True)
    if config.get("head_dim", hidden_per_head) != hidden_per_head:
        add("scores / sqrt(hidden/heads)", scores_by_hidden_per_head=True)
    if config["model_type"].endswith("_moe"):
        add("norm_topk_prob the other way", other_topk_norm=True)
        add("one expert less", one_expert_less=True)
        add("gate and up of MLPs swapped", swapped_gate_and_up=True)
    if "shared_expert_intermediate_size" in config:
        add("no shared expert", no_shared_expert=True)
        add("no switch of the shared expert", no_shared_switch=True)
    if has_window(config):
        add("no window", no_window=True)
        add("window one longer", window_one_longer=True)
        if config["model_type"].startswith("qwen"):
            add("window in every layer", window_in_every_layer=True)
    return out


def has_window(config: Dict) -> bool:
    switch = config.get("use_sliding_window", not config["model_type"].startswith("qwen"))
    return bool(switch) and config.get("sliding_window") is not None


def qwen_mistakes(config: Dict) -> Dict[str, Tuple[Dict, Variant]]:
    """The same of the first Qwen, whose keys have other names."""
    return {
        "theta 10000": ({**config, "rotary_emb_base": 10000.0}, Variant()),
        "eps 1e-3": ({**config, "layer_norm_epsilon": 1e-3}, Variant()),
        "eps 1e-5": ({**config, "layer_norm_epsilon": 1e-5}, Variant()),
        "interleaved rope": (config, Variant(interleaved_rope=True)),
        "no attention biases": (config, Variant(no_attention_bias=True)),
        "w1 as the gate": (config, Variant(swapped_gate_and_up=True)),
    }
