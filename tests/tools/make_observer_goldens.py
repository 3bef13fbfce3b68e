#!/usr/bin/env python3
"""Ranges that PyTorch's HistogramObserver decides on, for tests/quant/observer.

    make_observer_goldens.py tests/quant/observer/histogram_observer.json

Needs torch. Inputs come from integers (value_of), so that the test can make them anew. Releases
before 2.3 hand torch.histc limits that were cut to whole numbers, and move an old histogram into a
new range in another way; there, `Observer` replaces the observing part by the rule of the newer
releases. The search is PyTorch's own in every release. Each case is searched twice: in float32, as
PyTorch does, and with the same code and the same histogram in float64, where rounding decides
nothing. Cases marked `stock` are those whose limits are whole numbers and whose bins line up; the
unmodified observer of any release must then agree, which is checked here.
"""

import inspect
import json
import sys

import torch
from torch.ao.quantization import HistogramObserver

BINS = 2048
PARTS = 16
MASK = (1 << 64) - 1

# (name, stock, batches); a batch is (seed, n, kind, low, high).
CASES = [
    ("uniform", True, [(1, 40000, "uniform", -8, 8)]),
    ("bell", True, [(2, 40000, "bell", -8, 8)]),
    ("bell_in_three_batches", True,
     [(3, 30000, "bell", -8, 8), (4, 20000, "bell", -8, 8), (5, 10000, "bell", -6, 7)]),
    ("bell_with_rare_outliers", True, [(6, 60000, "outliers", -128, 128)]),
    ("outliers_on_one_side", True, [(7, 60000, "outliers", -8, 96)]),
    ("one_sided", True, [(8, 50000, "square", 0, 16)]),
    ("range_grows_aligned", True, [(9, 30000, "bell", -8, 8), (10, 30000, "outliers", -8, 24)]),
    ("range_grows_twice_aligned", True,
     [(11, 20000, "bell", -4, 4), (12, 20000, "bell", -4, 12), (13, 20000, "outliers", -36, 28)]),
    ("very_rare_outliers", True, [(24, 400000, "rare", -64, 128)]),
    ("very_rare_outliers_below", True, [(25, 400000, "rare", -128, 4)]),
    ("bell_of_many", True, [(26, 400000, "bell", -8, 8)]),
    ("square_of_many", True, [(27, 200000, "square", 0, 16), (28, 200000, "square", -16, 16)]),
    ("outliers_come_late", False,
     [(29, 200000, "bell", -7.75, 7.5), (30, 200000, "rare", -97.25, 61.5)]),
    ("range_grows_on_both_sides", False,
     [(14, 30000, "bell", -5.5, 6.25), (15, 30000, "outliers", -17.375, 40.125)]),
    ("range_grows_three_times", False,
     [(16, 9000, "bell", -1.5, 1.25), (17, 9000, "square", -2.75, 3.125),
      (18, 9000, "bell", -3.1875, 3.5), (19, 9000, "outliers", -30.5, 7.75)]),
    ("far_from_zero", False, [(20, 20000, "square", 3.25, 9.5), (21, 20000, "square", 2.5, 11.75)]),
    ("narrow", False, [(22, 30000, "outliers", -0.4375, 0.3125), (23, 9000, "bell", -0.25, 0.75)]),
]


def _mix(x):
    """The finalizer of splitmix64."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def value_of(seed, index, kind):
    """Multiples of 2^-14 that float32 holds: |value| <= 8, but up to 128 for outliers and rare ones."""
    bits = _mix((seed << 32) + index)
    pieces = [(bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48)]
    bell = sum(pieces) - 2 * 0xFFFF
    if kind == "uniform":
        return (2 * pieces[0] - 0xFFFF) * 4 / 2**15
    if kind == "bell":
        return bell / 2**14
    if kind == "square":
        return (pieces[0] >> 4) ** 2 / 2**20
    period = {"outliers": 1013, "rare": 50021}[kind]
    return bell / 2**14 * (16 if index % period == 7 else 0.25)


def batch_of(seed, n, kind, low, high):
    """Values within [low, high]; both limits occur."""
    values = [min(max(value_of(seed, index, kind), low), high) for index in range(n)]
    values[0], values[1] = low, high
    return torch.tensor(values, dtype=torch.float32)


class Observer(HistogramObserver):
    """HistogramObserver with the observing part of releases from 2.3 on."""

    def forward(self, x):
        if "upsample_rate" not in inspect.signature(HistogramObserver.__init__).parameters:
            return super().forward(x)
        low, high = torch.aminmax(x)
        if torch.isinf(self.min_val):
            counts = torch.histc(x, BINS, min=low.item(), max=high.item())
        else:
            low, high = torch.min(low, self.min_val), torch.max(high, self.max_val)
            counts = torch.histc(x, BINS, min=low.item(), max=high.item()) + self._moved(low, high)
        self.histogram.copy_(counts)
        self.min_val.copy_(low)
        self.max_val.copy_(high)
        return x

    def _moved(self, low, high):
        """The histogram so far, on the range [low, high]."""
        if low == self.min_val and high == self.max_val:
            return self.histogram
        edges = torch.linspace(self.min_val.item(), self.max_val.item(), BINS * PARTS + 1)
        middles = edges[:-1] + (self.max_val - self.min_val) / (BINS * PARTS) / 2
        limits = torch.linspace(low.item(), high.item(), BINS + 1)
        targets = torch.bucketize(middles, limits, right=True) - 1
        shares = self.histogram.repeat_interleave(PARTS) / PARTS
        return torch.bincount(targets.clamp(0, BINS - 1), weights=shares, minlength=BINS)


def searched_in_float64(observer):
    torch.set_default_dtype(torch.float64)
    exact = Observer(dtype=torch.quint8, reduce_range=False)
    for name in ("histogram", "min_val", "max_val"):
        setattr(exact, name, getattr(observer, name).double())
    result = exact._non_linear_param_search()
    torch.set_default_dtype(torch.float32)
    return [float(value) for value in result]


def stock_observer():
    if "upsample_rate" in inspect.signature(HistogramObserver.__init__).parameters:
        return HistogramObserver(dtype=torch.quint8, reduce_range=False, upsample_rate=PARTS)
    return HistogramObserver(dtype=torch.quint8, reduce_range=False)


def main(path):
    cases = []
    for name, stock, batches in CASES:
        observer = Observer(dtype=torch.quint8, reduce_range=False)
        unmodified = stock_observer()
        for batch in batches:
            observer(batch_of(*batch))
            unmodified(batch_of(*batch))
        float32 = [float(value) for value in observer._non_linear_param_search()]
        if stock:
            other = [float(value) for value in unmodified._non_linear_param_search()]
            assert other == float32, (name, other, float32)
            assert torch.equal(unmodified.histogram, observer.histogram), name
        cases.append({
            "name": name, "stock": stock,
            "batches": [dict(zip(("seed", "n", "kind", "low", "high"), batch)) for batch in batches],
            "observed": [observer.min_val.item(), observer.max_val.item()],
            "float32": float32, "float64": searched_in_float64(observer),
        })
    with open(path, "w", encoding="utf-8") as file:
        head = json.dumps({"torch": torch.__version__, "bins": BINS})[1:-1]
        body = ",\n".join("  " + json.dumps(case) for case in cases)
        file.write("{%s, \"cases\": [\n%s\n]}\n" % (head, body))


if __name__ == "__main__":
    main(sys.argv[1])
