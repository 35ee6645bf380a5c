"""Gradients of each sample alone, by four ways to get them, beside a training step that has only their sum.

    OMP_NUM_THREADS=1 SCRATCHRNN_NUM_THREADS=1 python benchmarks/per_sample.py --out per_sample

An LSTM with torch's default weights, float32, loss Σ output². Every way is first compared with torch.nn.LSTM on each
sequence in float64. Medians of rounds in which all take turns, in one process, with one thread each.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rows
import timing
import torch

from scratchrnn.interop.torch import LSTM

RESULTS = Path(__file__).resolve().parent / "results"
SIZES = (32, 100, 128, 128), (256, 20, 32, 64)  # B, T, I, H
ROUNDS = 9
NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
Found = list[torch.Tensor]  # (B, ...) of each of NAMES


def loss_of(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Σ output²."""
    loss: torch.Tensor = module(x)[0].square().sum()
    return loss


def step(module: Any, x: torch.Tensor) -> None:
    """Forward and backward, the sum alone."""
    module.zero_grad()
    loss_of(module, x).backward()


def with_grad_sample(module: Any, x: torch.Tensor) -> Found:
    """A step of ours, with per_sample set."""
    for p in module.parameters():
        p.grad_sample = None
    step(module, x)
    return [p.grad_sample for p in module.parameters()]


def one_by_one(module: Any, x: torch.Tensor) -> Found:
    """A pass for each sample."""
    weights = list(module.parameters())
    each = [torch.autograd.grad(loss_of(module, x[:, b : b + 1]), weights) for b in range(x.shape[1])]
    return [torch.stack(found) for found in zip(*each, strict=True)]


def by_vmap(module: Any, x: torch.Tensor) -> Found:
    """torch.func: vmap of grad."""

    def loss(weights: dict[str, torch.Tensor], xs: torch.Tensor) -> torch.Tensor:
        return loss_of(lambda x: torch.func.functional_call(module, weights, (x,)), xs[:, None])

    weights = {name: p.detach() for name, p in module.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it falls back to a loop inside
        return list(torch.func.vmap(torch.func.grad(loss), (None, 1))(weights, x).values())


def by_einsum(weights: Found, x: torch.Tensor) -> Found:
    """The recurrence written out, dL/da_t from autograd, and a product for each weight: what per-layer hooks do."""
    a_x = (x @ weights[0].T + weights[2] + weights[3]).requires_grad_()
    h = c = x.new_zeros(x.shape[1], weights[1].shape[1])
    before, total = [], x.new_zeros(())
    for a in a_x:
        before.append(h.detach())
        i, f, g, o = (a + h @ weights[1].T).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        total = total + h.square().sum()
    (da,) = torch.autograd.grad(total, a_x)
    bias = da.sum(0)
    return [torch.einsum("tbr,tbn->brn", da, side) for side in (x, torch.stack(before))] + [bias, bias]


def ways(x: torch.Tensor, hidden: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; all of the same weights."""
    theirs, plain, ours = (kind(x.shape[2], hidden) for kind in (torch.nn.LSTM, LSTM, LSTM))
    for module in (plain, ours):
        module.load_state_dict(theirs.state_dict())
    ours.per_sample = True
    weights = [p.detach() for p in theirs.parameters()]
    found: dict[str, Callable[[], Found]] = {
        "grad_sample": lambda: with_grad_sample(ours, x),
        "torch.nn, one by one": lambda: one_by_one(theirs, x),
        "vmap of grad": lambda: by_vmap(theirs, x),
        "written out, einsum": lambda: by_einsum(weights, x),
    }
    double = torch.nn.LSTM(x.shape[2], hidden, dtype=torch.float64)
    double.load_state_dict({name: p.double() for name, p in theirs.state_dict().items()})
    truth = one_by_one(double, x.double())
    for name, call in found.items():
        for parameter, got, want in zip(NAMES, call(), truth, strict=True):
            error = float((got - want).abs().max() / want.abs().max())
            if not error < 1e-4:
                raise SystemExit(f"{name}: {parameter} is wrong by {error:.1e}")
    return {"step": lambda: step(plain, x), "step of torch.nn": lambda: step(theirs, x), **found}


def medians(timed: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each, taking turns, the second of two calls each time."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, call in timed.items():
            call()  # finds memory as others left it
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(own) for name, own in taken.items()}


def main() -> None:
    """Check, measure, print, append rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="append the rows to benchmarks/results/OUT.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for batch, steps, inputs, hidden in SIZES:
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((steps, batch, inputs), np.float32))
        found = medians(ways(x, hidden))
        for name, seconds in found.items():
            ratio = seconds / found["grad_sample"]
            print(f"{batch:>4} {steps:>4} {inputs:>4} {hidden:>4}  {name:<22} {seconds * 1e3:8.1f} ms {ratio:6.2f}")
        if options.out:
            row = {
                "kind": "per_sample", "cell": "lstm", "B": batch, "T": steps, "D": inputs, "H": hidden,
                "seconds": found, "versions": {"torch": torch.__version__, "numpy": np.__version__},
                "threads": 1, "run": timing.moment(), "commit": timing.commit(), "machine": timing.machine(),
            }  # fmt: skip
            rows.append(RESULTS / f"{options.out}.jsonl", [row])


if __name__ == "__main__":
    main()
