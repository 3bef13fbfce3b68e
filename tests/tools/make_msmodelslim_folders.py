#!/usr/bin/python3
"""Writes a float checkpoint as other tools of several generations quantize it, in numpy float32.

    make_msmodelslim_folders.py [--ranges W8A8] SOURCE OUT

OUT/{old_w8a16, old_w4a16, old_w4a16_group, v1_w4a16_group, newer_w8a8_dynamic} need weights alone.
Static types take input_scale and input_offset from the W8A8 folder of the same model that --ranges
names: OUT/{old_w8a8, newer_w8a8, newer_w8a8_mix}. lm_head and down_proj stay float.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

import affine_rules
import safetensors_io
from affine_rules import cast_raw, to_float32
from safetensors_io import Raw

GROUP = 32


def integers(values, kind: str, dtype: str) -> Raw:
    values = np.ascontiguousarray(values).astype(kind)
    return Raw(dtype, values.shape, values.tobytes())


def floats(values) -> Raw:
    return Raw("F32", values.shape, np.ascontiguousarray(values, "<f4").tobytes())


def quantized(weight, top: int, group: int):
    """weight [n, k] -> codes [n, k] int64, scale [n, k / group] (group 0: [n, 1]) float32."""
    n, k = weight.shape
    parts = weight.reshape(n, -1, group or k)
    scale = np.maximum(np.abs(parts).max(axis=2) / np.float32(top), affine_rules.EPSILON)
    codes = np.clip(np.rint(parts / scale[:, :, None]), -top, top)
    return codes.astype(np.int64).reshape(n, k), scale


def static_parts(codes, scale, bias, ranges, module: str):
    """input_scale F32, input_offset F32, deq_scale I64 (a float16 model), quant_bias I32."""
    in_scale = to_float32(ranges[f"{module}.input_scale"])
    in_offset = to_float32(ranges[f"{module}.input_offset"])
    deq = (in_scale * scale[:, 0]).astype(np.float32)
    exact = (0 if bias is None else bias) / deq - in_offset * codes.sum(axis=1).astype(np.float32)
    return {"input_scale": floats(in_scale), "input_offset": floats(in_offset),
            "quant_bias": integers(np.rint(exact), "<i4", "I32"),
            "deq_scale": integers(deq.view(np.int32), "<i8", "I64")}


def linear(weight, scheme: str, style: dict, static) -> dict:
    codes, scale = quantized(weight, 7 if scheme == "W4A16" else 127, style.get("group", 0))
    stored = codes
    if style.get("packed"):
        stored = ((codes[1::2] << 4) | (codes[0::2] & 15)).astype(np.int8)
    parts = {"weight": integers(stored, "<i1", "I8")}
    if scheme in ("W8A8", "W8A8_MIX"):
        parts.update(static(codes, scale))
    if scheme != "W8A8" or style["generation"] == "old":
        if style["generation"] == "old" and not style.get("group"):
            scale = scale.ravel()
        parts["weight_scale"] = floats(scale)
        parts["weight_offset"] = floats(np.zeros_like(scale))
    return parts


def write_folder(out: pathlib.Path, source, config, scheme: str, style: dict, ranges=None) -> None:
    tensors, tags = {}, {"model_quant_type": scheme}
    is_old, is_newer = style["generation"] == "old", style["generation"] == "newer"
    if not is_old:
        tags.update(version="1.0.0", group_size=style.get("group", 0))
    if is_newer:
        tags.update(metadata={}, optional={})
    for name, raw in source.items():
        values, module = to_float32(raw), name[: -len(".weight")]
        if name.endswith("_proj.weight") and "down_proj" not in name:
            bias = source.get(f"{module}.bias")
            bias = None if bias is None else to_float32(bias)
            static = lambda c, s, b=bias, m=module: static_parts(c, s, b, ranges, m)  # noqa: E731
            for part, tensor in linear(values, scheme, style, static).items():
                tensors[f"{module}.{part}"], tags[f"{module}.{part}"] = tensor, scheme
            continue
        tensors[name], tags[name] = cast_raw(values, "F16"), "FLOAT"
        if name == "model.embed_tokens.weight" and config.get("tie_word_embeddings"):
            tensors["lm_head.weight"], tags["lm_head.weight"] = cast_raw(values, "F16"), "FLOAT"
    out.mkdir(parents=True)
    kind = scheme.lower()
    stem = "quant_model_weights-00001-of-00001" if is_newer else f"quant_model_weight_{kind}"
    safetensors_io.write_file(out / f"{stem}.safetensors", tensors)
    if is_newer:
        total = sum(len(raw.data) for raw in tensors.values())
        index = {"metadata": {"total_size": total},
                 "weight_map": {name: f"{stem}.safetensors" for name in tensors}}
        (out / "quant_model_weights.safetensors.index.json").write_text(json.dumps(index, indent=2))
    suffix = f"_{kind}" if is_old else ""
    (out / f"quant_model_description{suffix}.json").write_text(json.dumps(tags, indent=2))
    config = dict(config, torch_dtype="float16")
    if not is_newer:
        config.update(quantize=kind, quantization_config={"group_size": style.get("group", 0)})
    (out / "config.json").write_text(json.dumps(config, indent=2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--ranges", type=pathlib.Path)
    arguments = parser.parse_args()
    source = safetensors_io.read_folder(arguments.source)
    config = json.loads((arguments.source / "config.json").read_text())
    old, newer = {"generation": "old"}, {"generation": "newer"}
    jobs = [("old_w8a16", "W8A16", old), ("old_w4a16", "W4A16", old),
            ("old_w4a16_group", "W4A16", dict(old, group=GROUP)),
            ("v1_w4a16_group", "W4A16", {"generation": "v1", "group": GROUP, "packed": True}),
            ("newer_w8a8_dynamic", "W8A8_DYNAMIC", newer)]
    ranges = None
    if arguments.ranges:
        ranges = safetensors_io.read_folder(arguments.ranges)
        jobs += [("old_w8a8", "W8A8", old), ("newer_w8a8", "W8A8", newer),
                 ("newer_w8a8_mix", "W8A8_MIX", newer)]
    for name, scheme, style in jobs:
        write_folder(arguments.out / name, source, config, scheme, style, ranges)
        for path in sorted(arguments.source.glob("*token*")):
            (arguments.out / name / path.name).write_bytes(path.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
