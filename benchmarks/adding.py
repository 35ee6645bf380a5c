"""The adding problem: an LSTM learns to remember two numbers over T steps, and what a vanilla RNN makes of it.

    python benchmarks/adding.py                            # T = 100, five seeds, 1 thread
    python benchmarks/adding.py --steps 200 --init forget --updates 5000 --out mine

Each step of a sequence has a number from U(0, 1) and a marker; two markers of T are 1, and what they mark is to be
added. Whoever answers 1 always has a mean squared error of 1/6. Batches are drawn anew for every update; the error is
measured on 1,000 sequences drawn by another generator. Training of the LSTM ends where that is below the target; the
RNN gets all of the updates. Seconds are of the processor, evaluation included.

The LSTM's forget and input gates start with biases that spread its memory over up to T steps (`init.chrono_`), or with
forget biases of 1 (`--init forget`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import rows
import timing

RESULTS = Path(__file__).resolve().parent / "results"
HELD_OUT = 1000  # sequences
CELLS = ("lstm", "rnn")


def model(cell: str, steps: int, hidden: int, init: str, rng: np.random.Generator) -> Any:
    """LSTM or tanh RNN of 2 inputs, and a Linear on its last state."""
    import scratchrnn as srnn

    if cell == "rnn":
        return srnn.models.LastStep(srnn.RNN(2, hidden, rng=rng), 1, rng=rng)
    lstm = srnn.LSTM(2, hidden, rng=rng)
    if init == "chrono":
        srnn.init.chrono_(lstm, steps, rng)
    else:
        srnn.init.forget_bias_(lstm, 1.0)
    return srnn.models.LastStep(lstm, 1, rng=rng)


def learn(
    cell: str,
    seed: int,
    *,
    steps: int = 100,
    hidden: int = 32,
    batch: int = 32,
    lr: float = 0.02,
    init: str = "chrono",
    updates: int = 1000,
    target: float = 0.0,
    every: int = 25,
) -> dict[str, Any]:
    """Train by Adam, the gradient's norm clipped at 1, until the held-out error is below `target`; return the row."""
    from scratchrnn import data, losses, optim, train

    rng, other = np.random.default_rng(seed).spawn(2)
    held_out = data.adding_problem(steps, HELD_OUT, other)
    task = train.Sampled(
        model(cell, steps, hidden, init, rng),
        lambda rng: data.adding_problem(steps, batch, rng),
        losses.mse_loss,
        rng=rng,
        held_out=held_out,
    )
    optimizer = optim.Adam(task.parameters, lr=lr)
    trainer = train.Trainer(task, optimizer, steps=updates, evaluate_every=every, progress=False)
    curve, began = [], time.process_time()
    for step in trainer:
        if step.evaluation is not None:
            seconds = time.process_time() - began
            curve.append({"updates": step.number, "seconds": seconds, "mse": step.evaluation["loss"]})
            if curve[-1]["mse"] < target:
                break
    return {
        "kind": "adding", "cell": cell, "seed": seed, "T": steps, "H": hidden, "B": batch, "lr": lr,
        "init": init if cell == "lstm" else None, "target": target, "one": float(np.mean((1 - held_out[1]) ** 2)),
        "mse": curve[-1]["mse"], "best": min(point["mse"] for point in curve), "updates": curve[-1]["updates"],
        "seconds": curve[-1]["seconds"], "curve": curve,
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    p.add_argument("--steps", type=int, default=100, help="T (100)")
    p.add_argument("--hidden", type=int, default=32, help="H (32)")
    p.add_argument("--batch", type=int, default=32, help="B (32)")
    p.add_argument("--lr", type=float, default=0.02, help="Adam's, of the LSTM (0.02)")
    p.add_argument("--lr-rnn", type=float, default=0.001, help="of the RNN (0.001)")
    p.add_argument("--init", choices=("chrono", "forget"), default="chrono")
    p.add_argument("--updates", type=int, default=1000, help="at most (1000)")
    p.add_argument("--target", type=float, default=0.01, help="held-out error at which the LSTM's training ends (0.01)")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--out", help="append the rows to benchmarks/results/OUT.jsonl")
    return p


def main() -> None:
    """Train for every cell and seed; print a line for each, and append its row."""
    options = parser().parse_args()
    timing.start_anew(options.threads)
    import scratchrnn as srnn

    setting = {"steps": options.steps, "hidden": options.hidden, "batch": options.batch, "init": options.init}
    versions = {"scratchrnn": srnn.__version__, "numpy": np.__version__}
    print(
        f"T={options.steps}, H={options.hidden}, B={options.batch}; always answering 1: {srnn.data.ADDING_BASELINE:.4f}"
    )
    for cell in options.cells:
        lr, target = (options.lr, options.target) if cell == "lstm" else (options.lr_rnn, 0.0)
        learn(cell, 0, **setting, updates=1)  # compiles
        found = []
        for seed in options.seeds:
            row = learn(cell, seed, **setting, lr=lr, updates=options.updates, target=target)
            row |= {"threads": options.threads, "versions": versions, "run": timing.moment()}
            found.append(row | {"commit": timing.commit(), "machine": timing.machine()})
            curve = row["curve"]
            points = [curve[n] for n in sorted(set(np.linspace(0, len(curve) - 1, 7, dtype=int)))]
            shown = "  ".join(f"{point['updates']}: {point['mse']:.4f}" for point in points)
            print(
                f"{cell:<5}seed {seed}  {row['updates']:>5} updates {row['seconds']:6.1f} s  {row['mse']:.4f}   {shown}"
            )
            if options.out:
                rows.append(RESULTS / f"{options.out}.jsonl", found[-1:])
        seconds, errors, ones = ([row[name] for row in found] for name in ("seconds", "best", "one"))
        print(
            f"{cell:<5}best errors {min(errors):.4f} to {max(errors):.4f}, of always answering 1 {min(ones):.4f} to "
            f"{max(ones):.4f}; seconds: median {statistics.median(seconds):.1f}, at most {max(seconds):.1f}"
        )


if __name__ == "__main__":
    main()
