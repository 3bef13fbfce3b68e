"""run_w8a8sc_document.py DOCUMENT [FOLDER]: runs the decoder that docs/w8a8sc.md prints.

Decodes the worked examples of the document and, with FOLDER, the matrices there (NAME.weight,
NAME.index, NAME.info with five int64, NAME.codes with the int8 codes row by row), and exits 1 with a
sentence where a code differs.
"""

import pathlib
import re
import struct
import sys


def hex_block(text, label):
    block = re.search(rf"```hex {label}\n(.*?)```", text, re.S).group(1)
    lines = [line.split("|")[0].split()[1:] for line in block.splitlines()]
    return bytes.fromhex("".join("".join(line) for line in lines))


def check(name, matrix, expected):
    if matrix != expected:
        sys.exit(f"{name}: the decoder of the document gives another matrix")


def main():
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    scope = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S).group(1), scope)
    decode = scope["decode"]
    example = [[(row + col) % 5 - 2 for col in range(32)] for row in range(4)]
    for codec in ("rans", "deflate"):
        weight, index = hex_block(text, f"weight {codec}"), hex_block(text, f"index {codec}")
        check(codec, decode(weight, index, (8, 8, 32, 4, 1)), example)
    n_matrices = 0
    for path in sorted(pathlib.Path(sys.argv[2]).glob("*.weight")) if len(sys.argv) > 2 else []:
        info = struct.unpack("<5q", path.with_suffix(".info").read_bytes())
        k, n = info[2:4]
        codes = struct.unpack(f"{n * k}b", path.with_suffix(".codes").read_bytes())
        matrix = decode(path.read_bytes(), path.with_suffix(".index").read_bytes(), info)
        check(path.stem, matrix, [list(codes[row * k : (row + 1) * k]) for row in range(n)])
        n_matrices += 1
    print(f"{n_matrices} matrices decoded")


if __name__ == "__main__":
    main()
