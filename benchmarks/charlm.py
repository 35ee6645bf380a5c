"""A character model of the default text, by scratchrnn and by torch: held-out bits per character over seconds.

    python benchmarks/charlm.py                              # 2 threads, each until 1.80 bits or 3 minutes of training
    python benchmarks/charlm.py --target 0 --out charlm      # how far 3 minutes lead
    python benchmarks/charlm.py --engines scratchrnn --threads 1

Embedding 64, LSTM H = 256, Linear; B = 32 rows, windows of T = 100 steps, the state carried from each to the next;
Adam 3e-3, gradient norm clipped at 1. The last tenth of the text is held out, and read as 64 rows with their state
carried. Both start from the same weights, read the same windows and are evaluated at the same ones; torch's model is
nn.Embedding, nn.LSTM, nn.Linear with its own loss, clipping and Adam. One process for each, one after the other; a
first step on weights that are thrown away, which compiles, stands outside the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import others
import rows
import timing
from engines import REGISTRY

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
EMBEDDING, H, B, T, RATE, MAX_NORM = 64, 256, 32, 100, 3e-3, 1.0
ROWS = 64  # of the held-out text
AT_ONCE = 64  # of their steps: as `scratchrnn.train.evaluate` has it
NAMES = {"scratchrnn": "scratchrnn-numba", "torch": "torch"}  # in engines.REGISTRY


class Text:
    """The default text, laid out as rows to train on and rows held out, and the model that both engines start from."""

    def __init__(self) -> None:
        from scratchrnn import data

        text = data.default_text()
        self.sha256 = data.text_sha256(text)
        self.vocabulary = data.Vocabulary(text)
        training, held_out = data.split(self.vocabulary.encode(text))
        self.rows = data.ContiguousRows(training, batch=B)
        self.held_out = data.ContiguousRows(held_out, batch=ROWS)

    def model(self, seed: int) -> Any:
        """A fresh scratchrnn model."""
        from scratchrnn.models import CharModel

        return CharModel(self.vocabulary.characters, "lstm", H, EMBEDDING, rng=np.random.default_rng(seed))


class Ours:
    """scratchrnn: a Trainer makes the steps."""

    def __init__(self, text: Text, seed: int, threads: int) -> None:
        from scratchrnn import optim, train

        model = text.model(seed)
        self.objective = train.LanguageModel(model, text.rows, k1=T, held_out=text.held_out)
        optimizer = optim.Adam(model.parameters, lr=RATE)
        self.steps = iter(
            train.Trainer(self.objective, optimizer, steps=sys.maxsize, max_norm=MAX_NORM, progress=False)
        )

    def step(self) -> float:
        """One window, one update; its loss in nats per character, before the update."""
        return next(self.steps).loss

    def held_out(self) -> float:
        """Nats per character of the held-out text."""
        return float(self.objective.evaluate()["loss"])


class Torch:
    """The same in torch."""

    def __init__(self, text: Text, seed: int, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        start, V = text.model(seed).parameters, len(text.vocabulary)
        layers = {
            "embedding": torch.nn.Embedding(V, EMBEDDING),
            "rnn": torch.nn.LSTM(EMBEDDING, H),
            "decoder": torch.nn.Linear(H, V),
        }
        self.model = torch.nn.ModuleDict(layers)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)
        self.text, self.torch = text, torch
        self.steps = self._steps()

    def _loss(self, inputs: Any, targets: Any, state: Any, reduction: str) -> tuple[Any, Any]:
        inputs, targets = self.torch.from_numpy(inputs), self.torch.from_numpy(targets)
        output, state = self.model["rnn"](self.model["embedding"](inputs), state)
        logits = self.model["decoder"](output).flatten(0, 1)
        return self.torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction=reduction), state

    def _steps(self) -> Iterator[float]:
        """Window after window, pass after pass."""
        while True:
            state = None
            for window in self.text.rows.windows(T):
                loss, state = self._loss(window.inputs, window.targets, state, "mean")
                self.optimizer.zero_grad()
                loss.backward()
                self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
                self.optimizer.step()
                state = tuple(part.detach() for part in state)
                yield float(loss.item())

    def step(self) -> float:
        """One window, one update; its loss in nats per character, before the update."""
        return next(self.steps)

    def held_out(self) -> float:
        """Nats per character of the held-out text."""
        state, total = None, 0.0
        with self.torch.inference_mode():
            for window in self.text.held_out.windows(AT_ONCE):
                loss, state = self._loss(window.inputs, window.targets, state, "sum")
                total += loss.item()
        return total / float(self.text.held_out.targets.size)


LEARNERS: dict[str, type[Ours] | type[Torch]] = {"scratchrnn": Ours, "torch": Torch}


def learn(engine: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train until the target or the time is reached; prints a line per evaluation, returns what the row says."""
    text = Text()
    LEARNERS[engine](text, options.seed, options.threads).step()  # compiles
    learner = LEARNERS[engine](text, options.seed, options.threads)
    waited, began, training = others.waited(), time.perf_counter(), 0.0
    steps: list[float] = []
    losses: list[float] = []
    curve: list[dict[str, float]] = []
    while not curve or (training < options.seconds and curve[-1]["bits"] >= options.target):
        for _ in range(options.every):
            at = time.perf_counter()
            losses.append(learner.step())
            steps.append(time.perf_counter() - at)
        training = sum(steps)
        bits = learner.held_out() / math.log(2)
        seconds = time.perf_counter() - began
        curve.append({"windows": len(steps), "training": training, "seconds": seconds, "bits": bits})
        recent = float(np.mean(losses[-options.every :])) / math.log(2)
        print(
            f"{engine:<11}{len(steps):>6} windows {training:7.1f} s training {seconds:7.1f} s with evaluation"
            f"   held out {bits:.4f} bits   training {recent:.4f}",
            flush=True,
        )
    share = None if waited is None else ((others.waited() or 0.0) - waited) / (time.perf_counter() - began)
    below = next((point for point in curve if point["bits"] < options.target), None)
    return {
        "kind": "charlm", "engine": engine, "threads": options.threads, "seed": options.seed, "text": text.sha256,
        "E": EMBEDDING, "H": H, "B": B, "T": T, "lr": RATE, "max_norm": MAX_NORM, "target": options.target,
        "below": below, "best": min(point["bits"] for point in curve), "first_loss": losses[0],
        **timing.Quantiles.of(steps).__dict__, "waited": share, "curve": curve,
        "versions": REGISTRY[NAMES[engine]].versions(),
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--engines", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=180.0, help="of training, evaluation not counted")
    p.add_argument("--target", type=float, default=1.80, help="held-out bits per character to stop below")
    p.add_argument("--every", type=int, default=65, metavar="WINDOWS", help="evaluate so often (65: half a pass)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", help="append the rows to benchmarks/results/OUT.jsonl")
    p.add_argument("--child", choices=LEARNERS, help=argparse.SUPPRESS)  # train here, and end the output with the row
    return p


def in_child(engine: str, threads: int) -> dict[str, Any]:
    """Run this program for one engine in a process of its own, show what it prints, and return the row it ends with."""
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | REGISTRY[NAMES[engine]].environment(threads) | {"PYTHONPATH": path}
    command = [sys.executable, __file__, *sys.argv[1:], "--child", engine]
    row: dict[str, Any] = {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            if line.startswith("{"):
                row = json.loads(line)
            else:
                print(line, end="", flush=True)
    if child.returncode or not row:
        raise SystemExit(f"{engine}: its process ended with {child.returncode}")
    return row | {"run": timing.moment(), "commit": timing.commit(), "machine": timing.machine()}


def main() -> None:
    """Have each engine train; append a row for each."""
    options = parser().parse_args()
    if options.child:
        print(json.dumps(learn(options.child, options)))
        return
    found = []
    for engine in options.engines:
        found.append(in_child(engine, options.threads))
        if options.out:
            rows.append(RESULTS / f"{options.out}.jsonl", found[-1:])
    for row in found:
        below = row["below"]
        when = f"after {below['training']:.1f} s of training" if below else "not reached"
        disturbed = ", disturbed by other programs" if others.disturbed(row["waited"]) else ""
        print(
            f"{row['engine']:<11}{row['p50'] * 1e3:6.1f} ms a window; below {row['target']:.2f} bits: {when}; "
            f"best {row['best']:.4f} bits; {row['threads']} threads{disturbed}"
        )


if __name__ == "__main__":
    main()
