"""Self-test of check_w8a16.py: a scalar quantizer it must accept, and damage it must name.

The quantizer works number by number in Python's float64 and rounds with struct and Fraction, so
that it shares no arithmetic with the checker. Its float32 division is exact: a float64 quotient of
two float32 numbers rounds to the same float32 as the exact one (53 >= 2 * 24 + 2).
"""

import contextlib
import io
import json
import pathlib
import struct
import sys
import tempfile
from fractions import Fraction
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

import check_w8a16
import safetensors_io
from safetensors_io import Raw


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def to_dtype(value: float, dtype: str) -> float:
    """Half to even; bfloat16 by exact fractions (normal numbers and zero only)."""
    if dtype == "F16":
        return struct.unpack("<e", struct.pack("<e", value))[0]
    if value == 0.0:
        return value
    magnitude, exponent = Fraction(abs(value)), 0
    while magnitude >= 256:
        magnitude, exponent = magnitude / 2, exponent + 1
    while magnitude < 128:
        magnitude, exponent = magnitude * 2, exponent - 1
    rounded = float(Fraction(round(magnitude)) * Fraction(2) ** exponent)
    return -rounded if value < 0 else rounded


def pack(values: List[float], dtype: str) -> bytes:
    if dtype == "F32":
        return struct.pack(f"<{len(values)}f", *values)
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    words = [struct.unpack("<I", struct.pack("<f", to_dtype(v, dtype)))[0] >> 16 for v in values]
    return struct.pack(f"<{len(words)}H", *words)


def quantize_row(row: List[float], dtype: str, asymmetric: bool):
    """Codes, scale and offset of one output channel, one number at a time."""
    floor = 2.0**-23
    if not asymmetric:
        scale = to_dtype(max(f32(max(abs(w) for w in row) / 127), floor), dtype)
        return [max(-127, min(127, round(f32(w / scale)))) for w in row], scale, 0.0
    low, high = min(row + [0.0]), max(row + [0.0])
    scale = to_dtype(max(f32(f32(high / 255) - f32(low / 255)), floor), dtype)
    offset = float(max(-128, min(127, round(f32(-low / scale)) - 128)))
    return [max(-128, min(127, round(f32(f32(w / scale) + offset)))) for w in row], scale, offset


def make_source(dtype: str, tied: bool) -> Dict[str, List]:
    """name -> (shape, values): random rows and the awkward ones, all exact in `dtype`."""
    random = np.random.default_rng(7)

    def values(*shape):
        raw = random.standard_normal(shape) * 0.05
        return [to_dtype(v, dtype) if dtype != "F32" else f32(v) for v in raw.ravel().tolist()]

    k = 24
    special = [
        [0.0] * k,  # the floor
        [float(i - 12) / 2 for i in range(k - 1)] + [127.0],  # scale 1: ties at every other code
        [2.0**-15 * (i % 5 - 2) for i in range(k)],  # a subnormal scale in float16
        [2.0**-24] * k,  # below the floor
        [0.0625 * (i + 1) for i in range(k)],  # no negative weight
        [-0.0625 * (i + 1) for i in range(k)],  # no positive weight
        [-240.0] + [float(i) for i in range(k - 1)],
    ]
    tensors = {
        "model.embed_tokens.weight": ([10, k], values(10, k)),
        "model.norm.weight": ([k], values(k)),
        "model.layers.0.self_attn.q_proj.weight": ([40, k], values(40, k)),
        "model.layers.0.self_attn.q_proj.bias": ([40], values(40)),
        "model.layers.0.mlp.down_proj.weight": ([7, k], sum(special, [])),
    }
    if not tied:
        tensors["lm_head.weight"] = ([10, k], values(10, k))
    return tensors


def write_folder(folder: pathlib.Path, stem: str, tensors: Dict[str, Raw], n_shards: int) -> None:
    """Writes tensors as one file, or as shards with their index."""
    folder.mkdir()
    if n_shards == 1:
        safetensors_io.write_file(folder / f"{stem}.safetensors", tensors)
        return
    weight_map = {}
    for shard in range(n_shards):
        file = f"{stem}-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {n: t for i, (n, t) in enumerate(sorted(tensors.items())) if i % n_shards == shard}
        safetensors_io.write_file(folder / file, part)
        weight_map.update({name: file for name in part})
    total = sum(len(raw.data) for raw in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


class Setup:
    """One source and its quantized form, still in memory so that damage can be done to it."""

    def __init__(self, source_dtype: str, dtype: str, tied: bool, asymmetric: bool, n_shards: int):
        self.asymmetric, self.n_shards = asymmetric, n_shards
        values = make_source(source_dtype, tied)
        self.source = {
            name: Raw(source_dtype, tuple(shape), pack(numbers, source_dtype))
            for name, (shape, numbers) in values.items()
        }
        self.source_config = {"tie_word_embeddings": tied, "torch_dtype": "float32"}
        self.config = {"torch_dtype": {"F16": "float16", "BF16": "bfloat16"}[dtype]}
        self.tags = {"model_quant_type": "W8A16", "version": "1.0.0"}
        self.tensors: Dict[str, Raw] = {}
        for name, (shape, numbers) in values.items():
            if "_proj.weight" in name:
                self.add_linear(name, shape, numbers, dtype)
            else:
                self.tensors[name] = Raw(dtype, tuple(shape), pack(numbers, dtype))
                self.tags[name] = "FLOAT"
        if tied:
            self.tensors["lm_head.weight"] = self.tensors["model.embed_tokens.weight"]
            self.tags["lm_head.weight"] = "FLOAT"

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
            source, quantized = pathlib.Path(root) / "source", pathlib.Path(root) / "quantized"
            write_folder(source, "model", self.source, self.n_shards)
            (source / "config.json").write_text(json.dumps(self.source_config))
            write_folder(quantized, "quant_model_weight_w8a16", self.tensors, self.n_shards)
            (quantized / "config.json").write_text(json.dumps(self.config))
            (quantized / "quant_model_description.json").write_text(json.dumps(self.tags))
            if damage_files:
                damage_files(quantized)
            flags = ["--asymmetric"] if self.asymmetric else []
            output, arguments = io.StringIO(), sys.argv
            sys.argv = ["check_w8a16.py", *flags, *options, str(source), str(quantized)]
            try:
                with contextlib.redirect_stdout(output):
                    code = check_w8a16.main()
            finally:
                sys.argv = arguments
            return code, output.getvalue()


Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


def add_to_byte(setup: Setup, name: str, position: int, delta: int) -> None:
    raw = setup.tensors[name]
    data = bytearray(raw.data)
    data[position] = (data[position] + delta) % 256
    setup.tensors[name] = raw._replace(data=bytes(data))


def next_scale(setup: Setup, dtype: str) -> None:
    """The scale of one channel becomes the next value of `dtype`."""
    raw = setup.tensors[f"{Q}.weight_scale"]
    scales = np.frombuffer(raw.data, dtype="<f4").copy()
    if dtype == "F32":
        scales[3] = np.nextafter(scales[3], np.float32(np.inf))
    else:
        scales[3:4] = (scales[3:4].view(np.uint32) + np.uint32(0x10000)).view(np.float32)
    setup.tensors[f"{Q}.weight_scale"] = raw._replace(data=scales.tobytes())


def codes_of_cast_weights(setup: Setup) -> None:
    """Codes from the 16-bit copy of a float32 source: the mistake that the rules name."""
    shape, values = make_source("F32", True)[f"{Q}.weight"]
    setup.add_linear(f"{Q}.weight", shape, [to_dtype(v, "F16") for v in values], "F16")


def rename(setup: Setup, old: str, new: str) -> None:
    setup.tensors[new] = setup.tensors.pop(old)
    setup.tags[new] = setup.tags.pop(old)


def swap_in_index(folder: pathlib.Path) -> None:
    file = next(folder.glob("*.index.json"))
    index = json.loads(file.read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"][f"{Q}.weight"] = files[index["weight_map"][f"{Q}.weight"] == files[0]]
    file.write_text(json.dumps(index))


def drop_head(setup: Setup) -> None:
    del setup.tensors["lm_head.weight"], setup.tags["lm_head.weight"]


def transpose_shape(setup: Setup) -> None:
    raw = setup.tensors[f"{Q}.weight"]
    setup.tensors[f"{Q}.weight"] = raw._replace(shape=raw.shape[::-1])


def damage_byte(name: str, position: int, delta: int) -> Callable:
    return lambda setup: add_to_byte(setup, name, position, delta)


def tag(name: str, value: str) -> Callable:
    return lambda setup: setup.tags.update({name: value})


# (what is damaged, how, what the first line must name)
DAMAGES = [
    ("a code up by one", damage_byte(f"{Q}.weight", 100, 1), f"{Q}.weight[4, 4]"),
    ("a code down by one", damage_byte(f"{DOWN}.weight", 30, -1), f"{DOWN}.weight[1, 6]"),
    ("a scale, one float32 ulp", lambda s: next_scale(s, "F32"), f"{Q}.weight_scale[3, 0]"),
    ("a scale, one bfloat16 ulp", lambda s: next_scale(s, "BF16"), f"{Q}.weight_scale[3, 0]"),
    ("a negative zero", damage_byte(f"{Q}.weight_offset", 7, 0x80), f"{Q}.weight_offset[1, 0]"),
    ("a norm's last bit", damage_byte("model.norm.weight", 8, 1), "model.norm.weight[4]"),
    ("a bias's last bit", damage_byte(f"{Q}.bias", 0, 1), f"{Q}.bias[0]"),
    ("a head, no clone", damage_byte("lm_head.weight", 2, 1), "lm_head.weight[0, 1]"),
    ("a missing head", drop_head, "lm_head.weight: missing"),
    ("a transposed shape", transpose_shape, f"{Q}.weight: is I8 [24, 40]"),
    (
        "a missing scale",
        lambda s: s.tensors.pop(f"{Q}.weight_scale"),
        f"{Q}.weight_scale is in no file",
    ),
    (
        "a renamed tensor",
        lambda s: rename(s, "model.norm.weight", "model.norm2.weight"),
        "model.norm.weight: missing",
    ),
    (
        "a tensor without a key",
        lambda s: s.tags.pop("model.norm.weight"),
        "no key for model.norm.weight",
    ),
    ("a key without a tensor", tag("model.ghost", "FLOAT"), "model.ghost is in no file"),
    ("a linear tagged FLOAT", tag(f"{Q}.weight", "FLOAT"), f"{Q}.weight disagree"),
    ("another scheme's name", tag("model_quant_type", "W8A8"), "model_quant_type"),
    (
        "another torch_dtype",
        lambda s: s.config.update(torch_dtype="float32"),
        "torch_dtype is 'float32'",
    ),
]


def main() -> int:
    failures: List[str] = []

    def expect(what: str, setup: Setup, code: int, named: str, *arguments) -> None:
        got, output = setup.run(*arguments)
        first = output.splitlines()[0] if output else ""
        good = got == code and named in first
        print(f"{'ok' if good else 'FAILED'}: {what}: {first}")
        if not good:
            failures.append(what)

    dtypes = (("F32", "F16"), ("F32", "BF16"), ("F16", "F16"), ("BF16", "BF16"), ("BF16", "F16"))
    for source, dtype in dtypes:
        for asymmetric in (False, True):
            for tied, n_shards in ((True, 1), (False, 3)):
                setup = Setup(source, dtype, tied, asymmetric, n_shards)
                kind = "asymmetric" if asymmetric else "symmetric"
                head = "tied" if tied else "untied"
                what = f"{source} to {dtype}, {kind}, {head}, {n_shards} file(s)"
                expect(what, setup, 0, "ok: 2 linears")
                setup.asymmetric = not asymmetric
                expect(what + ", checked as the other kind", setup, 1, DOWN)
    for what, damage, named in DAMAGES:
        for n_shards in (1, 2):
            setup = Setup("BF16", "BF16", True, False, n_shards)
            damage(setup)
            expect(f"{what}, {n_shards} file(s)", setup, 1, named)
    setup = Setup("F32", "F16", True, False, 1)
    codes_of_cast_weights(setup)
    expect("codes of the 16-bit copy", setup, 1, f"{Q}.weight")
    setup = Setup("F32", "F16", True, False, 2)
    expect("an index that names the wrong file", setup, 1, "the index disagrees", swap_in_index)
    setup = Setup("F16", "F16", True, True, 1)
    add_to_byte(setup, f"{Q}.weight_offset", 2, 0x80)
    expect("another asymmetric offset", setup, 1, f"{Q}.weight_offset[0, 0]")
    setup = Setup("F16", "F16", True, False, 1)
    drop_head(setup)
    expect("a tied head kept tied", setup, 0, "ok", None, ("--keep-tied",))
    print(f"{len(failures)} failures")
    return 1 if failures else 0
