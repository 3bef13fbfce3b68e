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
import pathlib
import sys
from typing import Dict, List

import numpy as np

import affine_rules
from affine_rules import EPSILON, Checkpoint
from safetensors_io import Raw

SCHEME = "W8A16"
PARTS = ("weight_scale", "weight_offset")


def quantize(weight: np.ndarray, dtype: str, asymmetric: bool) -> Dict[str, Raw]:
    """weight [n, k] float32 -> weight I8 [n, k]; weight_scale, weight_offset F32 [n, 1]."""
    if not asymmetric:
        scale = affine_rules.round_to(affine_rules.symmetric_scale(weight), dtype)
        codes = affine_rules.symmetric_codes(weight, scale)
        offset = np.zeros_like(scale)
    else:
        low = np.minimum(weight.min(axis=1, keepdims=True), np.float32(0))
        high = np.maximum(weight.max(axis=1, keepdims=True), np.float32(0))
        span = high / np.float32(255) - low / np.float32(255)
        scale = affine_rules.round_to(np.maximum(span, EPSILON), dtype)
        offset = np.clip(np.rint(-low / scale) - np.float32(128), -128, 127)
        codes = np.clip(np.rint(weight / scale + offset), -128, 127)
    return {
        "weight": Raw("I8", codes.shape, codes.astype("<i1").tobytes()),
        "weight_scale": Raw("F32", scale.shape, scale.astype("<f4").tobytes()),
        "weight_offset": Raw("F32", offset.shape, offset.astype("<f4").tobytes()),
    }


def check_linear(
    source: Checkpoint, quantized: Checkpoint, weight: str, dtype: str, asymmetric: bool
) -> List[str]:
    """Codes, scales and offsets of one linear."""
    raw = affine_rules.source_tensor(source, weight)
    if raw is None or len(raw.shape) != 2:
        return [f"{weight}: no matrix of this name in the source"]
    wanted = quantize(affine_rules.to_float32(raw), dtype, asymmetric)
    return affine_rules.check_parts(quantized, weight, wanted)


def check(
    source: Checkpoint, quantized: Checkpoint, asymmetric: bool, keep_tied: bool
) -> List[str]:
    """All differences, in order of name; empty where the checkpoint is what it must be."""
    wrong = affine_rules.check_description(quantized, SCHEME, PARTS)
    dtype, more = affine_rules.model_dtype(quantized)
    wrong += more
    if dtype is None:
        return wrong
    linears = {
        name: lambda name=name: check_linear(source, quantized, name, dtype, asymmetric)
        for name in affine_rules.linears_of(quantized, SCHEME)
    }
    return wrong + affine_rules.check_tensors(source, quantized, dtype, keep_tied, PARTS, linears)


def run(arguments) -> int:
    quantized = None
    try:
        source, quantized = Checkpoint(arguments.source), Checkpoint(arguments.quantized)
        wrong = check(source, quantized, arguments.asymmetric, arguments.keep_tied)
    except (ValueError, KeyError, OSError) as error:
        wrong = [f"cannot be read: {error}"]
    return affine_rules.report(quantized, SCHEME, wrong)


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
