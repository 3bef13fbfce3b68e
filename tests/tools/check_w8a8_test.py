"""Self-test of check_w8a8.py: a scalar quantizer it must accept, and damage it must name."""

import bisect
import json
import math
import pathlib
import struct
import tempfile
from fractions import Fraction
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

import affine_cases
import check_w8a8
from affine_cases import FLOOR, f32, pack, to_dtype
from safetensors_io import Raw

LAYER = "model.layers.0"
Q, K, V = (f"{LAYER}.self_attn.{name}_proj" for name in "qkv")
OUT = f"{LAYER}.self_attn.o_proj"
GATE, UP, DOWN = (f"{LAYER}.mlp.{name}_proj" for name in ("gate", "up", "down"))
FINE_Q = "model.layers.1.self_attn.q_proj"  # its deq_scale is small, its quant_bias large
FLOAT_DOWN = "model.layers.1.mlp.down_proj"  # kept float in every case
NORM = "model.norm.weight"
HEAD = "lm_head"
EMBEDDING = "model.embed_tokens.weight"

# (layer, group) -> (min, max) of the activations, rounded to float32 where they are used.
RANGES = {
    (0, "qkv"): (-3.17, 4.02),
    (0, "attention_out"): (0.0, 0.0),  # the floor
    (0, "gate_up"): (0.5, 7.1),  # no negative value
    (0, "down"): (-9.3, -0.25),  # no positive value
    (1, "qkv"): (-(2.0**-16), 2.0**-18),  # a float16 scale whose reciprocal overflows
    (1, "attention_out"): (-1.0e4, 1.1e4),
    (1, "gate_up"): (-0.3, 0.001),
    (1, "down"): (-1.0, 1.0),  # its linear is float
    (-1, "head"): (-20.3, 31.7),
}


# ---- the rules, one number at a time ------------------------------------------------------------


def value_of(word: int, dtype: str) -> float:
    """The number that a 16-bit pattern stands for."""
    if dtype == "F16":
        return struct.unpack("<e", struct.pack("<H", word))[0]
    return struct.unpack("<f", struct.pack("<I", word << 16))[0]


def reciprocal(scale: float, dtype: str) -> float:
    try:
        return to_dtype(f32(1.0 / scale), dtype)
    except OverflowError:
        return math.inf


def quantize_input(low: float, high: float, dtype: str) -> Tuple[float, float]:
    low, high = min(low, 0.0), max(high, 0.0)
    smallest = max(f32(f32(high / 255) - f32(low / 255)), FLOOR)
    word = bisect.bisect_left(range(0x7C00), smallest, key=lambda w: value_of(w, dtype))
    while math.isinf(reciprocal(value_of(word, dtype), dtype)):
        word += 1
    best, best_error = 0.0, Fraction(10)
    for scale in (value_of(word + i, dtype) for i in range(4)):
        error = abs(Fraction(reciprocal(scale, dtype)) * Fraction(scale) - 1)
        if error < best_error:
            best, best_error = scale, error
    offset = round(f32(-low / best)) - 128
    return best, float(max(-128, min(127, offset)))


def quantize_row(row: List[float], bias: float, input_scale: float, input_offset: float):
    """Codes, weight_scale, deq_scale and quant_bias of one output channel."""
    scale = max(f32(max(abs(w) for w in row) / 127), FLOOR)
    codes = [max(-127, min(127, round(f32(w / scale)))) for w in row]
    deq_scale = f32(input_scale * scale)
    return codes, scale, deq_scale, round(bias / deq_scale - int(input_offset) * sum(codes))


# ---- a model ------------------------------------------------------------------------------------


def make_source(dtype: str, tied: bool) -> Dict[str, Tuple[Tuple[int, ...], List[float]]]:
    """name -> (shape, values): random rows and the awkward ones, all exact in `dtype`."""
    random = np.random.default_rng(11)
    k = 24

    def values(*shape):
        return shape, affine_cases.random_values(random, shape, dtype)

    tensors = {EMBEDDING: values(10, k), NORM: values(k)}
    for layer in ("model.layers.0", "model.layers.1"):
        for name, n in (("q", 12), ("k", 6), ("v", 6)):
            tensors[f"{layer}.self_attn.{name}_proj.weight"] = values(n, k)
            tensors[f"{layer}.self_attn.{name}_proj.bias"] = values(n)
        tensors[f"{layer}.self_attn.o_proj.weight"] = values(k, 12)
        tensors[f"{layer}.mlp.gate_proj.weight"] = values(7, k)
        tensors[f"{layer}.mlp.up_proj.weight"] = ((7, k), sum(affine_cases.awkward_rows(k), []))
        tensors[f"{layer}.mlp.down_proj.weight"] = values(k, 7)
    if not tied:
        tensors[f"{HEAD}.weight"] = values(10, k)
    return tensors


def make_statistics() -> Dict:
    """A statistics file: min-max ranges, those of layer 1 as if clipped from wider values."""
    groups = []
    for (layer, group), (low, high) in RANGES.items():
        low, high = f32(low), f32(high)
        widen = 2.0 if layer == 1 else 1.0
        groups.append(
            {
                "layer": layer,
                "group": group,
                "n": 240,
                "min": low * widen,
                "max": high * widen,
                "mean": (low + high) / 2,
                "std": high - low,
                "range": {"act_method": 2 if layer == 1 else 1, "min": low, "max": high},
            }
        )
    return {"format": "llmq-statistics-1", "texts": "a test's", "model": {}, "groups": groups}


class Setup(affine_cases.Case):
    """A source of one dtype, its W8A8 form for a model dtype and the statistics between them."""

    def __init__(self, source_dtype: str, dtype: str, tied: bool, head: bool, n_shards: int = 1):
        super().__init__(n_shards)
        self.statistics = make_statistics()
        values = make_source(source_dtype, tied)
        self.source = {
            name: Raw(source_dtype, shape, pack(numbers, source_dtype))
            for name, (shape, numbers) in values.items()
        }
        self.source_config = {"tie_word_embeddings": tied, "torch_dtype": "float32", "layers": 2}
        self.config = {
            **self.source_config,
            "torch_dtype": {"F16": "float16", "BF16": "bfloat16"}[dtype],
            "quantize": "w8a8",
            "quantization_config": {"group_size": 0},
        }
        self.tags = {"model_quant_type": "W8A8", "version": "1.0.0", "group_size": 0}
        if tied:
            values[f"{HEAD}.weight"] = values[EMBEDDING]
        for name, (shape, numbers) in values.items():
            stem = name[: -len(".weight")]
            if "_proj.weight" in name and stem != FLOAT_DOWN or stem == HEAD and head:
                bias = values.get(f"{stem}.bias", ((), [0.0] * shape[0]))[1]
                self.add_linear(stem, shape, numbers, bias, dtype)
            else:
                self.tensors[name] = Raw(dtype, shape, pack(numbers, dtype))
                self.tags[name] = "FLOAT"

    def add_linear(self, stem: str, shape, numbers: List[float], bias: List[float], dtype: str):
        n, k = shape
        low, high = RANGES[check_w8a8.group_key(f"{stem}.weight")]
        input_scale, input_offset = quantize_input(f32(low), f32(high), dtype)
        rows = [
            quantize_row(
                numbers[i * k : (i + 1) * k], to_dtype(bias[i], dtype), input_scale, input_offset
            )
            for i in range(n)
        ]
        codes = [code for row in rows for code in row[0]]
        deq_scale = struct.pack(f"<{n}f", *[row[2] for row in rows])
        if dtype == "F16":
            words = struct.unpack(f"<{n}I", deq_scale)
            deq_raw = Raw("I64", (n,), struct.pack(f"<{n}q", *words))
        else:
            deq_raw = Raw("F32", (n,), deq_scale)
        parts = {
            "weight": Raw("I8", (n, k), struct.pack(f"<{n * k}b", *codes)),
            "weight_scale": Raw("F32", (n, 1), struct.pack(f"<{n}f", *[row[1] for row in rows])),
            "weight_offset": Raw("F32", (n, 1), struct.pack(f"<{n}f", *[0.0] * n)),
            "input_scale": Raw(dtype, (1,), pack([input_scale], dtype)),
            "input_offset": Raw(dtype, (1,), pack([input_offset], dtype)),
            "deq_scale": deq_raw,
            "quant_bias": Raw("I32", (n,), struct.pack(f"<{n}i", *[row[3] for row in rows])),
        }
        for part, raw in parts.items():
            self.tensors[f"{stem}.{part}"] = raw
            self.tags[f"{stem}.{part}"] = "W8A8"

    def run(self, *options, damage_files: Optional[Callable] = None) -> Tuple[int, str]:
        """Writes all files and runs the checker as a user would; returns (code, output)."""
        with tempfile.TemporaryDirectory() as root:
            source, quantized = self.write(pathlib.Path(root))
            statistics = pathlib.Path(root) / "statistics.json"
            statistics.write_text(json.dumps(self.statistics))
            if damage_files:
                damage_files(quantized)
            folders = ["--source", source, "--quantized", quantized, "--stats", statistics]
            return affine_cases.call(check_w8a8.main, *folders, *options)


# ---- damage -------------------------------------------------------------------------------------


def change_group(layer: int, group: str, change: Callable[[Dict], object]) -> Callable:
    """Applies `change` to one group's entry in the statistics."""

    def damage(setup: Setup) -> None:
        for entry in setup.statistics["groups"]:
            if (entry["layer"], entry["group"]) == (layer, group):
                change(entry)

    return damage


def drop_group(setup: Setup) -> None:
    groups = setup.statistics["groups"]
    setup.statistics["groups"] = [e for e in groups if (e["layer"], e["group"]) != (0, "down")]


def next_range(entry: Dict) -> None:
    """The range's upper end grows by more than four values of bfloat16, and what was seen too."""
    entry["range"]["max"] = entry["max"] = f32(entry["max"] * 1.05)


def float_gate(setup: Setup) -> None:
    """gate_proj stays float while up_proj, fused with it, does not."""
    for part in check_w8a8.PARTS:
        affine_cases.drop(f"{GATE}.{part}")(setup)
    setup.tensors[f"{GATE}.weight"] = setup.source[f"{GATE}.weight"]
    setup.tags[f"{GATE}.weight"] = "FLOAT"


def codes_of_cast_weights(setup: Setup) -> None:
    """Codes from the 16-bit copy of a float32 source: the mistake that the rules name."""
    shape, values = make_source("F32", True)[f"{OUT}.weight"]
    cast = [to_dtype(v, "F16") for v in values]
    setup.add_linear(OUT, shape, cast, [0.0] * shape[0], "F16")


def bias_of_source(setup: Setup) -> None:
    """quant_bias from the float32 bias instead of its written, 16-bit copy."""
    values = make_source("F32", True)
    (n, k), weights = values[f"{FINE_Q}.weight"]
    input_scale, input_offset = quantize_input(*map(f32, RANGES[1, "qkv"]), "F16")
    rows = [weights[i * k : (i + 1) * k] for i in range(n)]
    bias = values[f"{FINE_Q}.bias"][1]
    sums = [quantize_row(r, b, input_scale, input_offset)[3] for r, b in zip(rows, bias)]
    raw = setup.tensors[f"{FINE_Q}.quant_bias"]
    setup.tensors[f"{FINE_Q}.quant_bias"] = raw._replace(data=struct.pack(f"<{n}i", *sums))


def as_float32(name: str) -> Callable:
    """A tensor becomes F32 of the same shape."""

    def damage(setup: Setup) -> None:
        shape = setup.tensors[name].shape
        setup.tensors[name] = Raw("F32", shape, bytes(4 * math.prod(shape)))

    return damage


# (what is damaged, how, what the first line must name); on a bfloat16 model with a quantized head
DAMAGES = [
    ("a code", affine_cases.add_to_byte(f"{Q}.weight", 100, 1), f"{Q}.weight[4, 4]"),
    ("the head's code", affine_cases.add_to_byte(f"{HEAD}.weight", 25, 1), "lm_head.weight[1, 1]"),
    ("a scale", affine_cases.next_float(f"{Q}.weight_scale", 3), f"{Q}.weight_scale[3, 0]"),
    (
        "a negative zero",
        affine_cases.add_to_byte(f"{UP}.weight_offset", 7, 0x80),
        f"{UP}.weight_offset[1, 0]",
    ),
    ("input_scale", affine_cases.add_to_byte(f"{OUT}.input_scale", 0, 1), f"{OUT}.input_scale[0]"),
    (
        "input_offset",
        affine_cases.add_to_byte(f"{DOWN}.input_offset", 0, 1),
        f"{DOWN}.input_offset[0]",
    ),
    ("deq_scale", affine_cases.next_float(f"{V}.deq_scale", 2), f"{V}.deq_scale[2]"),
    ("quant_bias", affine_cases.add_to_byte(f"{K}.quant_bias", 4, 1), f"{K}.quant_bias[1]"),
    ("input_scale as F32", as_float32(f"{OUT}.input_scale"), f"{OUT}.input_scale: is F32"),
    ("quant_bias as F32", as_float32(f"{OUT}.quant_bias"), f"{OUT}.quant_bias: is F32"),
    ("a transposed shape", affine_cases.transpose_shape(f"{V}.weight"), f"{V}.weight: is I8 [24,"),
    (
        "a flat weight_scale",
        lambda s: s.tensors.update(
            {f"{V}.weight_scale": s.tensors[f"{V}.weight_scale"]._replace(shape=(6,))}
        ),
        f"{V}.weight_scale: is F32 [6]",
    ),
    (
        "input_scale of one of q, k, v",
        affine_cases.add_to_byte(f"{K}.input_scale", 0, 1),
        "differ in input_scale",
    ),
    (
        "input_offset of one of gate, up",
        affine_cases.add_to_byte(f"{UP}.input_offset", 0, 1),
        "differ in input_offset",
    ),
    ("a float gate", float_gate, "differ in scheme"),
    ("a norm's last bit", affine_cases.add_to_byte(NORM, 8, 1), f"{NORM}[4]"),
    ("an embedding", affine_cases.add_to_byte(EMBEDDING, 2, 1), f"{EMBEDDING}[0, 1]"),
    (
        "a float linear",
        affine_cases.add_to_byte(f"{FLOAT_DOWN}.weight", 2, 1),
        f"{FLOAT_DOWN}.weight[0, 1]",
    ),
    ("a renamed tensor", affine_cases.rename(NORM, "model.norm2.weight"), f"{NORM}: missing"),
    ("a tensor without a key", affine_cases.untag(NORM), f"no key for {NORM}"),
    ("a key without a tensor", affine_cases.tag("model.ghost", "FLOAT"), "ghost is in no file"),
    ("an unknown key", affine_cases.tag("kv_quant_type", "C8"), "kv_quant_type is in no file"),
    ("a weight tagged FLOAT", affine_cases.tag(f"{OUT}.weight", "FLOAT"), "weight disagree"),
    ("a part tagged FLOAT", affine_cases.tag(f"{OUT}.deq_scale", "FLOAT"), "weight disagree"),
    ("a bias tagged W8A8", affine_cases.tag(f"{Q}.bias", "W8A8"), "biases are FLOAT"),
    ("another scheme's name", affine_cases.tag("model_quant_type", "W8A16"), "model_quant_type"),
    ("another version", affine_cases.tag("version", "0.0.0"), "version is '0.0.0'"),
    ("no version", affine_cases.untag("version"), "version is None"),
    ("another torch_dtype", affine_cases.state(torch_dtype="float16"), "torch_dtype is 'float16'"),
    ("another quantize", affine_cases.state(quantize="w8a8s"), "quantize is 'w8a8s'"),
    ("groups", affine_cases.state(quantization_config={"group_size": 64}), "quantization_config"),
    ("a new key in config.json", affine_cases.state(quantization={}), "quantization is not as"),
    ("a changed key in config.json", affine_cases.state(layers=3), "layers is not as"),
    ("statistics of another format", lambda s: s.statistics.update(format="x"), "format is 'x'"),
    ("no statistics of a group", drop_group, f"{DOWN}.weight: the statistics have no range"),
    (
        "statistics without a range",
        change_group(0, "down", lambda e: e.pop("range")),
        f"{DOWN}.weight: the statistics have no range",
    ),
    (
        "a group twice",
        lambda s: s.statistics["groups"].append(s.statistics["groups"][0]),
        "layer 0, qkv is there twice",
    ),
    (
        "a range that is not the minimum and maximum",
        change_group(0, "down", lambda e: e["range"].update(max=1.0)),
        "layer 0, down",
    ),
    (
        "a window beyond the values",
        change_group(1, "down", lambda e: e["range"].update(min=-2.5)),
        "layer 1, down",
    ),
    (
        "a range that float32 does not hold",
        change_group(1, "down", lambda e: e["range"].update(max=0.1)),
        "must be finite float32",
    ),
    (
        "a mean beyond the maximum",
        change_group(1, "down", lambda e: e.update(mean=2.1)),
        "layer 1, down: n, mean or std",
    ),
    ("a range with another scale", change_group(0, "gate_up", next_range), f"{GATE}.input_scale"),
]
for _part in check_w8a8.PARTS:
    DAMAGES += [
        (f"a key without {_part}", affine_cases.drop_tensor(f"{UP}.{_part}"), f"{UP}.{_part} is"),
    ]


def expect_formula(expectations: affine_cases.Expectations) -> None:
    """input_scale and input_offset: worked by hand, and a sweep against the scalar rules."""
    by_hand = [
        ("F16", 0.0, 255.0, 1.0, -128.0),  # a power of two has an exact reciprocal
        ("BF16", -8.0, 7.9375, 0.0625, 0.0),
        ("BF16", 0.0, 0.0, 2.0**-23, -128.0),
        ("BF16", -255.0, -1.0, 1.0, 127.0),
        # 1 / (256 * 2^-24) = 65536 overflows; of 257..260 the reciprocals 65280, 65024, 64768 and
        # 64512 times the value are 1 - 256, 1024, 2304 and 4096 times 2^-24.
        ("F16", 0.0, 0.0, 257.0 * 2.0**-24, -128.0),
        # bfloat16 above 1/2: 129, 130, 131, 132 / 256; reciprocals 254, 252, 250, 248 / 128; the
        # products 32766, 32760, 32750, 32736 / 32768.
        ("BF16", 0.0, 255.0 * 129.0 / 256.0, 129.0 / 256.0, -128.0),
        # 133..136 / 256: 246, 244, 242, 241 / 128 -> 32718, 32696, 32670, 32776 (nearest)
        ("BF16", 0.0, 255.0 * 133.0 / 256.0, 136.0 / 256.0, -128.0),
    ]
    for dtype, low, high, scale, offset in by_hand:
        got = tuple(float(v) for v in check_w8a8.quantize_input(low, high, dtype))
        outcome = int(got != (scale, offset)), f"{got}, expected {(scale, offset)}"
        expectations.expect(f"{dtype} range [{low}, {high}]", outcome, 0, str(scale))
    random = np.random.default_rng(3)
    for dtype in ("F16", "BF16"):
        wrong = []
        for exponent, place in zip(random.uniform(-20, 20, 1000), random.uniform(-0.2, 1.2, 1000)):
            width = 2.0**exponent
            low, high = f32(-place * width), f32((1 - place) * width)
            got = tuple(float(v) for v in check_w8a8.quantize_input(low, high, dtype))
            if got != quantize_input(low, high, dtype):
                wrong.append(f"[{low}, {high}]: {got} and {quantize_input(low, high, dtype)}")
        outcome = int(bool(wrong)), "; ".join(wrong[:1]) or "all equal"
        expectations.expect(f"1000 {dtype} ranges", outcome, 0, "all equal")


def main() -> int:
    expectations = affine_cases.Expectations()
    expect = expectations.expect
    expect_formula(expectations)
    dtypes = (("F32", "F16"), ("F32", "BF16"), ("F16", "F16"), ("BF16", "BF16"), ("BF16", "F16"))
    for source, dtype in dtypes:
        for tied, head, n_shards in ((True, False, 1), (True, True, 1), (False, True, 3)):
            setup = Setup(source, dtype, tied, head, n_shards)
            what = f"{source} to {dtype}, tied {tied}, head quantized {head}, {n_shards} file(s)"
            expect(what, setup.run(), 0, f"ok: {13 + head} linears")
    for what, damage, named in DAMAGES:
        setup = Setup("BF16", "BF16", True, True)
        damage(setup)
        expect(what, setup.run(), 1, named)
    for what, damage, named in (
        ("codes of the 16-bit copy", codes_of_cast_weights, f"{OUT}.weight["),
        ("quant_bias of another bias", bias_of_source, f"{FINE_Q}.quant_bias["),
        (
            "the upper half of deq_scale",
            affine_cases.add_to_byte(f"{Q}.deq_scale", 12, 255),
            f"{Q}.deq_scale[1]",
        ),
    ):
        setup = Setup("F32", "F16", True, False)
        damage(setup)
        expect(what, setup.run(), 1, named)
    setup = Setup("F32", "F16", True, False, 2)
    outcome = setup.run(damage_files=lambda d: affine_cases.swap_in_index(d, f"{Q}.weight"))
    expect("an index that names the wrong file", outcome, 1, "the index disagrees")
    setup = Setup("F32", "F16", True, False)
    expect("the expected dtype", setup.run("--dtype", "float16"), 0, "ok")
    expect("another dtype", setup.run("--dtype", "bfloat16"), 1, "expected 'bfloat16'")
    expect("ranges of two methods", setup.run("--act-method", "2"), 1, "act_method is 1")
    affine_cases.drop(f"{HEAD}.weight")(setup)
    expect("no head", setup.run(), 1, "lm_head.weight: missing")
    expect("a tied head kept tied", setup.run("--keep-tied"), 0, "ok")
    change_group(1, "down", lambda e: e.update(std=2.0 / 51))(setup)
    for entry in setup.statistics["groups"]:
        if entry["layer"] != 1:
            entry["std"] = 0.0
    expect("choice by max|x| / std", setup.run("--act-method", "3", "--keep-tied"), 1, "1, down")
    return expectations.finish()
