"""What each measurement costs: its time beside that of a forward and a backward pass on the same data.

    OMP_NUM_THREADS=1 SCRATCHRNN_NUM_THREADS=1 python benchmarks/laboratory.py --out laboratory

LSTM and RNN with torch's default weights, float32. Medians of rounds in which all take turns, after one that compiles.
Pass and measurements on B sequences of T steps; what is taken of a single sequence says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rows
import timing

import scratchrnn as srnn
from scratchrnn import dynamics, gradflow

RESULTS = Path(__file__).resolve().parent / "results"
STEPS, BATCH, INPUT, HIDDEN = 100, 16, 64, 128
ROUNDS = 5


def calls(cell: str) -> dict[str, Callable[[], Any]]:
    """Every measurement, by what a table calls it."""
    rng = np.random.default_rng(0)
    layer = (srnn.LSTM if cell == "lstm" else srnn.RNN)(INPUT, HIDDEN, rng=rng)
    x = rng.standard_normal((STEPS, BATCH, INPUT), np.float32)
    trace, one = layer.forward(x), layer.forward(x[:, :1])
    d = rng.standard_normal(trace.output.shape, np.float32)
    found: dict[str, Callable[[], Any]] = {
        "forward and backward": lambda: layer.backward(layer.forward(x), d),
        "gradient_by_distance": lambda: gradflow.gradient_by_distance(layer, trace, d[-1]),
        "effective_memory": lambda: gradflow.effective_memory(layer, rng=np.random.default_rng(0)),
        "itemized, one sequence": lambda: gradflow.itemized(layer, one, d[:, :1]),
        "lyapunov_spectrum, one sequence, all": lambda: spectrum(layer, x, None),
        "lyapunov_spectrum, one sequence, 10": lambda: spectrum(layer, x, 10),
        "singular_values, one sequence": lambda: gradflow.singular_values(one, 0, STEPS),
        "jacobians, one sequence": lambda: gradflow.jacobians(one),
        "connectivity, one sequence": lambda: gradflow.connectivity(one),
        "saturation": lambda: dynamics.saturation(trace),
        "diagnose": lambda: dynamics.diagnose(trace),
        "project, every step": lambda: dynamics.project(trace, at="every step"),
        "position": lambda: dynamics.position(layer, x[0, 0]),
        "fixed_points, 64 candidates": lambda: dynamics.fixed_points(
            layer, one, x=x[0, 0], count=64, rng=np.random.default_rng(0)
        ),
    }
    if cell == "lstm":
        found |= {
            "split_paths": lambda: gradflow.split_paths(layer, trace, d),
            "forget_product": lambda: gradflow.forget_product(trace),
            "cell_hidden": lambda: dynamics.cell_hidden(layer, trace, rng=np.random.default_rng(0)),
        }
    return found


def spectrum(layer: Any, x: np.ndarray, exponents: int | None) -> Any:
    """Over the steps that are left after a short warm-up."""
    return gradflow.lyapunov_spectrum(layer, x[:, :1], warmup=10, warmup_q=10, exponents=exponents)


def medians(timed: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for round_ in range(ROUNDS + 1):
        for name, call in timed.items():
            began = time.perf_counter()
            call()
            if round_:  # the first compiles
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(own) for name, own in taken.items()}


def main() -> None:
    """Measure, print, append rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="append the rows to benchmarks/results/OUT.jsonl")
    options = parser.parse_args()
    sizes = {"T": STEPS, "B": BATCH, "D": INPUT, "H": HIDDEN}
    for cell in ("lstm", "rnn"):
        found = medians(calls(cell))
        base = found["forward and backward"]
        for name, seconds in sorted(found.items(), key=lambda item: -item[1]):
            print(f"{cell:<5} {name:<38} {seconds * 1e3:9.2f} ms {seconds / base:8.1f} passes")
        if options.out:
            row = {
                "kind": "laboratory", "cell": cell, **sizes, "seconds": found, "run": timing.moment(),
                "commit": timing.commit(), "machine": timing.machine(),
            }  # fmt: skip
            rows.append(RESULTS / f"{options.out}.jsonl", [row])


if __name__ == "__main__":
    main()
