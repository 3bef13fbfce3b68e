#!/usr/bin/python3
"""Quantizes small models to every row of rows.json and measures each against its float model.

    accuracy.py LLMQ [--only WORD] [--markdown FILE] [--write-baseline] [--data FOLDER]

Each row is quantized, verified and evaluated on a text that calibration never saw. The models:

    pico           samples/pico; 20,000 tokens of a novel in windows of 512, passkeys and key-value
                   retrieval at 512 tokens; calibrated on the built-in set
    outliers       the same function with outliers in its activations (make_outlier_model.py)
    stories        stories260k as bfloat16; calibrated on ten stories, evaluated on nine others
    stories-qwen2  the same function in the names of another family

Exit code 1 where a divergence exceeds the row's bar, or the baseline beside this file by more than
5 %; 77 (skipped) without the texts. Python's standard library alone, but for the outliers (NumPy).
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
PICO = ROOT / "samples" / "pico"
DATA = pathlib.Path(os.environ.get("LLMQ_TEST_DATA", ROOT.parent / "shared" / "data"))
NOVEL = "texts/pride_and_prejudice.txt"
STORIES = "texts/tinystories_valid_30k.txt"
N_CALIBRATION_STORIES = 10
SLACK = 1.05  # of the baseline: nothing but a change of the program moves a row
QUIET = ["--json", "--log-level", "quiet"]


def run(command):
    """The JSON document that a command prints; its error message ends the suite."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}: exit {done.returncode}\n{done.stderr.strip()}")
    return json.loads(done.stdout) if "--json" in command else None


class Models:
    """The float models by name, made when they are first asked for, and how each is evaluated."""

    def __init__(self, llmq, data, work):
        self.llmq, self.data, self.work, self.made = llmq, data, work, {}

    def folder(self, name):
        if name not in self.made:
            self.made[name] = getattr(self, "make_" + name.replace("-", "_"))()
        return self.made[name]

    def make_pico(self):
        return PICO

    def make_outliers(self):
        folder = self.work / "outliers"
        script = [HERE / "make_outlier_model.py", PICO, PICO / "story.txt", folder]
        run(["/usr/bin/python3", *script])
        return folder

    def make_stories(self, source="stories260k"):
        folder = self.work / source
        stories = [s for s in (self.data / STORIES).read_text().split("\n") if s.strip()]
        for name, part in (
            ("calibration.txt", stories[:N_CALIBRATION_STORIES]),
            ("evaluation.txt", stories[N_CALIBRATION_STORIES:]),
        ):
            (self.work / name).write_text("\n".join(part) + "\n")
        command = [self.llmq, "convert", self.data / "models" / source, folder]
        run([*command, "--dtype", "bfloat16", *QUIET])
        return folder

    def make_stories_qwen2(self):
        return self.make_stories("stories260k-qwen2")

    def quant_options(self, name):
        return ["-calib", self.work / "calibration.txt"] if name.startswith("stories") else []

    def eval_options(self, name):
        if name.startswith("stories"):
            return ["--text", self.work / "evaluation.txt", "--split", "\n", "--context", "512"]
        novel = ["--text", self.data / NOVEL, "--max-tokens", "20000"]
        if name != "pico":
            return [*novel, "--context", "512"]
        retrieval = ["--passkey", "512", "--kv-retrieval", "512", "--depths", "3", "--seeds", "5"]
        return [*novel, *retrieval]


def options_of(row):
    """What the row's command says beside source and destination, as words."""
    return shlex.split(row["quant"]) if "quant" in row else []


def mean(cells):
    return sum(cell["accuracy"] for cell in cells) / len(cells)


def measure(models, row, work):
    """What a row's folder scores."""
    name = row.get("model", "pico")
    model, folder = models.folder(name), work / "out"
    options = options_of(row)
    if "recipe" in row:
        recipe = work / "recipe.json"
        recipe.write_text(json.dumps(row["recipe"]))
        options += ["--recipe", recipe]
    options += models.quant_options(name)
    report = run([models.llmq, "quant", "-src", model, "-dst", folder, *options, *QUIET])
    run([models.llmq, "verify", folder, *QUIET])
    command = [models.llmq, "eval", "--model_path", folder, "--reference", model]
    evaluation = models.eval_options(name)
    own = shlex.split(row.get("eval", ""))
    if name == "pico" and "--context" not in own:
        own = ["--context", "512", *own]
    scores = run([*command, *evaluation, *own, *QUIET])
    found = {
        "bits": report["totals"]["bits_per_weight"],
        "nll": scores["mean_nll"],
        "kl": scores["kl"],
        "kl_p99": scores["kl_p99"],
        "top1": scores["top1_agreement"],
    }
    for task in ("passkey", "kv_retrieval"):
        if scores.get(task):
            found[task] = mean(scores[task])
    return found


def bar_of(row, results):
    """The row's own limit, absolute or as a share of another row's divergence; None for none."""
    if "bar" in row:
        return row["bar"]
    share = row.get("bar_share")
    if share is None or share["of"] not in results:
        return None
    return share["share"] * results[share["of"]]["kl"]


def command_of(row):
    words = row.get("quant", "")
    if "recipe" in row:
        words += " --recipe '" + json.dumps(row["recipe"], separators=(",", ":")) + "'"
    if "eval" in row:
        words += "; eval " + row["eval"]
    return words.strip().replace("|", "\\|")


def table(title, rows, results):
    lines = [
        f"## {title}\n",
        "| row | options | bits | mean NLL | KL | p99 | same top-1 | passkey | key-value | bar |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        got, bar = results[row["name"]], bar_of(row, results)

        def percent(key, digits=0):
            return f"{100 * got[key]:.{digits}f} %" if key in got else ""

        lines.append(
            f"| {row['name']} | `{command_of(row)}` | {got['bits']:.2f} | {got['nll']:.4f} "
            f"| {got['kl']:.2e} | {got['kl_p99']:.2e} | {percent('top1', 1)} | {percent('passkey')} "
            f"| {percent('kv_retrieval')} | {'' if bar is None else f'{bar:.2e}'} |"
        )
    return "\n".join(lines) + "\n"


def tables(rows, results):
    parts = []
    for title in dict.fromkeys(row.get("model", "pico") for row in rows):
        mine = [r for r in rows if r.get("model", "pico") == title and r["name"] in results]
        if mine:
            parts.append(table(title, mine, results))
    return "\n".join(parts)


def judge(row, got, results, baseline):
    """Sentences about what is worse than it may be."""
    bar, before, wrong = bar_of(row, results), baseline.get(row["name"]), []
    if bar is not None and not row.get("is_missed") and not got["kl"] <= bar:
        wrong.append(f"{row['name']}: KL {got['kl']:.3e} is above its bar of {bar:.3e}")
    if before and not got["kl"] <= SLACK * before["kl"]:
        wrong.append(f"{row['name']}: KL {got['kl']:.3e} was {before['kl']:.3e}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llmq")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--only", help="rows whose name holds this word")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables to this file")
    parser.add_argument("--write-baseline", action="store_true")
    arguments = parser.parse_args()
    for needed in (NOVEL, STORIES):
        if not (arguments.data / needed).is_file():
            print(f"skipped: needs {arguments.data / needed}")
            return 77
    suite = json.loads((HERE / "rows.json").read_text())
    digest = hashlib.sha256((PICO / "model.safetensors").read_bytes()).hexdigest()
    if digest != suite["pico_sha256"]:
        print(f"{PICO}: SHA-256 is {digest}, not the one that the limits were measured with")
        return 1
    baseline_file = HERE / "baseline.json"
    has_baseline = baseline_file.exists() and not arguments.write_baseline
    baseline = json.loads(baseline_file.read_text()) if has_baseline else {}
    results, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder:
        models = Models(arguments.llmq, arguments.data, pathlib.Path(folder))
        for row in suite["rows"]:
            if arguments.only and arguments.only not in row["name"]:
                continue
            with tempfile.TemporaryDirectory() as work:
                got = measure(models, row, pathlib.Path(work))
            results[row["name"]] = got
            print(f"{row['name']}: KL {got['kl']:.3e}, {got['bits']:.2f} bits", flush=True)
            wrong += judge(row, got, results, baseline)
    text = tables(suite["rows"], results)
    print("\n" + text)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.write_baseline:
        baseline_file.write_text(json.dumps(results, indent=1) + "\n")
    for line in wrong:
        print("WORSE: " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
