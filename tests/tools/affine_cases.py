"""What the self-tests of the recomputing checkers share: scalar rounding, folders, damage.

Values are rounded one by one with struct and Fraction, so that nothing of the checkers' arithmetic
is used to test them. float32 division in Python's float64 is exact: a float64 quotient of two
float32 numbers rounds to the same float32 as the exact one (53 >= 2 * 24 + 2).
"""

import contextlib
import io
import json
import pathlib
import struct
import sys
from fractions import Fraction
from typing import Callable, Dict, List, Tuple

import numpy as np

import safetensors_io
from safetensors_io import Raw

FLOOR = 2.0**-23


# ---- values -------------------------------------------------------------------------------------


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


def random_values(random: np.random.Generator, shape: Tuple[int, ...], dtype: str) -> List[float]:
    """Normal numbers of deviation 0.05, exact in `dtype`."""
    raw = (random.standard_normal(shape) * 0.05).ravel().tolist()
    return [f32(v) if dtype == "F32" else to_dtype(v, dtype) for v in raw]


def awkward_rows(k: int) -> List[List[float]]:
    """Seven weight rows of k numbers at the edges of the rules, exact in float16 and bfloat16."""
    return [
        [0.0] * k,  # the floor
        [float(i - 12) / 2 for i in range(k - 1)] + [127.0],  # scale 1: ties at every other code
        [2.0**-15 * (i % 5 - 2) for i in range(k)],  # a subnormal scale in float16
        [2.0**-24] * k,  # below the floor
        [0.0625 * (i + 1) for i in range(k)],  # no negative weight
        [-0.0625 * (i + 1) for i in range(k)],  # no positive weight
        [-240.0] + [float(i) for i in range(k - 1)],
    ]


# ---- folders ------------------------------------------------------------------------------------


def write_tensors(folder: pathlib.Path, stem: str, tensors: Dict[str, Raw], n_shards: int) -> None:
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


class Case:
    """A source and its quantized form, still in memory so that damage can be done to them."""

    def __init__(self, n_shards: int):
        self.n_shards = n_shards
        self.source: Dict[str, Raw] = {}
        self.source_config: Dict[str, object] = {}
        self.tensors: Dict[str, Raw] = {}
        self.tags: Dict[str, object] = {}
        self.config: Dict[str, object] = {}

    def write(self, root: pathlib.Path) -> Tuple[pathlib.Path, pathlib.Path]:
        """Writes both folders below `root`; returns source and quantized."""
        source, quantized = root / "source", root / "quantized"
        write_tensors(source, "model", self.source, self.n_shards)
        (source / "config.json").write_text(json.dumps(self.source_config))
        write_tensors(quantized, "quant_model_weight", self.tensors, self.n_shards)
        (quantized / "config.json").write_text(json.dumps(self.config))
        (quantized / "quant_model_description.json").write_text(json.dumps(self.tags))
        return source, quantized


def call(main: Callable[[], int], *arguments) -> Tuple[int, str]:
    """Runs a checker's main as a user would; returns its exit code and what it printed."""
    output, kept = io.StringIO(), sys.argv
    sys.argv = ["checker", *[str(argument) for argument in arguments]]
    try:
        with contextlib.redirect_stdout(output):
            code = main()
    finally:
        sys.argv = kept
    return code, output.getvalue()


class Expectations:
    """Prints each outcome as one line and counts those that were not as expected."""

    def __init__(self) -> None:
        self.failures: List[str] = []

    def expect(self, what: str, outcome: Tuple[int, str], code: int, named: str) -> None:
        """`outcome` must have this exit code and a first line that contains `named`."""
        first = outcome[1].splitlines()[0] if outcome[1] else ""
        good = outcome[0] == code and named in first
        print(f"{'ok' if good else 'FAILED'}: {what}: {first}")
        if not good:
            self.failures.append(what)

    def finish(self) -> int:
        print(f"{len(self.failures)} failures")
        return 1 if self.failures else 0


# ---- damage -------------------------------------------------------------------------------------


def add_to_byte(name: str, position: int, delta: int) -> Callable[[Case], None]:
    def damage(case: Case) -> None:
        raw = case.tensors[name]
        data = bytearray(raw.data)
        data[position] = (data[position] + delta) % 256
        case.tensors[name] = raw._replace(data=bytes(data))

    return damage


def next_float(name: str, index: int, ulp: int = 1) -> Callable[[Case], None]:
    """Moves one F32 element upward by `ulp` bit patterns (0x10000: one bfloat16 ulp)."""

    def damage(case: Case) -> None:
        words = np.frombuffer(case.tensors[name].data, dtype="<u4").copy()
        words[index] += np.uint32(ulp)
        case.tensors[name] = case.tensors[name]._replace(data=words.tobytes())

    return damage


def transpose_shape(name: str) -> Callable[[Case], None]:
    def damage(case: Case) -> None:
        raw = case.tensors[name]
        case.tensors[name] = raw._replace(shape=raw.shape[::-1])

    return damage


def drop(name: str) -> Callable[[Case], None]:
    """Removes a tensor and its key."""

    def damage(case: Case) -> None:
        del case.tensors[name], case.tags[name]

    return damage


def drop_tensor(name: str) -> Callable[[Case], None]:
    """Removes a tensor and leaves its key."""
    return lambda case: case.tensors.pop(name)


def rename(old: str, new: str) -> Callable[[Case], None]:
    def damage(case: Case) -> None:
        case.tensors[new] = case.tensors.pop(old)
        case.tags[new] = case.tags.pop(old)

    return damage


def tag(name: str, value: object) -> Callable[[Case], None]:
    return lambda case: case.tags.update({name: value})


def untag(name: str) -> Callable[[Case], None]:
    return lambda case: case.tags.pop(name)


def state(**values) -> Callable[[Case], None]:
    """Changes keys of the quantized folder's config.json."""
    return lambda case: case.config.update(values)


def swap_in_index(folder: pathlib.Path, name: str) -> None:
    """The index of a written folder names another file for one tensor."""
    file = next(folder.glob("*.index.json"))
    index = json.loads(file.read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"][name] = files[index["weight_map"][name] == files[0]]
    file.write_text(json.dumps(index))
