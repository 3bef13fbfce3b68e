#!/usr/bin/python3
"""Quantizes samples/pico to every row of rows.json and measures each against the float model.

    accuracy.py LLMQ [--text FILE] [--only WORD] [--markdown FILE] [--write-baseline]

Each row is quantized, verified and evaluated: 20,000 tokens of a text that calibration never saw in
windows of 512, passkeys and key-value retrieval at 512 tokens. Exit code 1 where a divergence
exceeds the row's bar, or the baseline beside this file by more than 5 %; 77 (skipped) without the
text. Python's standard library alone.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DATA = pathlib.Path(os.environ.get("LLMQ_TEST_DATA", ROOT.parent / "shared" / "data"))
N_TOKENS = 20000
SLACK = 1.05  # of the baseline: nothing but a change of the program moves a row


def run(command):
    """The JSON document that a command prints; its error message ends the suite."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}: exit {done.returncode}\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def mean(cells):
    return sum(cell["accuracy"] for cell in cells) / len(cells)


def measure(llmq, row, model, text, work):
    """What a row's folder scores."""
    folder = work / "out"
    options = list(row.get("options", []))
    if "recipe" in row:
        recipe = work / "recipe.json"
        recipe.write_text(json.dumps(row["recipe"]))
        options = ["--recipe", recipe]
    quiet = ["--json", "--log-level", "quiet"]
    report = run([llmq, "quant", "-src", model, "-dst", folder, "--force", *options, *quiet])
    run([llmq, "verify", folder, *quiet])
    scores = run(
        [llmq, "eval", "--model_path", folder, "--reference", model, "--text", text]
        + ["--context", "512", "--max-tokens", str(N_TOKENS), "--passkey", "512"]
        + ["--kv-retrieval", "512", "--depths", "3", "--seeds", "5", *row.get("eval", []), *quiet]
    )
    return {
        "bits": report["totals"]["bits_per_weight"],
        "nll": scores["mean_nll"],
        "kl": scores["kl"],
        "kl_p99": scores["kl_p99"],
        "top1": scores["top1_agreement"],
        "passkey": mean(scores["passkey"]),
        "kv_retrieval": mean(scores["kv_retrieval"]),
    }


def bar_of(row, results):
    """The row's own limit, absolute or as a share of another row's divergence; None for none."""
    if "bar" in row:
        return row["bar"]
    share = row.get("bar_share")
    if share is None or share["of"] not in results:
        return None
    return share["share"] * results[share["of"]]["kl"]


def table(rows, results):
    lines = [
        "| row | command | bits | mean NLL | KL | p99 | same top-1 | passkey | key-value | bar |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["name"] not in results:
            continue
        got, bar = results[row["name"]], bar_of(row, results)
        command = " ".join(row.get("options", ["--recipe", "(rows.json)"]))
        command += "".join(f"; eval {' '.join(row['eval'])}" for _ in [0] if "eval" in row)
        lines.append(
            f"| {row['name']} | `{command}` | {got['bits']:.2f} | {got['nll']:.4f} | {got['kl']:.2e} "
            f"| {got['kl_p99']:.2e} | {100 * got['top1']:.1f} % | {100 * got['passkey']:.0f} % "
            f"| {100 * got['kv_retrieval']:.0f} % | {'' if bar is None else f'{bar:.2e}'} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llmq")
    default_text = DATA / "texts" / "pride_and_prejudice.txt"
    parser.add_argument("--text", type=pathlib.Path, default=default_text)
    parser.add_argument("--only", help="rows whose name holds this word")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the table to this file")
    parser.add_argument("--write-baseline", action="store_true")
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        print(f"skipped: needs {arguments.text}")
        return 77
    suite = json.loads((HERE / "rows.json").read_text())
    model = ROOT / suite["model"]
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    if digest != suite["model_sha256"]:
        print(f"{model}: SHA-256 is {digest}, not the one that the limits were measured with")
        return 1
    baseline_file = HERE / "baseline.json"
    baseline = json.loads(baseline_file.read_text()) if baseline_file.exists() else {}
    results, wrong = {}, []
    for row in suite["rows"]:
        if arguments.only and arguments.only not in row["name"]:
            continue
        with tempfile.TemporaryDirectory() as work:
            got = measure(arguments.llmq, row, model, arguments.text, pathlib.Path(work))
        results[row["name"]] = got
        print(f"{row['name']}: KL {got['kl']:.3e}, {got['bits']:.2f} bits", flush=True)
        bar = bar_of(row, results)
        if bar is not None and not got["kl"] <= bar:
            wrong.append(f"{row['name']}: KL {got['kl']:.3e} is above its bar of {bar:.3e}")
        before = baseline.get(row["name"])
        if not arguments.write_baseline and before and not got["kl"] <= SLACK * before["kl"]:
            wrong.append(f"{row['name']}: KL {got['kl']:.3e} was {before['kl']:.3e}")
    print("\n" + table(suite["rows"], results))
    if arguments.markdown:
        arguments.markdown.write_text(table(suite["rows"], results))
    if arguments.write_baseline:
        baseline_file.write_text(json.dumps(results, indent=1) + "\n")
    for line in wrong:
        print("WORSE: " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
