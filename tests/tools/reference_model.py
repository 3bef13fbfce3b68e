#!/usr/bin/python3
"""Writes and checks the golden files in tests/golden with reference_decoder.py, in float64.

    reference_model.py --write tests/golden          regenerate every file from its seed
    reference_model.py --check tests/golden          recompute and compare
    reference_model.py --self-test                   formulas; do wrong ingredients show?
    reference_model.py --model DIR --golden FILE     compare with goldens of somebody else
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile
from typing import Dict, List, Tuple

import torch

import reference_cases
import safetensors_io
from reference_cases import CASES, Case
from reference_decoder import Model
from reference_mistakes import check_formulas, mistakes

# The float32 difference is measured with sums one term at a time, the worst order in use; the rest
# of the factor is for kernels' own exp, and for another rounding of each product.
TOLERANCE_FACTOR = 8.0
MIN_MARGIN = 1e-3
# Far above float32 errors of a probability, so that every implementation chooses the same experts.
MIN_ROUTING_GAP = 1e-5
N_GREEDY = 16
SENSITIVITY = 100.0
# Goldens are rounded to this: far coarser than float64 errors, so that they are the same bytes on
# machines whose exp and cos differ in the last bit; far finer than float32 errors.
DECIMALS = 9


# ---- goldens ------------------------------------------------------------------------------------


def token_nll(logits: torch.Tensor, ids: List[int]) -> torch.Tensor:
    """-ln p(ids[i+1] | ids[..i]) for i = 0 .. len-2, float64."""
    logits = logits[:-1].double()
    chosen = logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    return torch.logsumexp(logits, -1) - chosen


def greedy(model: Model, ids: List[int], n_new: int) -> Tuple[List[int], List[float]]:
    """New ids, and by how much each best logit led the second."""
    ids, new, margins = list(ids), [], []
    for _ in range(n_new):
        best = torch.topk(model.forward(ids).logits[-1], 2)
        margins.append(float(best.values[0] - best.values[1]))
        new.append(int(best.indices[0]))
        ids.append(new[-1])
    return new, margins


def embedding(outcome) -> torch.Tensor:
    """The final hidden state of the last token, of Euclidean length 1."""
    last = outcome.hidden[-1][-1]
    return last / torch.sqrt((last * last).sum())


def rounded(tensor: torch.Tensor) -> List:
    if tensor.dim() > 1:
        return [rounded(row) for row in tensor]
    return [round(v, DECIMALS) + 0.0 for v in tensor.tolist()]


def round_up(value: float) -> float:
    """To two significant digits, upward."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")


def scaled_tolerance(difference: float) -> float:
    return float(f"{difference * TOLERANCE_FACTOR:.3g}")


def logit_positions(case: Case, length: int, is_short: bool) -> List[int]:
    if is_short and case.every_position:
        return list(range(length))
    return [length // 3, 2 * length // 3, length - 1] if is_short else [length // 2, length - 1]


def float32_difference(
    config: Dict, raw: Dict, prompts: List[List[int]], is_embedder: bool
) -> Dict[str, float]:
    """Largest |float32 - float64| over prompts, positions and both orders of summation."""
    exact = Model(config, raw)
    worst = {"logits": 0.0, "hidden": 0.0, "nll": 0.0}
    if is_embedder:
        worst["embedding"] = 0.0
    for ids in prompts:
        want = exact.forward(ids)
        for backward in (False, True):
            got = Model(config, raw, torch.float32, backward).forward(ids)
            pairs = {
                "logits": (got.logits, want.logits),
                "hidden": (torch.stack(got.hidden), torch.stack(want.hidden)),
                "nll": (token_nll(got.logits, ids), token_nll(want.logits, ids)),
                "embedding": (embedding(got), embedding(want)),
            }
            for key, (a, b) in pairs.items():
                if key not in worst:
                    continue
                worst[key] = max(worst[key], float((a.double() - b).abs().max()))
    return worst


def make_golden(case: Case, raw: Dict) -> Dict:
    """The content of golden.json; raises ValueError where a seed gives a near tie."""
    model = Model(case.config, raw)
    prompts = []
    for length in (case.short_length, case.long_length):
        ids = reference_cases.prompt_ids(case, length)
        outcome = model.forward(ids)
        positions = logit_positions(case, length, length == case.short_length)
        new, margins = greedy(model, ids, N_GREEDY)
        if min(margins) < MIN_MARGIN:
            raise ValueError(f"{case.name}: a margin of {min(margins):.2g}: choose another seed")
        if case.config["eos_token_id"] in new:
            raise ValueError(f"{case.name}: the continuation holds eos: choose another seed")
        prompts.append(
            {
                "ids": ids,
                "mean_nll": rounded(token_nll(outcome.logits, ids).mean()[None])[0],
                "greedy_ids": new,
                "greedy_margins": [float(f"{m:.4g}") for m in margins],
                "last_hidden": rounded(torch.stack([h[-1] for h in outcome.hidden])),
                **({"embedding": rounded(embedding(outcome))} if case.is_embedder else {}),
                "logit_positions": positions,
                "logits": rounded(outcome.logits[positions]),
            }
        )
    if model.routing_gap < MIN_ROUTING_GAP:
        raise ValueError(f"{case.name}: experts nearly tie: choose another seed")
    all_ids = [p["ids"] for p in prompts]
    worst = float32_difference(case.config, raw, all_ids, case.is_embedder)
    difference = {key: round_up(value) for key, value in worst.items()}
    if 2.0 * scaled_tolerance(difference["logits"]) > MIN_MARGIN:
        raise ValueError(f"{case.name}: two logits within tolerance could swap the greedy choice")
    return {
        "model": case.name,
        "seed": case.seed,
        "float32_difference": difference,
        "tolerance_factor": TOLERANCE_FACTOR,
        "tolerance": {key: scaled_tolerance(value) for key, value in difference.items()},
        "prompts": prompts,
    }


def compact_json(value, indent: int = 0) -> str:
    """JSON with one line per list of scalars."""
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        body = [f"{pad}{json.dumps(k)}: {compact_json(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(body) + "\n" + pad[:-1] + "}"
    if isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        body = [pad + compact_json(v, indent + 1) for v in value]
        return "[\n" + ",\n".join(body) + "\n" + pad[:-1] + "]"
    return json.dumps(value, separators=(",", ":"))


def write_case(case: Case, folder: pathlib.Path) -> Dict:
    folder.mkdir(parents=True, exist_ok=True)
    raw = reference_cases.make_weights(case)
    golden = make_golden(case, raw)
    (folder / "config.json").write_text(json.dumps(case.config, indent=2) + "\n")
    safetensors_io.write_file(folder / "model.safetensors", raw)
    (folder / "golden.json").write_text(compact_json(golden) + "\n")
    return golden


def write_all(root: pathlib.Path) -> int:
    for case in CASES:
        golden = write_case(case, root / case.name)
        difference = golden["float32_difference"]
        margin = min(m for p in golden["prompts"] for m in p["greedy_margins"])
        text = " ".join(f"{key} {value:.1e}" for key, value in difference.items())
        print(f"{case.name}: float32 differs by {text}; smallest margin {margin:.2g}")
    return 0


def compare_case(folder: pathlib.Path) -> List[str]:
    """What differs between the stored golden and a fresh pass over the stored weights."""
    config = json.loads((folder / "config.json").read_text())
    golden = json.loads((folder / "golden.json").read_text())
    raw = safetensors_io.read_folder(folder)
    model, wrong = Model(config, raw), []
    allowed = 0.51 * 10.0**-DECIMALS + 1e-11

    def compare(what: str, got, want) -> None:
        got, want = torch.as_tensor(got), torch.tensor(want, dtype=torch.float64)
        difference = float((got - want).abs().max()) if got.shape == want.shape else math.inf
        if not difference <= allowed:
            wrong.append(f"{what} differs by {difference:.3g}")

    for number, prompt in enumerate(golden["prompts"]):
        ids = prompt["ids"]
        outcome = model.forward(ids)
        at = f"prompt {number}"
        for layer, state in enumerate(outcome.hidden):
            compare(f"{at}: hidden state {layer}", state[-1], prompt["last_hidden"][layer])
        if "embedding" in prompt:
            compare(f"{at}: embedding", embedding(outcome), prompt["embedding"])
        compare(f"{at}: logits", outcome.logits[prompt["logit_positions"]], prompt["logits"])
        compare(f"{at}: mean nll", token_nll(outcome.logits, ids).mean(), prompt["mean_nll"])
        new, margins = greedy(model, ids, len(prompt["greedy_ids"]))
        if new != prompt["greedy_ids"]:
            wrong.append(f"{at}: greedy continuation differs")
        if max(abs(a - b) for a, b in zip(margins, prompt["greedy_margins"])) > 1e-3 * max(margins):
            wrong.append(f"{at}: greedy margins differ")
    is_embedder = "embedding" in golden["prompts"][0]
    worst = float32_difference(config, raw, [p["ids"] for p in golden["prompts"]], is_embedder)
    for key, value in worst.items():
        stored = golden["float32_difference"][key]
        if not 0.99 * value <= stored <= 1.2 * value:
            wrong.append(f"a float32 pass differs by {value:.3g} in {key}, {stored:.3g} stored")
        if golden["tolerance"][key] != scaled_tolerance(stored):
            wrong.append(f"the tolerance of {key} is not its float32 difference times the factor")
    return wrong


def check_all(root: pathlib.Path) -> int:
    """Recomputes from the stored weights, and regenerates every file from its seed."""
    failures = 0
    names = sorted(p.name for p in root.iterdir() if (p / "golden.json").exists())
    if names != sorted(case.name for case in CASES):
        print(f"{root} holds {names}, not the models of reference_cases.py")
        failures += 1
    for case in CASES:
        if case.name not in names:
            continue
        wrong = compare_case(root / case.name)
        with tempfile.TemporaryDirectory() as fresh:
            write_case(case, pathlib.Path(fresh))
            same = {
                file: (pathlib.Path(fresh) / file).read_bytes()
                == (root / case.name / file).read_bytes()
                for file in ("config.json", "model.safetensors", "golden.json")
            }
        for file in ("config.json", "model.safetensors"):
            if not same[file]:
                wrong.append(f"{file} is not what its seed gives")
        # Its values were compared above; a last digit may round the other way elsewhere.
        note = "" if same["golden.json"] else " (golden.json: other bytes, same values)"
        print(f"{case.name}: {'; '.join(wrong) if wrong else 'ok' + note}")
        failures += len(wrong)
    return 1 if failures else 0


# ---- self-test ----------------------------------------------------------------------------------


def stored_logits_move(logits: torch.Tensor, prompt: Dict) -> float:
    stored = torch.tensor(prompt["logits"], dtype=torch.float64)
    return (logits[prompt["logit_positions"]] - stored).abs().max().item()


def self_test() -> int:
    """Formulas against worked-out values; then every mistake must move the stored logits."""
    wrong = check_formulas()
    print("formulas:", "; ".join(wrong) if wrong else "ok")
    for case in CASES:
        raw = reference_cases.make_weights(case)
        golden = make_golden(case, raw)
        tolerance = golden["tolerance"]["logits"]
        spread = torch.tensor(golden["prompts"][1]["logits"]).std().item()
        print(f"{case.name}: spread {spread:.2f}, tolerance {tolerance:.1e}; moved, in tolerances:")
        for what, (config, variant) in mistakes(case).items():
            model = Model(config, raw)
            # A test sees only what is stored, and may look at one prompt only.
            moved = min(
                stored_logits_move(model.forward(p["ids"], variant).logits, p)
                for p in golden["prompts"]
            )
            ratio = moved / tolerance
            print(f"    {what}: {ratio:.0f}")
            if not ratio >= SENSITIVITY:
                wrong.append(f"{case.name}: {what} moves the logits by {ratio:.1f} tolerances only")
    for line in wrong:
        print(f"FAILED: {line}")
    return 1 if wrong else 0


# ---- goldens of somebody else -------------------------------------------------------------------


class ByteFallbackBpe:
    """Just enough of tokenizer.json for such a golden: one piece, merges by rank, byte fallback."""

    def __init__(self, path: pathlib.Path):
        content = json.loads(path.read_text())["model"]
        self.vocab = content["vocab"]
        merges = [m if isinstance(m, list) else m.split(" ") for m in content["merges"]]
        self.ranks = {(a, b): rank for rank, (a, b) in enumerate(merges)}

    def encode(self, text: str) -> List[int]:
        pieces = list("▁" + text.replace(" ", "▁")) if text else []
        while True:
            pairs = zip(pieces, pieces[1:])
            ranked = [(self.ranks.get(pair, math.inf), i) for i, pair in enumerate(pairs)]
            best, i = min(ranked, default=(math.inf, 0))
            if best == math.inf:
                break
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        ids = []
        for piece in pieces:
            fallback = [self.vocab[f"<0x{byte:02X}>"] for byte in piece.encode()]
            ids += [self.vocab[piece]] if piece in self.vocab else fallback
        return ids


def compare_foreign(model_dir: pathlib.Path, golden_file: pathlib.Path) -> int:
    """Compares with greedy ids, mean nll and last logits that another implementation made."""
    config = json.loads((model_dir / "config.json").read_text())
    golden = json.loads(golden_file.read_text())
    model = Model(config, safetensors_io.read_folder(model_dir))
    failed = False

    def report(what: str, difference: float, allowed: float) -> None:
        nonlocal failed
        failed = failed or not difference <= allowed
        print(f"{what}: difference {difference:.3g} (allowed {allowed:g})")

    for entry in golden["greedy"]:
        ids, first = entry["ids"], len(entry["prompt_ids"])
        # One pass over the whole text is the same as generating it, as long as all ids agree.
        logits = model.forward(ids[:-1]).logits[first - 1 :]
        best = torch.topk(logits, 2)
        differing = sum(a != b for a, b in zip(best.indices[:, 0].tolist(), ids[first:]))
        report(f"greedy {entry['prompt']!r}: {len(ids) - first} ids", differing, 0)
        margin = (best.values[:, 0] - best.values[:, 1]).min().item()
        report("  smallest margin", abs(margin - entry["min_top1_margin"]), 1e-9)
    for entry in golden["logits"]:
        logits = model.forward(entry["ids"]).logits
        want = torch.tensor(entry["last_logits"], dtype=torch.float64)
        report(f"last logits of {entry['text']!r}", (logits[-1] - want).abs().max().item(), 5.1e-8)
        best = logits.argmax(-1).tolist()
        differing = sum(a != b for a, b in zip(best, entry["argmax_each_position"]))
        report("  best id of each position", differing, 0)
    tokenizer = ByteFallbackBpe(model_dir / "tokenizer.json")
    for entry in golden["nll"]:
        text_file = golden_file.parent.parent / entry["file"]
        if not text_file.exists() or "<|endoftext|>" not in entry["how"]:
            print(f"skipped {entry['file']}: absent, or not split into stories")
            continue
        stories = [s.strip() for s in text_file.read_text().split("<|endoftext|>")]
        total, count = 0.0, 0
        for story in filter(None, stories):
            ids = ([config["bos_token_id"]] + tokenizer.encode(story))[:512]
            total += token_nll(model.forward(ids).logits, ids).sum().item()
            count += len(ids) - 1
        report(f"{entry['file']}: tokens", abs(count - entry["predicted_tokens"]), 0)
        report("  mean nll", abs(total / count - entry["mean_nll"]), 1e-9)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--check", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--model", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--golden", metavar="FILE", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        if arguments.write:
            return write_all(arguments.write)
        if arguments.check:
            return check_all(arguments.check)
        if arguments.self_test:
            return self_test()
        if arguments.model and arguments.golden:
            return compare_foreign(arguments.model, arguments.golden)
    parser.print_usage(sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
