"""Self-test of check_ascend.py: a folder of every scheme it must accept, and damage it must name."""

import json
import pathlib
import tempfile

import numpy as np

import check_ascend
import safetensors_io
from affine_rules import cast_raw, to_values
from safetensors_io import Raw

CONFIG = {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "vocab_size": 16,
          "num_attention_heads": 4, "num_key_value_heads": 2}
SHAPES = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
          "self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64)}
L = "model.layers.0."
Q, K, O, GATE = L + "self_attn.q_proj", L + "self_attn.k_proj", L + "self_attn.o_proj", L + "mlp.gate_proj"


def raw(values, dtype: str) -> Raw:
    kinds = {"I8": "<i1", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
    if dtype not in kinds:
        return cast_raw(np.asarray(values, np.float32), dtype)
    values = np.asarray(values).astype(kinds[dtype])
    return Raw(dtype, values.shape, values.tobytes())


class Case:
    """A correct folder of a scheme; damage changes its parts before it is written."""

    def __init__(self, scheme: str, dtype: str = "F16", group: int = 0, old: bool = False, kv: str = ""):
        self.scheme, self.dtype, self.group, self.old = scheme, dtype, group, old
        random = np.random.default_rng(5)
        torch = {"F16": "float16", "BF16": "bfloat16"}[dtype]
        self.config = dict(CONFIG, torch_dtype=torch, quantize=scheme.lower(),
                           quantization_config={"group_size": group})
        self.tags = {"model_quant_type": scheme, "group_size": group}
        if not old:
            self.tags["version"] = "1.0.0"
        self.stem = f"quant_model_weight_{scheme.lower()}"
        self.source, self.tensors = {}, {}
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            self.put(name, cast_raw(random.normal(size=(16, 64)), dtype), "FLOAT")
        for module, (n, k) in SHAPES.items():
            weight = random.normal(size=(n, k)).astype(np.float32)
            self.source[f"{L}{module}.weight"] = raw(weight, "F32")
            if scheme == "FLOAT":
                self.put(f"{L}{module}.weight", cast_raw(weight, dtype), "FLOAT")
            else:
                self.linear(L + module, weight)
        for part in ("k", "v") if kv == "C8" else ():
            self.put(f"{L}self_attn.{part}_proj.kv_cache_scale", raw(np.full(32, 0.5), dtype), "C8")
            self.put(f"{L}self_attn.{part}_proj.kv_cache_offset", raw(np.zeros(32), dtype), "C8")
        for part, heads in (("q", 4), ("k", 2), ("v", 2)) if kv == "FAQuant" else ():
            self.put(f"{L}self_attn.fa_{part}.scale", raw(np.full((heads, 1), 0.5), dtype), kv)
            self.put(f"{L}self_attn.fa_{part}.offset", raw(np.zeros((heads, 1)), "I8"), kv)
        if kv == "C8":
            self.tags.update(kv_cache_type="C8", kv_quant_type="C8")
        if kv == "FAQuant":
            self.tags["fa_quant_type"] = kv

    def put(self, name: str, tensor: Raw, tag: str) -> None:
        self.tensors[name], self.tags[name] = tensor, tag

    def linear(self, module: str, weight) -> None:
        n, k = weight.shape
        top = 7 if self.scheme == "W4A16" else 127
        groups = weight.reshape(n, -1, self.group or k)
        scale = (np.abs(groups).max(axis=2) / np.float32(top)).astype(np.float32)
        codes = np.clip(np.rint(groups / scale[:, :, None]), -top, top).astype(np.int64).reshape(n, k)
        packed = codes
        if self.scheme == "W4A16" and not self.old:
            low, high = (codes[0::2], codes[1::2]) if self.group else (codes[:, 0::2], codes[:, 1::2])
            packed = ((high << 4) | (low & 15)).astype(np.int8)
        parts = {"weight": raw(packed, "I8")}
        if self.scheme != "W8A8S":
            parts["weight_scale"] = raw(scale, "F32")
            parts["weight_offset"] = raw(np.zeros_like(scale), "F32")
        if self.scheme in ("W8A8", "W8A8S", "W8A8_MIX"):
            bias = np.linspace(-1, 1, n)
            deq = (np.float32(0.0625) * scale[:, 0]).astype(np.float32)
            parts["input_scale"] = raw([0.0625], self.dtype)
            parts["input_offset"] = raw([5.0], self.dtype)
            stored = cast_raw(bias, self.dtype)
            self.put(f"{module}.bias", stored, "FLOAT")
            exact = to_values(stored).astype(np.float64) / deq - 5 * codes.sum(axis=1)
            parts["quant_bias"] = raw(np.rint(exact), "I32")
            wide = deq.view(np.int32).astype(np.int64)
            parts["deq_scale"] = raw(wide, "I64") if self.dtype == "F16" else raw(deq, "F32")
        for part, tensor in parts.items():
            self.put(f"{module}.{part}", tensor, self.scheme)

    def edit(self, name: str, change) -> None:
        """Replaces a tensor by what `change` makes of its writable values, dtype kept."""
        tensor = self.tensors[name]
        self.tensors[name] = raw(change(to_values(tensor).copy()), tensor.dtype)

    def lines(self, extra_file: str = ""):
        with tempfile.TemporaryDirectory() as root:
            folder, source = pathlib.Path(root) / "quantized", pathlib.Path(root) / "source"
            folder.mkdir(), source.mkdir()
            safetensors_io.write_file(folder / f"{self.stem}.safetensors", self.tensors)
            safetensors_io.write_file(source / "model.safetensors", self.source)
            old = f"_{self.scheme.lower()}" if self.old else ""
            (folder / f"quant_model_description{old}.json").write_text(json.dumps(self.tags))
            (folder / "config.json").write_text(json.dumps(self.config))
            if extra_file:
                (folder / extra_file).write_text("{}")
            return check_ascend.check(folder, source, plain=True)


def set_first(value):
    def change(values):
        values.reshape(-1)[0] = value
        return values

    return change


def drop(name):
    return lambda case: (case.tensors.pop(name), case.tags.pop(name))


def edit(name, change):
    return lambda case: case.edit(name, change)


def retype(name, dtype):
    return lambda case: case.tensors.update({name: raw(to_values(case.tensors[name]), dtype)})


GOOD = [
    ("W8A8", "F16", 0, False, ""), ("W8A8", "BF16", 0, False, ""), ("W8A8", "F16", 0, True, ""),
    ("W8A8", "F16", 0, False, "C8"), ("W8A8", "BF16", 0, False, "FAQuant"),
    ("W8A8_DYNAMIC", "BF16", 0, False, ""), ("W8A8_MIX", "BF16", 0, False, ""),
    ("W8A16", "BF16", 0, False, ""), ("W8A16", "F16", 32, False, ""),
    ("W4A16", "F16", 0, False, ""), ("W4A16", "F16", 32, False, ""), ("W4A16", "F16", 32, True, ""),
    ("W8A8S", "F16", 0, False, ""), ("FLOAT", "F16", 0, False, ""),
]
# (name, case, damage, text that a line must hold)
BAD = [
    ("key missing", ("W8A8",), lambda c: c.tags.pop("lm_head.weight"), "lm_head.weight: no key"),
    ("key too many", ("W8A8",), lambda c: c.tags.update({"x.weight": "FLOAT"}), "x.weight: described"),
    ("scheme", ("W8A8",), lambda c: c.tags.update({"lm_head.weight": "W9"}), "unknown scheme W9"),
    ("type", ("W8A8",), lambda c: c.tags.update(model_quant_type="W9"), "'W9' is unknown"),
    ("version", ("W8A8",), lambda c: c.tags.update(version="0.1"), "version '0.1'"),
    ("group size", ("W8A16",), lambda c: c.tags.update(group_size=7), "group_size 7"),
    ("file name", ("W8A8",), lambda c: setattr(c, "stem", "model"), "model.safetensors: not a weight"),
    ("quantize", ("W8A8",), lambda c: c.config.update(quantize="w8a16"), "quantize 'w8a16'"),
    ("torch_dtype", ("W8A8",), lambda c: c.config.update(torch_dtype="float32"), "torch_dtype"),
    ("dtype against deq_scale", ("W8A8",), lambda c: c.config.update(torch_dtype="bfloat16"),
     "deq_scale: dtype I64"),
    ("sparse bf16", ("W8A8S",), lambda c: c.config.update(torch_dtype="bfloat16"), "float16 only"),
    ("other tool", ("W8A8",), lambda c: c.config.update(quantization_config={"quant_method": "awq"}),
     "another tool's"),
    ("config group", ("W8A16",), lambda c: c.config.update(quantization_config={"group_size": 64}),
     "quantization_config.group_size"),
    ("kv_cache_type", ("W8A8", "F16", 0, False, "C8"), lambda c: c.tags.pop("kv_cache_type"),
     "kv_cache_type"),
    ("kv_quant_type", ("W8A8", "F16", 0, False, "C8"), lambda c: c.tags.pop("kv_quant_type"),
     "kv_quant_type"),
    ("fa_quant_type", ("W8A8", "F16", 0, False, "FAQuant"), lambda c: c.tags.pop("fa_quant_type"),
     "fa_quant_type"),
    ("kv offset missing", ("W8A8", "F16", 0, False, "C8"), drop(K + ".kv_cache_offset"),
     "kv_cache_offset: missing"),
    ("kv shape", ("W8A8", "F16", 0, False, "C8"), edit(K + ".kv_cache_scale", lambda v: v[:16]),
     "kv_cache_scale: shape"),
    ("kv scale zero", ("W8A8", "F16", 0, False, "C8"), edit(K + ".kv_cache_scale", set_first(0)),
     "not positive"),
    ("kv tag", ("W8A8", "F16", 0, False, "C8"),
     lambda c: c.tags.update({K + ".kv_cache_scale": "FLOAT"}), "expected C8"),
    ("fa offset dtype", ("W8A8", "F16", 0, False, "FAQuant"),
     retype(L + "self_attn.fa_q.offset", "F32"), "expected I8"),
    ("fa heads", ("W8A8", "F16", 0, False, "FAQuant"),
     edit(L + "self_attn.fa_q.scale", lambda v: v[:2]), "fa_q.scale: shape"),
    ("group scheme", ("W8A8",), lambda c: c.tags.update({K + ".weight": "W8A8S"}), "another scheme"),
    ("group scale", ("W8A8",), edit(K + ".input_scale", set_first(0.125)), "input_scale: differs"),
    ("group offset", ("W8A8",), edit(K + ".input_offset", set_first(6)), "input_offset: differs"),
    ("part missing", ("W8A8",), drop(O + ".quant_bias"), "quant_bias: missing"),
    ("scale missing", ("W8A8_MIX", "BF16"), drop(O + ".weight_scale"), "weight_scale: missing"),
    ("foreign part", ("W8A16",), lambda c: c.put(O + ".deq_scale", raw(np.ones(64), "I64"), "W8A16"),
     "does not belong"),
    ("part's tag", ("W8A8",), lambda c: c.tags.update({O + ".deq_scale": "FLOAT"}), "tagged FLOAT"),
    ("weight dtype", ("W8A8",), retype(O + ".weight", "I32"), "weight: dtype I32"),
    ("weight shape", ("W8A8",), edit(O + ".weight", lambda v: v[:32]), "weight: shape"),
    ("bias dtype", ("W8A8",), retype(O + ".quant_bias", "I64"), "quant_bias: dtype"),
    ("scale shape", ("W8A16", "F16", 32), edit(O + ".weight_scale", lambda v: v[:, :1]), "shape"),
    ("float codes", ("W8A8",), retype("lm_head.weight", "I8"), "tagged FLOAT but stored as I8"),
    ("not finite", ("W8A8",), edit("lm_head.weight", set_first(np.inf)), "not finite"),
    ("deq_scale", ("W8A8",), edit(O + ".deq_scale", lambda v: v + 2), "deq_scale: not input_scale"),
    ("upper bits", ("W8A8",), edit(O + ".deq_scale", lambda v: v | 1 << 40), "upper 32 bits"),
    ("negative deq_scale", ("W8A8",), edit(O + ".deq_scale", lambda v: v | 1 << 31), "finite positive"),
    ("quant_bias", ("W8A8",), edit(O + ".quant_bias", lambda v: v + 40), "quant_bias[0]"),
    ("input_offset", ("W8A8",), edit(O + ".input_offset", set_first(0.5)), "not whole numbers"),
    ("weight_offset", ("W8A8_DYNAMIC",), edit(O + ".weight_offset", set_first(1)), "is symmetric"),
    ("code -128", ("W8A16",), edit(O + ".weight", set_first(-128)), "code -128"),
    ("unpacked grid", ("W4A16", "F16", 32, True), edit(O + ".weight", set_first(9)), "beyond the grid"),
    ("zero scale", ("W8A16",), edit(O + ".weight_scale", set_first(0)), "not finite and positive"),
    ("code", ("W8A16",), edit(O + ".weight", lambda v: v // 2), "from the source"),
    ("nibbles swapped", ("W4A16",),
     edit(O + ".weight", lambda v: (v.view(np.uint8) << 4 | v.view(np.uint8) >> 4).view(np.int8)),
     "from the source"),
    ("packing axis", ("W4A16", "F16", 32), edit(GATE + ".weight", lambda v: v.reshape(96, 32)),
     "weight: shape"),
]


def main() -> int:
    failures = 0
    for arguments in GOOD:
        lines = Case(*arguments).lines()
        if lines:
            failures += 1
            print(f"FAILED: {arguments} was not accepted: {lines[0]}")
    for name, arguments, damage, text in BAD:
        case = Case(*arguments)
        damage(case)
        lines = case.lines()
        if not any(text in line for line in lines):
            failures += 1
            print(f"FAILED: {name} was not found: {lines}")
    for extra in ("model.safetensors.index.json", "quant_model_description_w8a8.json"):
        if not Case("W8A8").lines(extra):
            failures += 1
            print(f"FAILED: {extra} was not found")
    print(f"{len(GOOD)} folders and {len(BAD) + 2} damages, {failures} failures")
    return 1 if failures else 0
