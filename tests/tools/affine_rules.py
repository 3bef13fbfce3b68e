"""What the recomputing checkers share: rounding in numpy, checkpoints, comparison of bytes.

Shares no code with the library under test. A checker adds the tensors of its scheme's linears;
everything that is not quantized equals the source cast to the model's dtype, half to even, where
the model's dtype is that of the FLOAT tensors. A difference is one line of text, the first element
that differs named; lines come in order of tensor name.
"""

import json
import pathlib
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

import safetensors_io
from safetensors_io import Raw

EPSILON = np.float32(2.0**-23)  # the floor of every scale
NAMES = {"F16": "float16", "BF16": "bfloat16"}
DESCRIPTION = "quant_model_description.json"
METADATA_KEYS = ("model_quant_type", "version", "group_size", "metadata", "optional")


# ---- values -------------------------------------------------------------------------------------


def to_float32(raw: Raw) -> np.ndarray:
    """The values of an F32, F16 or BF16 tensor, exactly."""
    if raw.dtype == "BF16":
        words = np.frombuffer(raw.data, dtype="<u2").astype(np.uint32) << np.uint32(16)
        return words.view(np.float32).reshape(raw.shape)
    kind = {"F32": "<f4", "F16": "<f2"}[raw.dtype]
    return np.frombuffer(raw.data, dtype=kind).astype(np.float32).reshape(raw.shape)


def to_values(raw: Raw) -> np.ndarray:
    """The values of a tensor of any dtype, integers as integers."""
    integers = {"I8": "<i1", "U8": "<u1", "I32": "<i4", "I64": "<i8"}
    if raw.dtype in integers:
        return np.frombuffer(raw.data, dtype=integers[raw.dtype]).reshape(raw.shape)
    return to_float32(raw)


def bfloat16_words(values: np.ndarray) -> np.ndarray:
    """Finite float32 to bfloat16 bit patterns, half to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def cast_bytes(values: np.ndarray, dtype: str) -> bytes:
    """Finite float32 values as the bytes of a model dtype."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "BF16":
        return bfloat16_words(values).tobytes()
    with np.errstate(over="ignore"):
        return values.astype("<f2").tobytes()


def cast_raw(values: np.ndarray, dtype: str) -> Raw:
    """Finite float32 values as a tensor of a model dtype."""
    return Raw(dtype, values.shape, cast_bytes(values, dtype))


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values that the model's dtype holds."""
    return to_float32(cast_raw(values, dtype))


def symmetric_scale(weight: np.ndarray) -> np.ndarray:
    """weight [n, k] float32 -> [n, 1] float32: max|w| / 127, floored."""
    amax = np.abs(weight).max(axis=1, keepdims=True)
    return np.maximum(amax / np.float32(127), EPSILON)


def symmetric_codes(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """weight [n, k], scale [n, 1], float32 -> int8 [n, k] within -127..127."""
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)


# ---- checkpoints --------------------------------------------------------------------------------


class Checkpoint:
    """Tensors, config.json and (of a quantized one) the description file of a folder."""

    def __init__(self, folder: pathlib.Path):
        self.tensors = safetensors_io.read_folder(folder)
        self.config = json.loads((folder / "config.json").read_text())
        description = folder / DESCRIPTION
        self.description = json.loads(description.read_text()) if description.exists() else {}


def source_tensor(source: Checkpoint, name: str) -> Optional[Raw]:
    """The tensor that an output name stands for: of a tied head, the embedding."""
    tied = source.config.get("tie_word_embeddings", False)
    if name == "lm_head.weight" and tied:
        return source.tensors.get("model.embed_tokens.weight", source.tensors.get(name))
    return source.tensors.get(name)


def linears_of(quantized: Checkpoint, scheme: str) -> List[str]:
    """Names of the weights that the description tags with the scheme, in order."""
    tags = quantized.description.items()
    return sorted(name for name, tag in tags if tag == scheme and name.endswith(".weight"))


# ---- comparison ---------------------------------------------------------------------------------


def first_difference(name: str, got: Raw, want: Raw) -> List[str]:
    """One line naming the dtype or shape that differs, or the first element."""
    if got.dtype != want.dtype or got.shape != want.shape:
        found, expected = f"{got.dtype} {list(got.shape)}", f"{want.dtype} {list(want.shape)}"
        return [f"{name}: is {found}, expected {expected}"]
    if got.data == want.data:
        return []
    size = safetensors_io.ITEM_BYTES[want.dtype]
    a = np.frombuffer(got.data, dtype=np.uint8).reshape(-1, size)
    b = np.frombuffer(want.data, dtype=np.uint8).reshape(-1, size)
    differs = (a != b).any(axis=1)
    at = int(np.argmax(differs))
    index = [int(i) for i in np.unravel_index(at, want.shape)]
    return [
        f"{name}{index}: is {to_values(got).ravel()[at]!r} (bytes {a[at].tobytes().hex()}), "
        f"expected {to_values(want).ravel()[at]!r} (bytes {b[at].tobytes().hex()}); "
        f"{int(differs.sum())} of {len(a)} elements differ"
    ]


def check_description(quantized: Checkpoint, scheme: str, parts: Sequence[str]) -> List[str]:
    """Every tensor a key, every key a tensor or metadata; the tags of one linear agree.

    `parts` are the suffixes, such as "weight_scale", that stand beside a weight of the scheme.
    """
    tags, wrong = quantized.description, []
    for name in sorted(quantized.tensors):
        if name not in tags:
            wrong.append(f"{DESCRIPTION}: no key for {name}")
        elif tags[name] not in ("FLOAT", scheme):
            wrong.append(f"{DESCRIPTION}: {name} is {tags[name]!r}")
        stem, part = name.rsplit(".", 1)
        if part in parts and not tags.get(name) == tags.get(f"{stem}.weight") == scheme:
            wrong.append(f"{DESCRIPTION}: {name} and {stem}.weight disagree")
        if part == "bias" and tags.get(name) != "FLOAT":
            wrong.append(f"{DESCRIPTION}: {name} is {tags.get(name)!r}, biases are FLOAT")
    for name in sorted(set(tags) - set(METADATA_KEYS) - set(quantized.tensors)):
        wrong.append(f"{DESCRIPTION}: {name} is in no file")
    for key, expected in (("model_quant_type", scheme), ("version", "1.0.0")):
        if tags.get(key) != expected:
            wrong.append(f"{DESCRIPTION}: {key} is {tags.get(key)!r}, expected {expected!r}")
    if not linears_of(quantized, scheme):
        wrong.append(f"{DESCRIPTION}: no linear is {scheme}")
    return wrong


def model_dtype(quantized: Checkpoint) -> Tuple[Optional[str], List[str]]:
    """The one dtype of all FLOAT tensors, which config.json must state."""
    found: Dict[str, str] = {}
    for name, raw in sorted(quantized.tensors.items()):
        if quantized.description.get(name) == "FLOAT":
            found.setdefault(raw.dtype, name)
    if len(found) != 1 or not set(found) <= set(NAMES):
        return None, [f"FLOAT tensors must be all float16 or all bfloat16, found {found}"]
    (dtype,) = found
    stated = quantized.config.get("torch_dtype")
    if stated != NAMES[dtype]:
        return dtype, [f"config.json: torch_dtype is {stated!r}, FLOAT tensors are {NAMES[dtype]}"]
    return dtype, []


def check_parts(quantized: Checkpoint, weight: str, wanted: Dict[str, Raw]) -> List[str]:
    """The tensors of one linear; `wanted` maps suffixes ("weight", "weight_scale") to tensors."""
    wrong = []
    for part, want in wanted.items():
        name = weight.rsplit(".", 1)[0] + "." + part
        if name not in quantized.tensors:
            wrong.append(f"{name}: missing")
        else:
            wrong += first_difference(name, quantized.tensors[name], want)
    return wrong


def check_tensors(
    source: Checkpoint,
    quantized: Checkpoint,
    dtype: str,
    keep_tied: bool,
    parts: Sequence[str],
    linears: Dict[str, Callable[[], List[str]]],
) -> List[str]:
    """Every tensor of both folders: `linears` checks a quantized weight and its `parts`.

    A tied head is expected under its own name unless `keep_tied`.
    """
    wrong = []
    expected = {n for n in source.tensors if not n.endswith("rotary_emb.inv_freq")}
    if source.config.get("tie_word_embeddings", False):
        expected = expected - {"lm_head.weight"} if keep_tied else expected | {"lm_head.weight"}
    for name in sorted(expected | set(quantized.tensors)):
        if name not in quantized.tensors:
            wrong.append(f"{name}: missing")
        elif name in linears:
            wrong += linears[name]()
        elif name.rsplit(".", 1)[1] in parts and name not in source.tensors:
            pass  # compared with its weight; check_description demands that it has one
        elif name not in expected:
            wrong.append(f"{name}: stands for nothing in the source")
        else:
            values = to_float32(source_tensor(source, name))
            wrong += first_difference(name, quantized.tensors[name], cast_raw(values, dtype))
    return wrong


def report(quantized: Optional[Checkpoint], scheme: str, wrong: List[str]) -> int:
    """Prints the differences, or that there are none; returns the exit code."""
    for line in wrong:
        print(line)
    if not wrong:
        n_linears = len(linears_of(quantized, scheme))
        print(f"ok: {n_linears} linears, {len(quantized.tensors)} tensors")
    return 1 if wrong else 0
