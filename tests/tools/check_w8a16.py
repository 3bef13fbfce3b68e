#!/usr/bin/python3
"""Recomputes a W8A16 checkpoint from its source and compares every byte, in numpy float32.

    check_w8a16.py [--asymmetric] [--keep-tied] SOURCE QUANTIZED
    check_w8a16.py --self-test

Shares no code with the library under test. Exit code 1 where anything differs; each difference is
one line, the first in order of tensor name above the others.

Per output channel (row), weights widened to float32, IEEE division, half to even:
  symmetric   scale = max(amax / 127, 2^-23), rounded to the model's dtype; offset = 0
              code = clip(rint(w / scale), -127, 127)
  asymmetric  lo = min(w, 0), hi = max(w, 0); scale = max(hi / 255 - lo / 255, 2^-23), rounded;
              offset = clip(rint(-lo / scale) - 128, -128, 127); code = clip(rint(w / scale + offset), -128, 127)
The model's dtype is that of the FLOAT tensors. Codes come from the source, not from its 16-bit
copy. Everything that is not quantized equals the source cast to the model's dtype.
"""

import argparse
import json
import pathlib
import sys
from typing import Dict, List, Optional, Tuple

import numpy as np

import safetensors_io
from safetensors_io import Raw

EPSILON = np.float32(2.0**-23)
SCHEME = "W8A16"
NAMES = {"F16": "float16", "BF16": "bfloat16"}


# ---- values -------------------------------------------------------------------------------------


def to_float32(raw: Raw) -> np.ndarray:
    """The values of an F32, F16 or BF16 tensor, exactly."""
    if raw.dtype == "BF16":
        words = np.frombuffer(raw.data, dtype="<u2").astype(np.uint32) << np.uint32(16)
        return words.view(np.float32).reshape(raw.shape)
    kind = {"F32": "<f4", "F16": "<f2"}[raw.dtype]
    return np.frombuffer(raw.data, dtype=kind).astype(np.float32).reshape(raw.shape)


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


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values that the model's dtype holds."""
    return to_float32(Raw(dtype, values.shape, cast_bytes(values, dtype)))


def quantize(weight: np.ndarray, dtype: str, asymmetric: bool) -> Dict[str, np.ndarray]:
    """weight [n, k] float32 -> weight int8 [n, k]; weight_scale, weight_offset float32 [n, 1]."""
    if not asymmetric:
        amax = np.abs(weight).max(axis=1, keepdims=True)
        scale = round_to(np.maximum(amax / np.float32(127), EPSILON), dtype)
        codes = np.clip(np.rint(weight / scale), -127, 127)
        offset = np.zeros_like(scale)
    else:
        low = np.minimum(weight.min(axis=1, keepdims=True), np.float32(0))
        high = np.maximum(weight.max(axis=1, keepdims=True), np.float32(0))
        span = high / np.float32(255) - low / np.float32(255)
        scale = round_to(np.maximum(span, EPSILON), dtype)
        offset = np.clip(np.rint(-low / scale) - np.float32(128), -128, 127)
        codes = np.clip(np.rint(weight / scale + offset), -128, 127)
    return {"weight": codes.astype(np.int8), "weight_scale": scale, "weight_offset": offset}


# ---- comparison ---------------------------------------------------------------------------------


def first_difference(name: str, got: Raw, dtype: str, want: np.ndarray, data: bytes) -> List[str]:
    """One line naming the first element that differs; `want` gives shape and printed values."""
    if got.dtype != dtype or got.shape != want.shape:
        found, expected = f"{got.dtype} {list(got.shape)}", f"{dtype} {list(want.shape)}"
        return [f"{name}: is {found}, expected {expected}"]
    if got.data == data:
        return []
    size = safetensors_io.ITEM_BYTES[dtype]
    a = np.frombuffer(got.data, dtype=np.uint8).reshape(-1, size)
    b = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
    differs = (a != b).any(axis=1)
    at = int(np.argmax(differs))
    index = [int(i) for i in np.unravel_index(at, want.shape)]
    values = np.frombuffer(got.data, dtype=np.int8) if dtype == "I8" else to_float32(got).ravel()
    return [
        f"{name}{index}: is {values[at]!r} (bytes {a[at].tobytes().hex()}), expected "
        f"{want.ravel()[at]!r} (bytes {b[at].tobytes().hex()}); {int(differs.sum())} of "
        f"{want.size} elements differ"
    ]


class Checkpoint:
    """Tensors, config.json and (of a quantized one) the description file of a folder."""

    def __init__(self, folder: pathlib.Path):
        self.tensors = safetensors_io.read_folder(folder)
        self.config = json.loads((folder / "config.json").read_text())
        description = folder / "quant_model_description.json"
        self.description = json.loads(description.read_text()) if description.exists() else {}


def source_tensor(source: Checkpoint, name: str) -> Optional[Raw]:
    """The tensor that an output name stands for: of a tied head, the embedding."""
    tied = source.config.get("tie_word_embeddings", False)
    if name == "lm_head.weight" and tied:
        return source.tensors.get("model.embed_tokens.weight", source.tensors.get(name))
    return source.tensors.get(name)


def check_description(quantized: Checkpoint) -> List[str]:
    """Every tensor a key, every tensor-like key a tensor; the tags of one linear agree."""
    tags, wrong = quantized.description, []
    for name in sorted(quantized.tensors):
        if name not in tags:
            wrong.append(f"quant_model_description.json: no key for {name}")
        elif tags[name] not in ("FLOAT", SCHEME):
            wrong.append(f"quant_model_description.json: {name} is {tags[name]!r}")
        if name.endswith((".weight_scale", ".weight_offset")):
            weight = name.rsplit(".", 1)[0] + ".weight"
            if tags.get(name) != tags.get(weight) or tags.get(name) != SCHEME:
                wrong.append(f"quant_model_description.json: {name} and {weight} disagree")
    for name, tag in sorted(tags.items()):
        if tag in ("FLOAT", SCHEME) and name != "model_quant_type":
            if name not in quantized.tensors:
                wrong.append(f"quant_model_description.json: {name} is in no file")
    if tags.get("model_quant_type") != SCHEME:
        wrong.append(f"model_quant_type is {tags.get('model_quant_type')!r}, expected {SCHEME!r}")
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


def check_linear(
    source: Checkpoint, quantized: Checkpoint, weight: str, dtype: str, asymmetric: bool
) -> List[str]:
    """Codes, scales and offsets of one linear."""
    raw = source_tensor(source, weight)
    if raw is None or len(raw.shape) != 2:
        return [f"{weight}: no matrix of this name in the source"]
    wrong = []
    kinds = {"weight": "I8", "weight_scale": "F32", "weight_offset": "F32"}
    for part, values in quantize(to_float32(raw), dtype, asymmetric).items():
        name = weight.rsplit(".", 1)[0] + "." + part
        if name not in quantized.tensors:
            wrong.append(f"{name}: missing")
            continue
        data = values.astype("<i1" if part == "weight" else "<f4").tobytes()
        wrong += first_difference(name, quantized.tensors[name], kinds[part], values, data)
    return wrong


def check(
    source: Checkpoint, quantized: Checkpoint, asymmetric: bool, keep_tied: bool
) -> List[str]:
    """All differences, in order of name; empty where the checkpoint is what it must be."""
    wrong = check_description(quantized)
    dtype, more = model_dtype(quantized)
    wrong += more
    if dtype is None:
        return wrong
    expected = {n for n in source.tensors if not n.endswith("rotary_emb.inv_freq")}
    if source.config.get("tie_word_embeddings", False):
        expected = expected - {"lm_head.weight"} if keep_tied else expected | {"lm_head.weight"}
    for name in sorted(expected | set(quantized.tensors)):
        is_linear = name.endswith(".weight") and quantized.description.get(name) == SCHEME
        if name not in quantized.tensors:
            wrong.append(f"{name}: missing")
        elif is_linear:
            wrong += check_linear(source, quantized, name, dtype, asymmetric)
        elif name.endswith((".weight_scale", ".weight_offset")) and name not in source.tensors:
            pass  # compared with its weight; check_description demands that it has one
        elif name not in expected:
            wrong.append(f"{name}: stands for nothing in the source")
        else:
            values = to_float32(source_tensor(source, name))
            data = cast_bytes(values, dtype)
            want = to_float32(Raw(dtype, values.shape, data))
            wrong += first_difference(name, quantized.tensors[name], dtype, want, data)
    return wrong


def run(arguments) -> int:
    try:
        source, quantized = Checkpoint(arguments.source), Checkpoint(arguments.quantized)
        wrong = check(source, quantized, arguments.asymmetric, arguments.keep_tied)
    except (ValueError, KeyError, OSError) as error:
        wrong = [f"cannot be read: {error}"]
    for line in wrong:
        print(line)
    if not wrong:
        linears = [n for n, tag in quantized.description.items() if tag == SCHEME]
        n_linears = sum(n.endswith(".weight") for n in linears)
        print(f"ok: {n_linears} linears, {len(quantized.tensors)} tensors")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SOURCE", type=pathlib.Path, nargs="?")
    parser.add_argument("quantized", metavar="QUANTIZED", type=pathlib.Path, nargs="?")
    parser.add_argument("--asymmetric", action="store_true")
    parser.add_argument("--keep-tied", action="store_true", help="no lm_head.weight is expected")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        import check_w8a16_test

        return check_w8a16_test.main()
    if arguments.quantized is None:
        parser.error("SOURCE and QUANTIZED are needed")
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
