#!/usr/bin/python3
"""Checks a quantized folder against what Ascend's engines load, in numpy.

    check_ascend.py [--source SOURCE [--plain]] QUANTIZED
    check_ascend.py --self-test

Written from the description of the formats alone; shares no code with the library under test. Each
violation is one line; exit code 1 where there is one. With --source, every dequantized weight must
lie as near to the source's as rounding allows; that is asked only where llmq_report.json names no
method that moves weights (smoothing, AWQ, GPTQ), or with --plain.
"""

import argparse
import json
import pathlib
import re
import sys
from typing import Dict, List, Optional, Tuple

import numpy as np

import safetensors_io
from affine_rules import to_values
from safetensors_io import Raw

FLOATS = ("F16", "BF16", "F32")
STATIC = ("input_scale", "input_offset", "quant_bias", "deq_scale")
WEIGHT = ("weight_scale", "weight_offset")
# scheme -> parts that must stand beside the weight, parts that may
LINEAR = {
    "W8A8": (STATIC, WEIGHT),
    "W8A8S": (STATIC, ()),
    "W8A8_MIX": (STATIC + WEIGHT, ()),
    "W8A8_DYNAMIC": (WEIGHT, ()),
    "W8A16": (WEIGHT, ()),
    "W4A16": (WEIGHT, ()),
}
KV_PARTS = ("kv_cache_scale", "kv_cache_offset")
METADATA = ("model_quant_type", "version", "group_size", "kv_cache_type", "kv_quant_type",
            "fa_quant_type", "reduce_quant_type", "metadata", "optional", "is_nzcasted",
            "AtlasGMMPermute", "indexer_quant_type", "w8a8sc_codec")
FUSED = (("self_attn", ("q_proj", "k_proj", "v_proj")), ("mlp", ("gate_proj", "up_proj")))
MOVING = re.compile(r"gptq|awq|smooth|m[1-6]$|ssz|quarot|svd|outlier")


class Folder:
    """Files, tensors, description and config.json of a folder."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.names = sorted(file.name for file in path.iterdir())
        self.tensors = safetensors_io.read_folder(path)
        self.config = json.loads((path / "config.json").read_text())
        found = [n for n in self.names if re.fullmatch(r"quant_model_description(_\w+)?\.json", n)]
        if len(found) > 1:
            raise ValueError(f"several description files: {', '.join(found)}")
        self.description_name = found[0] if found else ""
        self.description = json.loads((path / found[0]).read_text()) if found else {}
        self.tags = {k: v for k, v in self.description.items()
                     if k not in METADATA and isinstance(v, str) and not k.endswith(".quant_type")}
        self.type = self.description.get("model_quant_type", "")
        dtype = str(self.config.get("torch_dtype", "")).replace("torch.", "")
        self.dtype = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}.get(dtype, "")

    def get(self, name: str) -> Optional[np.ndarray]:
        return to_values(self.tensors[name]) if name in self.tensors else None

    def linears(self) -> List[Tuple[str, str]]:
        return sorted((n[: -len(".weight")], t) for n, t in self.tags.items()
                      if t in LINEAR and n.endswith(".weight") and n in self.tensors)


def check_files(f: Folder) -> List[str]:
    """File names of a generation, and nothing of the float model's index."""
    kind = f.type.lower()
    wrong = []
    if "version" in f.description:
        if f.description_name != "quant_model_description.json":
            wrong.append(f"{f.description_name}: engines look for quant_model_description.json")
        if not re.fullmatch(r"[1-9]\d*\.\d+\.\d+", str(f.description["version"])):
            wrong.append(f"version {f.description['version']!r} is none that engines know")
    elif f.description_name not in ("quant_model_description.json",
                                    f"quant_model_description_{kind}.json"):
        wrong.append(f"{f.description_name}: does not name the type {kind}")
    stems = f"quant_model_weight_{kind}|quant_model_weights"
    if f.type == "W8A8_MIX":
        stems += "|quant_model_weight_w8a8"
    weights = [n for n in f.names if n.endswith(".safetensors")]
    for name in weights:
        match = re.fullmatch(rf"({stems})(-(\d{{5}})-of-(\d{{5}}))?\.safetensors", name)
        if match is None:
            wrong.append(f"{name}: not a weight file name of type {kind}")
        elif match[2] and (int(match[4]) != len(weights) or not 1 <= int(match[3]) <= len(weights)):
            wrong.append(f"{name}: part numbers do not fit the {len(weights)} weight files")
        elif match[2] and f"{match[1]}.safetensors.index.json" not in f.names:
            wrong.append(f"{name}: is split, but {match[1]}.safetensors.index.json is missing")
    if "model.safetensors.index.json" in f.names:
        wrong.append("model.safetensors.index.json: the float model's index is left over")
    return wrong


def check_description(f: Folder) -> List[str]:
    """Keys in both directions, and the metadata."""
    wrong = [f"{n}: no key in the description" for n in sorted(f.tensors) if n not in f.tags]
    wrong += [f"{n}: described, but no tensor" for n in sorted(f.tags) if n not in f.tensors]
    known = set(LINEAR) | {"FLOAT", "C8", "FAQuant"}
    wrong += [f"{n}: unknown scheme {t}" for n, t in sorted(f.tags.items()) if t not in known]
    if f.type not in set(LINEAR) | {"FLOAT"}:
        wrong.append(f"model_quant_type {f.type!r} is unknown")
    if f.description.get("group_size", 0) not in (0, 32, 64, 128, 256):
        wrong.append(f"group_size {f.description['group_size']!r}: engines take 0, 64, 128, 256")
    has_kv = any(n.endswith(KV_PARTS) for n in f.tensors)
    for key in ("kv_cache_type", "kv_quant_type"):
        if (f.description.get(key) == "C8") != has_kv:
            wrong.append(f"{key} is {f.description.get(key)!r}, C8 tensors: {has_kv}")
    has_fa = "FAQuant" in f.tags.values()
    if (f.description.get("fa_quant_type") == "FAQuant") != has_fa:
        wrong.append(f"fa_quant_type is {f.description.get('fa_quant_type')!r}, FAQuant: {has_fa}")
    if has_kv and has_fa:
        wrong.append("C8 and FAQuant exclude each other")
    return wrong


def check_config(f: Folder) -> List[str]:
    """The fields of config.json that engines read, by type."""
    wrong = []
    if f.dtype not in ("F16", "BF16"):
        wrong.append(f"torch_dtype {f.config.get('torch_dtype')!r}: engines run 16-bit models")
    if f.type == "W8A8S" and f.dtype != "F16":
        wrong.append("torch_dtype: sparse types are float16 only")
    quantize = f.config.get("quantize", f.type.lower())
    if quantize != f.type.lower() and not (f.type == "W8A8_MIX" and "w8a8" in quantize):
        wrong.append(f"quantize {quantize!r}, model_quant_type {f.type}")
    inner = f.config.get("quantization_config") or {}
    if "quant_method" in inner:
        wrong.append("quantization_config is another tool's")
    for key in ("group_size", "kv_quant_type", "fa_quant_type"):
        stated = inner.get(key)
        described = stated_group(f) if key == "group_size" else f.description.get(key)
        if stated is not None and stated != described:
            wrong.append(f"quantization_config.{key} {stated!r}: the description disagrees")
    return wrong


def extents(f: Folder, module: str, scheme: str) -> Optional[Tuple[int, int]]:
    """[n, k] of a dense linear by config.json; without its fields, by the tensors' lengths."""
    c, leaf = f.config, module.rsplit(".", 1)[-1]
    if "hidden_size" in c and ".experts." not in module:
        hidden, inner = c["hidden_size"], c.get("intermediate_size")
        if ".shared_expert." in module:
            inner = c.get("shared_expert_intermediate_size", inner)
        heads = c["num_attention_heads"]
        size = c.get("head_dim") or hidden // heads
        kv = c.get("num_key_value_heads", heads) * size
        table = {"q_proj": (heads * size, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden),
                 "o_proj": (hidden, heads * size), "gate_proj": (inner, hidden),
                 "up_proj": (inner, hidden), "down_proj": (hidden, inner),
                 "lm_head": (c.get("vocab_size"), hidden)}
        if leaf in table:
            return table[leaf]
    rows = next((f.tensors[f"{module}.{p}"].shape[0] for p in ("weight_scale", "deq_scale")
                 if f"{module}.{p}" in f.tensors), None)
    shape = f.tensors[f"{module}.weight"].shape
    if rows is None or len(shape) != 2:
        return None
    return rows, shape[0] * shape[1] * (2 if scheme == "W4A16" and is_packed(f) else 1) // rows


def is_packed(f: Folder) -> bool:
    return "version" in f.description


def stated_group(f: Folder) -> int:
    """group_size of the description; descriptions without a version leave it to config.json."""
    inner = f.config.get("quantization_config") or {}
    return f.description.get("group_size", 0 if is_packed(f) else inner.get("group_size", 0))


def check_shapes(f: Folder, module: str, scheme: str) -> List[str]:
    """Mandatory tensors of a linear, their dtypes and shapes."""
    size = extents(f, module, scheme)
    if size is None:
        return [f"{module}: its extents cannot be told"]
    n, k = size
    required, optional = LINEAR[scheme]
    wrong = [f"{module}.{p}: missing for {scheme}" for p in required
             if f"{module}.{p}" not in f.tensors]
    wrong += [f"{module}.{p}: does not belong to {scheme}" for p in STATIC + WEIGHT
              if p not in required + optional and f"{module}.{p}" in f.tensors]
    scale = f.tensors.get(f"{module}.weight_scale")
    grouped = scale is not None and len(scale.shape) == 2 and scale.shape[1] > 1
    group = stated_group(f) if grouped else 0
    if grouped and (scheme not in ("W8A16", "W4A16") or not group or k % group):
        return wrong + [f"{module}.weight_scale: {list(scale.shape)} with group_size {group}"]
    scales = [(n, k // group)] if grouped else [(n, 1), (n,)]
    codes = (n, k)
    if scheme == "W4A16" and is_packed(f):
        codes = (n // 2, k) if grouped else (n, k // 2)
    deq = {"BF16": "F32", "F16": "I64"}.get(f.dtype, "F32")
    table = {"weight": (("I8",), [codes]), "input_scale": (FLOATS, [(1,)]),
             "input_offset": (FLOATS + ("I8",), [(1,)]), "quant_bias": (("I32",), [(n,)]),
             "deq_scale": ((deq,), [(n,)]), "weight_scale": (FLOATS, scales),
             "weight_offset": (FLOATS, scales), "bias": (FLOATS, [(n,)])}
    for part, (dtypes, shapes) in table.items():
        raw = f.tensors.get(f"{module}.{part}")
        if raw is None:
            continue
        tag = f.tags.get(f"{module}.{part}")
        if tag != ("FLOAT" if part == "bias" else scheme):
            wrong.append(f"{module}.{part}: tagged {tag} beside a {scheme} weight")
        if raw.dtype not in dtypes:
            wrong.append(f"{module}.{part}: dtype {raw.dtype}, expected {' or '.join(dtypes)}")
        if raw.shape not in shapes:
            wrong.append(f"{module}.{part}: shape {list(raw.shape)}, expected {list(shapes[0])}")
    return wrong


def decoded_deq(raw: Raw) -> np.ndarray:
    """deq_scale as float32; the low half of an I64."""
    if raw.dtype == "I64":
        return np.frombuffer(raw.data, "<u4")[0::2].copy().view(np.float32)
    return np.frombuffer(raw.data, "<f4")


def unpacked(f: Folder, module: str, scheme: str) -> np.ndarray:
    """Codes [n, k] of a linear whose shapes are right."""
    codes = f.get(f"{module}.weight")
    if scheme != "W4A16" or not is_packed(f):
        return codes.astype(np.int64)
    n, k = extents(f, module, scheme)
    low = (codes.astype(np.int64) & 15 ^ 8) - 8
    high = codes.astype(np.int64) >> 4
    pairs = np.stack([low, high], axis=1 if codes.shape[0] != n else 2)
    return pairs.reshape(n, k)


def check_values(f: Folder, module: str, scheme: str) -> List[str]:
    """Ranges, and the derived tensors recomputed, of a linear whose shapes are right."""
    wrong = []
    codes = unpacked(f, module, scheme)
    scale, offset = f.get(f"{module}.weight_scale"), f.get(f"{module}.weight_offset")
    if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
        wrong.append(f"{module}.weight_scale: not finite and positive")
    limit = 8 if scheme == "W4A16" else 128
    for part, top in (("weight_offset", limit), ("input_offset", 128)):
        values = f.get(f"{module}.{part}")
        if values is not None and ((values != np.rint(values)) | (values < -top) | (values >= top)).any():
            wrong.append(f"{module}.{part}: not whole numbers from {-top} to {top - 1}")
    symmetric = offset is None or not offset.any()
    if not symmetric and scheme not in ("W8A16", "W4A16"):
        wrong.append(f"{module}.weight_offset: not zero, but {scheme} is symmetric")
    if codes.min() < -limit or codes.max() >= limit:
        wrong.append(f"{module}.weight: codes {codes.min()}..{codes.max()} beyond the grid")
    if scheme != "W4A16" and symmetric and codes.min() < -127:
        wrong.append(f"{module}.weight: code -128 in symmetric codes")
    return wrong + (check_static(f, module, codes, scale) if scheme in ("W8A8", "W8A8S", "W8A8_MIX") else [])


def check_static(f: Folder, module: str, codes: np.ndarray, weight_scale) -> List[str]:
    """deq_scale = input_scale * weight_scale; quant_bias = bias / deq_scale - offset * sum."""
    raw = f.tensors[f"{module}.deq_scale"]
    if raw.dtype == "I64" and np.frombuffer(raw.data, "<u4")[1::2].any():
        return [f"{module}.deq_scale: the upper 32 bits are not zero"]
    deq = decoded_deq(raw)
    if not (np.isfinite(deq).all() and (deq > 0).all()):
        return [f"{module}.deq_scale: does not decode to finite positive numbers"]
    wrong = []
    input_scale = f.get(f"{module}.input_scale").astype(np.float32)
    if not (np.isfinite(input_scale).all() and (input_scale > 0).all()):
        return [f"{module}.input_scale: not finite and positive"]
    if weight_scale is not None:
        want = (input_scale * weight_scale.astype(np.float32).ravel()).astype(np.float32)
        if (np.abs(deq.view(np.int32) - want.view(np.int32)) > 1).any():
            wrong.append(f"{module}.deq_scale: not input_scale * weight_scale")
    bias = f.get(f"{module}.bias")
    bias = np.zeros(len(deq)) if bias is None else bias.astype(np.float64)
    exact = bias / deq.astype(np.float64) - float(f.get(f"{module}.input_offset")[0]) * codes.sum(1)
    step = {"F16": 2.0**-11, "BF16": 2.0**-8}.get(f.dtype, 0.0)  # the stored bias was rounded
    allowed = 1 + np.abs(exact) * 2.0**-22 + np.abs(bias / deq) * step
    far = np.abs(f.get(f"{module}.quant_bias") - exact) > allowed
    if far.any():
        wrong.append(f"{module}.quant_bias[{int(np.argmax(far))}]: recomputed {exact[far][0]:.1f}")
    return wrong


def check_groups(f: Folder) -> List[str]:
    """q,k,v and gate,up: one scheme, one input_scale and input_offset."""
    wrong = []
    layers = sorted({n.split(".self_attn.")[0] for n in f.tags if ".self_attn." in n})
    for layer in layers:
        for part, members in FUSED:
            names = [f"{layer}.{part}.{m}" for m in members if f"{layer}.{part}.{m}.weight" in f.tags]
            for name in names[1:]:
                if f.tags[f"{name}.weight"] != f.tags[f"{names[0]}.weight"]:
                    wrong.append(f"{name}: another scheme than {names[0]}")
                for suffix in (".input_scale", ".input_offset"):
                    a, b = f.get(names[0] + suffix), f.get(name + suffix)
                    if a is not None and b is not None and not np.array_equal(a, b):
                        wrong.append(f"{name}{suffix}: differs from {names[0]}")
    return wrong


def check_attention(f: Folder) -> List[str]:
    """C8 and FAQuant tensors, and FLOAT tensors' dtypes."""
    wrong = []
    c = f.config
    heads = c.get("num_attention_heads", 0)
    kv_heads = c.get("num_key_value_heads", heads)
    size = c.get("head_dim") or (c.get("hidden_size", 0) // heads if heads else 0)
    for name, raw in sorted(f.tensors.items()):
        tag, values = f.tags.get(name), to_values(raw)
        if tag == "FLOAT" and raw.dtype not in FLOATS:
            wrong.append(f"{name}: tagged FLOAT but stored as {raw.dtype}")
        if raw.dtype in FLOATS and not np.isfinite(values).all():
            wrong.append(f"{name}: not finite")
        is_kv = name.endswith(KV_PARTS)
        if not is_kv and tag != "FAQuant":
            continue
        if is_kv and tag not in ("C8", "W8A8"):
            wrong.append(f"{name}: tagged {tag}, expected C8")
        of_query = ".fa_q." in name
        shape = (kv_heads * size,) if is_kv else (heads if of_query else kv_heads, 1)
        if raw.shape != shape:
            wrong.append(f"{name}: shape {list(raw.shape)}, expected {list(shape)}")
        if name.endswith("scale"):
            partner = name[: -len("scale")] + "offset"
            if partner not in f.tensors:
                wrong.append(f"{partner}: missing beside its scale")
            if raw.dtype not in FLOATS or not (values > 0).all():
                wrong.append(f"{name}: not positive floats")
        elif not is_kv and raw.dtype != "I8":
            wrong.append(f"{name}: dtype {raw.dtype}, expected I8")
        elif ((values != np.rint(values)) | (np.abs(values) > 128)).any():
            wrong.append(f"{name}: not whole int8 numbers")
    return wrong


def is_plain(f: Folder) -> bool:
    """True where the report's recipe names no method that moves weights."""
    path = f.path / "llmq_report.json"
    if not path.exists():
        return False
    recipe = json.loads(path.read_text()).get("recipe", {})
    rest = {k: v for k, v in recipe.items() if k not in ("name", "summary", "caveat", "keep_float")}
    moving = [str(v) for k, v in rest.items() if k != "rules"]
    moving += [str(v) for rule in rest.get("rules", []) for k, v in rule.items() if k != "match"]
    return not any(MOVING.search(text.lower()) for text in moving)


def check_source(f: Folder, source: Dict[str, Raw]) -> List[str]:
    """|dequantized - source| within half a step; more where the rounded scale clips the extreme."""
    wrong = []
    step = {"F16": 2.0**-11, "BF16": 2.0**-8}.get(f.dtype, 0.0)  # a scale's own rounding
    for module, scheme in f.linears():
        raw = source.get(f"{module}.weight", source.get("model.embed_tokens.weight")
                         if module == "lm_head" else None)
        scale = f.get(f"{module}.weight_scale")
        if raw is None:
            wrong.append(f"{module}.weight: not in the source")
        if raw is None or scale is None:
            continue
        codes = unpacked(f, module, scheme).astype(np.float64)
        scale = np.asarray(scale, np.float64).reshape(codes.shape[0], -1)
        offset = np.asarray(f.get(f"{module}.weight_offset"), np.float64).reshape(scale.shape)
        repeat = codes.shape[1] // scale.shape[1]
        wide, shift = np.repeat(scale, repeat, 1), np.repeat(offset, repeat, 1)
        error = np.abs((codes - shift) * wide - to_values(raw).astype(np.float64))
        top = 7 if scheme == "W4A16" else 127
        is_edge = (codes >= top) | (codes <= -top)
        # At the edge: half a step more from the offset's rounding, and the clip of a scale that was
        # rounded down (2^-25: half the step of subnormal float16).
        span = 2 * top + 1
        clip = is_edge * (0.5 * (shift != 0) * wide + span * (wide * step + (2.0**-25 if step else 0)))
        far = error > 0.5 * wide * (1 + 2.0**-20) + clip
        if far.any():
            at = np.unravel_index(int(np.argmax(far)), far.shape)
            wrong.append(f"{module}.weight{[int(i) for i in at]}: {error[at]:.3g} from the source")
    return wrong


def check(path: pathlib.Path, source: Optional[pathlib.Path] = None, plain: bool = False) -> List[str]:
    """All violations; an unreadable folder is one."""
    try:
        f = Folder(path)
        if not f.description:
            return [] if all(r.dtype in FLOATS for r in f.tensors.values()) else [
                "codes without a description file"]
        wrong = check_files(f) + check_description(f) + check_config(f) + check_groups(f)
        wrong += check_attention(f)
        for module, scheme in f.linears():
            bad = check_shapes(f, module, scheme)
            wrong += bad or check_values(f, module, scheme)
        if source is not None and not wrong and (plain or is_plain(f)):
            wrong += check_source(f, safetensors_io.read_folder(source))
        return wrong
    except (ValueError, KeyError, OSError) as error:
        return [f"cannot be read: {error}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quantized", metavar="QUANTIZED", type=pathlib.Path, nargs="?")
    parser.add_argument("--source", type=pathlib.Path)
    parser.add_argument("--plain", action="store_true", help="codes are plain roundings")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        import check_ascend_test

        return check_ascend_test.main()
    if arguments.quantized is None:
        parser.error("QUANTIZED is needed")
    wrong = check(arguments.quantized, arguments.source, arguments.plain)
    for line in wrong:
        print(line)
    print(f"{arguments.quantized}: {len(wrong)} violations" if wrong else f"{arguments.quantized}: ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
