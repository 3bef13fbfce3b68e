"""Reads and writes safetensors files with nothing but struct, json and numpy.

An independent writer and reader for the tests' Python tools: it shares no code with the library
under test. Values stay raw: a tensor is (dtype name of the format, shape, little-endian bytes).
"""

import json
import pathlib
import struct
from typing import Dict, NamedTuple, Tuple

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1}


class Raw(NamedTuple):
    """A tensor as the file holds it: row-major little-endian bytes."""

    dtype: str
    shape: Tuple[int, ...]
    data: bytes


def write_file(path, tensors: Dict[str, Raw]) -> None:
    """Writes one safetensors file, tensors in order of name, header padded to 8 bytes."""
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(tensors):
        raw = tensors[name]
        n_items = 1
        for extent in raw.shape:
            n_items *= extent
        if len(raw.data) != n_items * ITEM_BYTES[raw.dtype]:
            raise ValueError(f"{name}: {len(raw.data)} bytes do not fit {raw.dtype} {raw.shape}")
        header[name] = {
            "dtype": raw.dtype,
            "shape": list(raw.shape),
            "data_offsets": [offset, offset + len(raw.data)],
        }
        offset += len(raw.data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for name in sorted(tensors):
            out.write(tensors[name].data)


def read_file(path) -> Dict[str, Raw]:
    """Reads one safetensors file; raises ValueError where offsets, sizes and shapes disagree."""
    blob = pathlib.Path(path).read_bytes()
    (header_bytes,) = struct.unpack_from("<Q", blob)
    if 8 + header_bytes > len(blob):
        raise ValueError(f"{path}: header of {header_bytes} bytes is longer than the file")
    header = json.loads(blob[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    body = blob[8 + header_bytes :]
    tensors = {}
    end_of_last = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        n_items = 1
        for extent in entry["shape"]:
            n_items *= extent
        if begin != end_of_last or end - begin != n_items * ITEM_BYTES[entry["dtype"]]:
            raise ValueError(f"{path}: {name}: offsets {begin}..{end} do not fit its shape")
        end_of_last = end
        tensors[name] = Raw(entry["dtype"], tuple(entry["shape"]), body[begin:end])
    if end_of_last != len(body):
        raise ValueError(f"{path}: {len(body) - end_of_last} bytes belong to no tensor")
    return tensors


def read_folder(folder) -> Dict[str, Raw]:
    """Reads a checkpoint folder: by its *.safetensors.index.json, else its only *.safetensors.

    Raises ValueError where index and files disagree in a tensor's place or in the total size.
    """
    folder = pathlib.Path(folder)
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    files = sorted(folder.glob("*.safetensors"))
    if len(indexes) > 1 or not files or (not indexes and len(files) > 1):
        raise ValueError(f"{folder}: needs one index or exactly one *.safetensors file")
    if not indexes:
        return read_file(files[0])
    index = json.loads(indexes[0].read_text())
    tensors = {}
    for file_name in sorted(set(index["weight_map"].values())):
        if pathlib.Path(file_name).name != file_name:
            raise ValueError(f"{indexes[0]}: {file_name} leaves the folder")
        for name, raw in read_file(folder / file_name).items():
            if index["weight_map"].get(name) != file_name:
                raise ValueError(f"{indexes[0]}: {name} lies in {file_name}, the index disagrees")
            tensors[name] = raw
    missing = sorted(set(index["weight_map"]) - set(tensors))
    if missing:
        raise ValueError(f"{indexes[0]}: {missing[0]} is in no file")
    strays = sorted({file.name for file in files} - set(index["weight_map"].values()))
    if strays:
        raise ValueError(f"{folder}: {strays[0]} is not in the index")
    total = sum(len(raw.data) for raw in tensors.values())
    stated = index.get("metadata", {}).get("total_size", total)
    if stated != total:
        raise ValueError(f"{indexes[0]}: total_size {stated}, the tensors hold {total} bytes")
    return tensors
