#!/usr/bin/env python3
"""bar.py FOLDER: the table of shares from the results that run.sh left in FOLDER, as markdown.

FOLDER holds NAME@SET.json of Google Benchmark (one per program and instruction set) and
llmq_NAME.json of `llmq bench --json`. A row of bar.json takes every benchmark whose name matches
and that has its counter; the smallest value decides. A row that names no set is about what users run,
the widest set measured; what the others reach is in the list below the table. Needs Python's own modules alone."""
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
SETS = ["scalar", "avx2", "avxvnni", "avx512vnni", "amx"]


def kernel_rows(folder):
    """(name, set, counters) of every benchmark that was run; those with an error are left out."""
    rows = []
    for path in sorted(folder.glob("*@*.json")):
        text = path.read_text()
        if not text.strip():
            continue
        isa = path.stem.split("@")[1]
        for one in json.loads(text)["benchmarks"]:
            if not one.get("error_occurred"):
                # Google Benchmark appends "/manual_time" and the like; names begin with the case.
                rows.append((one["name"], isa, one))
    return rows


def end_to_end_rows(folder):
    """The rows of `llmq bench` under the names that bar.json asks for."""
    rows = []
    for path in sorted(folder.glob("llmq_*.json")):
        recipe = path.stem.removeprefix("llmq_")
        results = json.loads(path.read_text())
        single = {}
        for one in results:
            isa = one["instruction_set"]
            at = f"depth:{one['depth']}/batch:{one['batch_size']}"
            if one["share_of_peak"] is not None:
                rows.append((f"llmq/{recipe}/prefill:{one['prefill_tokens']}/{at}", isa,
                             {"share_of_int8_peak": one["share_of_peak"]}))
            if one["decode_tokens"] == 0:
                continue
            key = (one["depth"], one["prefill_tokens"])
            if one["batch_size"] == 1:
                single[key] = one["decode_tokens_per_s"]
                rows.append((f"llmq/{recipe}/decode/{at}", isa,
                             {"share_of_bandwidth": one["share_of_bandwidth"]}))
            elif key in single:
                rows.append((f"llmq/{recipe}/batch:{one['batch_size']}/{at}", isa,
                             {"times_reference": one["decode_tokens_per_s"] / single[key]}))
        # Results of one run share a load.
        for isa, rate in sorted({(one["instruction_set"], one["load_gb_per_s"]) for one in results}):
            rows.append((f"llmq/{recipe}/load/", isa, {"gb_per_s": rate}))
    return rows


def shown(counter, value):
    if value is None:
        return ""
    return f"{100 * value:.0f} %" if counter.startswith("share_of") else f"{value:.2f}"


def verdict(row, worst):
    if "least" not in row:
        return "no bar"
    if worst >= row["aim"]:
        return "aim reached"
    return "kept" if worst >= row["least"] else "missed"


def table(bar, rows):
    widest = max((isa for _, isa, _ in rows), key=SETS.index, default=SETS[0])
    lines = ["| what | worst | best | at least | aim | ratio to bar | |", "|---|---|---|---|---|---|---|"]
    for row in bar:
        counter = row["counter"]
        values = [counters[counter] for name, isa, counters in rows
                  if re.search(row["match"], name) and counter in counters
                  and row.get("set", widest) == isa]
        limits = [shown(counter, row.get(key)) for key in ("least", "aim")]
        if not values:
            lines.append(f"| {row['what']} | | | {limits[0]} | {limits[1]} | | not measured |")
            continue
        ratio = f"{min(values) / row['least']:.2f}" if "least" in row else ""
        lines.append(f"| {row['what']} | {shown(counter, min(values))} | {shown(counter, max(values))} "
                     f"| {limits[0]} | {limits[1]} | {ratio} | {verdict(row, min(values))} |")
    return lines


def detail(rows):
    """Every measured row that has one of the agreed counters."""
    lines = ["| benchmark | set | counter | value |", "|---|---|---|---|"]
    for name, isa, counters in rows:
        for key, value in counters.items():
            if key.startswith("share_of_") or key in ("times_reference", "gb_per_s"):
                lines.append(f"| {name} | {isa} | {key} | {shown(key, value)} |")
    return lines


def main():
    folder = pathlib.Path(sys.argv[1])
    rows = kernel_rows(folder) + end_to_end_rows(folder)
    bar = json.loads((HERE / "bar.json").read_text())
    print("\n".join(table(bar, rows)))
    print("\n" + "\n".join(detail(rows)))


if __name__ == "__main__":
    main()
