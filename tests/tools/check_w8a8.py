#!/usr/bin/python3
"""Recomputes a static W8A8 checkpoint from its source and the ranges that calibration found.

    check_w8a8.py --source DIR --quantized DIR --stats FILE [--act-method 1|2|3]
                  [--dtype float16|bfloat16] [--keep-tied] [--symmetric-row-parallel]
    check_w8a8.py --self-test

Shares no code with the library under test. Exit code 1 where anything differs; each difference is
one line. FILE is what `llmq quant --save-stats` writes; of each fused group only `range` decides.
--act-method and --dtype, where given, must be what the ranges and the folder say.

float32 throughout unless said otherwise, IEEE division, half to even:
  weight_scale  max(amax / 127, 2^-23) per output channel, not rounded to 16 bit; weight_offset 0
  weight        clip(rint(w / weight_scale), -127, 127), w from the source, not its 16-bit copy
  input_scale   lo = min(range, 0), hi = max(range, 0); s0 = max(hi / 255 - lo / 255, 2^-23); of
                the four values of the model's dtype from the first one that is not below s0 and
                has a finite reciprocal r (rounded to that dtype): the one with the least
                |r * s - 1| in float64, the smallest of equals
  input_offset  clip(rint(-lo / input_scale) - 128, -128, 127), in the model's dtype
  deq_scale     input_scale * weight_scale; its bits widened to int64 where the model is float16
  quant_bias    rint(bias / deq_scale - input_offset * sum(weight)) in float64, exact sums, bias as
                the quantized folder holds it
With --symmetric-row-parallel the inputs of o_proj and down_proj have symmetric codes: their range is
[-a, a] with a = max|x|, s0 = max(a / 127, 2^-23), input_offset 0.
The members of a fused group (q, k, v; gate, up) share scheme, input_scale and input_offset.
Everything that is not quantized equals the source cast to the model's dtype.
"""

import argparse
import functools
import json
import pathlib
import re
import sys
from typing import Dict, List, Optional, Tuple

import numpy as np

import affine_rules
from affine_rules import EPSILON, Checkpoint
from safetensors_io import Raw

SCHEME = "W8A8"
PARTS = (
    "input_scale",
    "input_offset",
    "deq_scale",
    "quant_bias",
    "weight_scale",
    "weight_offset",
)
STATISTICS_FORMAT = "llmq-statistics-1"
GROUPS = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "self_attn.o_proj": "attention_out",
    "mlp.gate_proj": "gate_up",
    "mlp.up_proj": "gate_up",
    "mlp.down_proj": "down",
}
N_CANDIDATES = 4
AUTO_RATIO = 50.0  # act_method 3: the histogram up to this max|x| / std, min-max above
GroupKey = Tuple[int, str]  # (layer, group); the head's layer is -1
Ranges = Dict[GroupKey, Optional[Tuple[float, float]]]  # None: all linears of the group are float


# ---- formulas -----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def scales_and_reciprocals(dtype: str) -> Tuple[np.ndarray, np.ndarray]:
    """Every positive finite value of a 16-bit dtype, ascending, and its reciprocal, rounded."""
    infinity = {"F16": 0x7C00, "BF16": 0x7F80}[dtype]
    words = np.arange(1, infinity, dtype="<u2")
    values = affine_rules.to_float32(Raw(dtype, words.shape, words.tobytes()))
    with np.errstate(over="ignore"):
        return values, affine_rules.round_to(np.float32(1) / values, dtype)


def choose_input_scale(smallest: np.float32, dtype: str) -> np.float32:
    """The value of `dtype` near `smallest`, not below it, whose rounded reciprocal is best."""
    values, reciprocals = scales_and_reciprocals(dtype)
    fits = np.isfinite(reciprocals) & (values >= smallest)
    if not fits.any():
        raise ValueError(f"no {affine_rules.NAMES[dtype]} holds the activation scale {smallest!r}")
    first = int(np.argmax(fits))
    candidates = slice(first, first + N_CANDIDATES)
    products = reciprocals[candidates].astype(np.float64) * values[candidates].astype(np.float64)
    return values[candidates][int(np.argmin(np.abs(products - 1.0)))]


def quantize_input(
    low: float, high: float, dtype: str, symmetric: bool = False
) -> Tuple[np.float32, np.float32]:
    """A range of activations -> input_scale and input_offset, values of `dtype`."""
    if symmetric:
        largest = np.maximum(-np.float32(low), np.float32(high))
        exact = np.maximum(largest / np.float32(127), EPSILON)
        return choose_input_scale(exact, dtype), np.float32(0)
    low = np.minimum(np.float32(low), np.float32(0))
    high = np.maximum(np.float32(high), np.float32(0))
    span = high / np.float32(255) - low / np.float32(255)
    scale = choose_input_scale(np.maximum(span, EPSILON), dtype)
    offset = np.clip(np.rint(-low / scale) - np.float32(128), np.float32(-128), np.float32(127))
    return scale, np.float32(offset)


def quantize(
    weight: np.ndarray,
    bias: np.ndarray,
    activations: Tuple[float, float],
    dtype: str,
    symmetric: bool = False,
) -> Dict[str, Raw]:
    """weight [n, k], bias [n] float32, (min, max) of the input -> the tensors of a W8A8 linear."""
    n = weight.shape[0]
    scale = affine_rules.symmetric_scale(weight)
    codes = affine_rules.symmetric_codes(weight, scale)
    input_scale, input_offset = quantize_input(*activations, dtype, symmetric)
    deq_scale = (input_scale * scale[:, 0]).astype("<f4")
    sums = codes.astype(np.int64).sum(axis=1) * np.int64(input_offset)
    with np.errstate(divide="ignore", invalid="ignore"):
        quant_bias = np.rint(bias.astype(np.float64) / deq_scale.astype(np.float64) - sums)
    if not (np.abs(quant_bias) < 2.0**31).all():
        raise ValueError("quant_bias does not fit int32")
    if dtype == "BF16":
        deq_raw = Raw("F32", (n,), deq_scale.tobytes())
    else:
        deq_raw = Raw("I64", (n,), deq_scale.view("<u4").astype("<i8").tobytes())
    return {
        "weight": Raw("I8", codes.shape, codes.tobytes()),
        "weight_scale": Raw("F32", (n, 1), scale.astype("<f4").tobytes()),
        "weight_offset": Raw("F32", (n, 1), bytes(4 * n)),
        "input_scale": affine_rules.cast_raw(np.array([input_scale]), dtype),
        "input_offset": affine_rules.cast_raw(np.array([input_offset]), dtype),
        "deq_scale": deq_raw,
        "quant_bias": Raw("I32", (n,), quant_bias.astype("<i4").tobytes()),
    }


# ---- statistics ---------------------------------------------------------------------------------


ROW_PARALLEL = ("attention_out", "down")  # groups whose linears' input channels ranks share


def group_key(weight: str) -> Optional[GroupKey]:
    """The fused group whose input a linear reads."""
    if weight == "lm_head.weight":
        return -1, "head"
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", weight)
    if match is None or match.group(2) not in GROUPS:
        return None
    return int(match.group(1)), GROUPS[match.group(2)]


def check_group(entry: Dict, act_method: Optional[int], row_parallel: bool) -> List[str]:
    """What one group's statistics and its range (if it has one) owe each other."""
    name = f"statistics: layer {entry['layer']}, {entry['group']}"
    chosen = entry.get("range", {"act_method": 1, "min": entry["min"], "max": entry["max"]})
    numbers = [entry["min"], entry["max"], chosen["min"], chosen["max"]]
    if any(not np.isfinite(v) or float(np.float32(v)) != v for v in numbers):
        return [f"{name}: min and max must be finite float32 values, are {numbers}"]
    slack = 2.0**-20 * max(abs(entry["min"]), abs(entry["max"]))  # the mean is rounded
    inside = entry["min"] - slack <= entry["mean"] <= entry["max"] + slack
    if entry["n"] <= 0 or not inside or entry["std"] < 0:
        return [f"{name}: n, mean or std cannot be those of values in [min, max]"]
    low, high = min(entry["min"], 0.0), max(entry["max"], 0.0)
    if row_parallel and entry["group"] in ROW_PARALLEL and "range" in entry:
        low, high = min(low, -high), max(high, -low)
        if chosen["min"] != -chosen["max"]:
            return [f"{name}: {chosen} is not symmetric"]
    range_low, range_high = min(chosen["min"], 0.0), max(chosen["max"], 0.0)
    if chosen["act_method"] == 1:
        good = (range_low, range_high) == (low, high)
    else:  # a window of the histogram: its ends are sums of rounded bin widths
        slack = (high - low) * 2.0**-20
        good = chosen["act_method"] == 2
        good &= low - slack <= range_low and range_high <= high + slack
    if not good or chosen["min"] > chosen["max"]:
        return [f"{name}: {chosen} is no range of [{entry['min']}, {entry['max']}]"]
    if act_method == 3:
        largest = max(abs(entry["min"]), abs(entry["max"]))
        if abs(largest - AUTO_RATIO * entry["std"]) > 1e-5 * largest:  # not too close to tell
            act_method = 2 if largest <= AUTO_RATIO * entry["std"] else 1
    if "range" in entry and act_method in (1, 2) and chosen["act_method"] != act_method:
        return [f"{name}: act_method is {chosen['act_method']}, expected {act_method}"]
    return []


def read_statistics(
    path: pathlib.Path, act_method: Optional[int], row_parallel: bool = False
) -> Tuple[Ranges, List[str]]:
    """(layer, group) -> range of the activations, and what is wrong with the file."""
    document = json.loads(path.read_text())
    if document.get("format") != STATISTICS_FORMAT:
        found = document.get("format")
        return {}, [f"statistics: format is {found!r}, expected {STATISTICS_FORMAT!r}"]
    ranges: Ranges = {}
    wrong = []
    for entry in document["groups"]:
        key = entry["layer"], entry["group"]
        if key in ranges:
            wrong.append(f"statistics: layer {key[0]}, {key[1]} is there twice")
        ranges[key] = None
        if "range" in entry:
            ranges[key] = entry["range"]["min"], entry["range"]["max"]
        wrong += check_group(entry, act_method, row_parallel)
    return ranges, wrong


# ---- the folder ---------------------------------------------------------------------------------


def check_config(source: Checkpoint, quantized: Checkpoint, dtype: Optional[str]) -> List[str]:
    """torch_dtype (where expected), quantize, quantization_config; all else as in the source."""
    config, wrong = quantized.config, []
    if dtype is not None and config.get("torch_dtype") != dtype:
        stated = config.get("torch_dtype")
        wrong.append(f"config.json: torch_dtype is {stated!r}, expected {dtype!r}")
    if config.get("quantize") != "w8a8":
        wrong.append(f"config.json: quantize is {config.get('quantize')!r}, expected 'w8a8'")
    details = config.get("quantization_config")
    if not isinstance(details, dict) or details.get("group_size") != 0:
        wrong.append(f"config.json: quantization_config is {details!r}, needs group_size 0")
    ours = {"torch_dtype", "quantize", "quantization_config"}
    for key in sorted((set(config) | set(source.config)) - ours):
        if config.get(key) != source.config.get(key) or (key in config) != (key in source.config):
            wrong.append(f"config.json: {key} is not as in the source")
    return wrong


def check_fused(quantized: Checkpoint) -> List[str]:
    """Members of a fused group: the same scheme, input_scale and input_offset."""
    groups: Dict[GroupKey, List[str]] = {}
    for name in sorted(quantized.tensors):
        key = group_key(name)
        if key is not None:
            groups.setdefault(key, []).append(name)
    wrong = []
    for (layer, group), members in sorted(groups.items()):
        schemes = {quantized.description.get(name) for name in members}
        if len(schemes) != 1:
            wrong.append(f"layer {layer}, {group}: {members} differ in scheme")
        for part in ("input_scale", "input_offset"):
            tensors = [quantized.tensors.get(n[: -len("weight")] + part) for n in members]
            if len(schemes) == 1 and len(set(tensors)) != 1:
                wrong.append(f"layer {layer}, {group}: {members} differ in {part}")
    return wrong


def check_linear(
    source: Checkpoint,
    quantized: Checkpoint,
    weight: str,
    ranges: Ranges,
    dtype: str,
    row_parallel: bool = False,
) -> List[str]:
    """All tensors of one linear, recomputed."""
    raw, key = affine_rules.source_tensor(source, weight), group_key(weight)
    if raw is None or len(raw.shape) != 2:
        return [f"{weight}: no matrix of this name in the source"]
    if ranges.get(key) is None:
        return [f"{weight}: the statistics have no range for {key}"]
    stem = weight.rsplit(".", 1)[0]
    bias = np.zeros(raw.shape[0], dtype=np.float32)
    if f"{stem}.bias" in quantized.tensors:
        bias = affine_rules.to_float32(quantized.tensors[f"{stem}.bias"])
    try:
        values = affine_rules.to_float32(raw)
        wanted = quantize(values, bias, ranges[key], dtype, row_parallel and key[1] in ROW_PARALLEL)
    except ValueError as error:
        return [f"{stem}: {error}"]
    return affine_rules.check_parts(quantized, weight, wanted)


def check(source: Checkpoint, quantized: Checkpoint, arguments) -> List[str]:
    """All differences: of the folder as a whole, then in order of tensor name."""
    wrong = affine_rules.check_description(quantized, SCHEME, PARTS)
    dtype, more = affine_rules.model_dtype(quantized)
    wrong += more + check_config(source, quantized, arguments.dtype) + check_fused(quantized)
    ranges, more = read_statistics(
        arguments.stats, arguments.act_method, arguments.symmetric_row_parallel
    )
    wrong += more
    if dtype is None:
        return wrong
    linears = {
        name: lambda name=name: check_linear(
            source, quantized, name, ranges, dtype, arguments.symmetric_row_parallel
        )
        for name in affine_rules.linears_of(quantized, SCHEME)
    }
    return wrong + affine_rules.check_tensors(
        source, quantized, dtype, arguments.keep_tied, PARTS, linears
    )


def run(arguments) -> int:
    quantized = None
    try:
        source, quantized = Checkpoint(arguments.source), Checkpoint(arguments.quantized)
        wrong = check(source, quantized, arguments)
    except KeyError as error:
        wrong = [f"cannot be read: no key {error}"]
    except (ValueError, TypeError, OSError) as error:
        wrong = [f"cannot be read: {error}"]
    return affine_rules.report(quantized, SCHEME, wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--quantized", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--stats", metavar="FILE", type=pathlib.Path)
    parser.add_argument("--act-method", type=int, choices=(1, 2, 3), help="as given to llmq quant")
    parser.add_argument("--dtype", choices=sorted(affine_rules.NAMES.values()))
    parser.add_argument("--symmetric-row-parallel", action="store_true", help="as built-in types")
    parser.add_argument("--keep-tied", action="store_true", help="no lm_head.weight is expected")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        import check_w8a8_test

        return check_w8a8_test.main()
    if arguments.source is None or arguments.quantized is None or arguments.stats is None:
        parser.error("--source, --quantized and --stats are needed")
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
