"""Self-test of check_w8a16.py: a scalar quantizer it must accept, and damage it must name."""

import pathlib
import struct
import tempfile
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

import affine_cases
import check_w8a16
from affine_cases import FLOOR, f32, pack, to_dtype
from safetensors_io import Raw

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"


def quantize_row(row: List[float], dtype: str, asymmetric: bool):
    """Codes, scale and offset of one output channel, one number at a time."""
    if not asymmetric:
        scale = to_dtype(max(f32(max(abs(w) for w in row) / 127), FLOOR), dtype)
        return [max(-127, min(127, round(f32(w / scale)))) for w in row], scale, 0.0
    low, high = min(row + [0.0]), max(row + [0.0])
    scale = to_dtype(max(f32(f32(high / 255) - f32(low / 255)), FLOOR), dtype)
    offset = float(max(-128, min(127, round(f32(-low / scale)) - 128)))
    return [max(-128, min(127, round(f32(f32(w / scale) + offset)))) for w in row], scale, offset


def make_source(dtype: str, tied: bool) -> Dict[str, Tuple[Tuple[int, ...], List[float]]]:
    """name -> (shape, values): random rows and the awkward ones, all exact in `dtype`."""
    random = np.random.default_rng(7)
    k = 24

    def values(*shape):
        return shape, affine_cases.random_values(random, shape, dtype)

    tensors = {
        "model.embed_tokens.weight": values(10, k),
        NORM: values(k),
        f"{Q}.weight": values(40, k),
        f"{Q}.bias": values(40),
        f"{DOWN}.weight": ((7, k), sum(affine_cases.awkward_rows(k), [])),
    }
    if not tied:
        tensors[HEAD] = values(10, k)
    return tensors


class Setup(affine_cases.Case):
    """A source of one dtype and its W8A16 form for a model dtype."""

    def __init__(self, source_dtype: str, dtype: str, tied: bool, asymmetric: bool, n_shards: int):
        super().__init__(n_shards)
        self.asymmetric = asymmetric
        values = make_source(source_dtype, tied)
        self.source = {
            name: Raw(source_dtype, shape, pack(numbers, source_dtype))
            for name, (shape, numbers) in values.items()
        }
        self.source_config = {"tie_word_embeddings": tied, "torch_dtype": "float32"}
        self.config = {"torch_dtype": {"F16": "float16", "BF16": "bfloat16"}[dtype]}
        self.tags = {"model_quant_type": "W8A16", "version": "1.0.0"}
        for name, (shape, numbers) in values.items():
            if "_proj.weight" in name:
                self.add_linear(name, shape, numbers, dtype)
            else:
                self.tensors[name] = Raw(dtype, shape, pack(numbers, dtype))
                self.tags[name] = "FLOAT"
        if tied:
            self.tensors[HEAD] = self.tensors["model.embed_tokens.weight"]
            self.tags[HEAD] = "FLOAT"

    def add_linear(self, name: str, shape, numbers: List[float], dtype: str) -> None:
        n, k = shape
        channels = [numbers[i * k : (i + 1) * k] for i in range(n)]
        rows = [quantize_row(channel, dtype, self.asymmetric) for channel in channels]
        codes = [code for row in rows for code in row[0]]
        parts = {
            "": Raw("I8", (n, k), struct.pack(f"<{n * k}b", *codes)),
            "_scale": Raw("F32", (n, 1), struct.pack(f"<{n}f", *[row[1] for row in rows])),
            "_offset": Raw("F32", (n, 1), struct.pack(f"<{n}f", *[row[2] for row in rows])),
        }
        for suffix, raw in parts.items():
            self.tensors[name + suffix] = raw
            self.tags[name + suffix] = "W8A16"

    def run(self, damage_files: Optional[Callable] = None, options: Tuple[str, ...] = ()):
        """Writes both folders and runs the checker as a user would; returns (code, output)."""
        with tempfile.TemporaryDirectory() as root:
            source, quantized = self.write(pathlib.Path(root))
            if damage_files:
                damage_files(quantized)
            flags = ["--asymmetric"] if self.asymmetric else []
            return affine_cases.call(check_w8a16.main, *flags, *options, source, quantized)


def codes_of_cast_weights(setup: Setup) -> None:
    """Codes from the 16-bit copy of a float32 source: the mistake that the rules name."""
    shape, values = make_source("F32", True)[f"{Q}.weight"]
    setup.add_linear(f"{Q}.weight", shape, [to_dtype(v, "F16") for v in values], "F16")


# (what is damaged, how, what the first line must name)
DAMAGES = [
    ("a code up by one", affine_cases.add_to_byte(f"{Q}.weight", 100, 1), f"{Q}.weight[4, 4]"),
    (
        "a code down by one",
        affine_cases.add_to_byte(f"{DOWN}.weight", 30, -1),
        f"{DOWN}.weight[1, 6]",
    ),
    (
        "a scale, one float32 ulp",
        affine_cases.next_float(f"{Q}.weight_scale", 3),
        f"{Q}.weight_scale[3, 0]",
    ),
    (
        "a scale, one bfloat16 ulp",
        affine_cases.next_float(f"{Q}.weight_scale", 3, 0x10000),
        f"{Q}.weight_scale[3, 0]",
    ),
    (
        "a negative zero",
        affine_cases.add_to_byte(f"{Q}.weight_offset", 7, 0x80),
        f"{Q}.weight_offset[1, 0]",
    ),
    ("a norm's last bit", affine_cases.add_to_byte(NORM, 8, 1), f"{NORM}[4]"),
    ("a bias's last bit", affine_cases.add_to_byte(f"{Q}.bias", 0, 1), f"{Q}.bias[0]"),
    ("a head, no clone", affine_cases.add_to_byte(HEAD, 2, 1), f"{HEAD}[0, 1]"),
    ("a missing head", affine_cases.drop(HEAD), f"{HEAD}: missing"),
    (
        "a transposed shape",
        affine_cases.transpose_shape(f"{Q}.weight"),
        f"{Q}.weight: is I8 [24, 40]",
    ),
    (
        "a missing scale",
        affine_cases.drop_tensor(f"{Q}.weight_scale"),
        f"{Q}.weight_scale is in no file",
    ),
    ("a renamed tensor", affine_cases.rename(NORM, "model.norm2.weight"), f"{NORM}: missing"),
    ("a tensor without a key", affine_cases.untag(NORM), f"no key for {NORM}"),
    (
        "a key without a tensor",
        affine_cases.tag("model.ghost", "FLOAT"),
        "model.ghost is in no file",
    ),
    (
        "a linear tagged FLOAT",
        affine_cases.tag(f"{Q}.weight", "FLOAT"),
        f"{Q}.weight disagree",
    ),
    ("another scheme's name", affine_cases.tag("model_quant_type", "W8A8"), "model_quant_type"),
    ("another version", affine_cases.tag("version", "0.0.0"), "version is '0.0.0'"),
    ("another torch_dtype", affine_cases.state(torch_dtype="float32"), "torch_dtype is 'float32'"),
]


def main() -> int:
    expectations = affine_cases.Expectations()
    expect = expectations.expect
    dtypes = (("F32", "F16"), ("F32", "BF16"), ("F16", "F16"), ("BF16", "BF16"), ("BF16", "F16"))
    for source, dtype in dtypes:
        for asymmetric in (False, True):
            for tied, n_shards in ((True, 1), (False, 3)):
                setup = Setup(source, dtype, tied, asymmetric, n_shards)
                kind = "asymmetric" if asymmetric else "symmetric"
                head = "tied" if tied else "untied"
                what = f"{source} to {dtype}, {kind}, {head}, {n_shards} file(s)"
                expect(what, setup.run(), 0, "ok: 2 linears")
                setup.asymmetric = not asymmetric
                expect(what + ", checked as the other kind", setup.run(), 1, DOWN)
    for what, damage, named in DAMAGES:
        for n_shards in (1, 2):
            setup = Setup("BF16", "BF16", True, False, n_shards)
            damage(setup)
            expect(f"{what}, {n_shards} file(s)", setup.run(), 1, named)
    setup = Setup("F32", "F16", True, False, 1)
    codes_of_cast_weights(setup)
    expect("codes of the 16-bit copy", setup.run(), 1, f"{Q}.weight")
    setup = Setup("F32", "F16", True, False, 2)
    outcome = setup.run(lambda folder: affine_cases.swap_in_index(folder, f"{Q}.weight"))
    expect("an index that names the wrong file", outcome, 1, "the index disagrees")
    setup = Setup("F16", "F16", True, True, 1)
    affine_cases.add_to_byte(f"{Q}.weight_offset", 2, 0x80)(setup)
    expect("another asymmetric offset", setup.run(), 1, f"{Q}.weight_offset[0, 0]")
    setup = Setup("F16", "F16", True, False, 1)
    affine_cases.drop(HEAD)(setup)
    expect("a tied head kept tied", setup.run(None, ("--keep-tied",)), 0, "ok")
    return expectations.finish()
