"""A training step in torch, with nn.LSTM and with the module of scratchrnn in its place: seconds and their ratio.

    python benchmarks/torch_module.py                            # 1 thread and all, three shapes, all modes
    python benchmarks/torch_module.py --threads 1 --out torch_module

layer: one call of the module and backward through it, gradients of the input and all weights. model: a step of a
language model of 128 characters: nn.Embedding, the module, nn.Linear, cross-entropy, backward, gradient norm clipped at
1, Adam. hessian: the Hessian of the mean square of the module's output, in its weights, times a vector, by
differentiating twice. The model is torch's in all; `interop.torch.swap` exchanges the module.

One process for each engine and number of threads, rounds in turns, A B A B, as in run.py. Before anything is timed both
engines take five steps from the same weights on the same numbers, and must agree. Ratio: torch's median over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import others
import rows
import timing
from engines import REGISTRY

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ENGINES = {"scratchrnn": "scratchrnn-numba", "torch": "torch"}  # in engines.REGISTRY, whose environment they get
MODES = ("layer", "model", "hessian")
CHARACTERS, RATE, MAX_NORM = 128, 1e-3, 1.0
CHECKED, AGREE = 5, 1e-3  # steps, and how far apart float32 may carry them
ROUNDS, MOST_ROUNDS = 9, 18


@dataclass(frozen=True)
class Problem:
    """Sizes, as in a case of run.py, and the number of layers."""

    B: int
    T: int
    D: int
    H: int
    layers: int
    cell: str = "lstm"

    def __str__(self) -> str:
        return f"{self.cell} ({self.B},{self.T},{self.D},{self.H}) layers {self.layers}"


PROBLEMS = (Problem(20, 35, 200, 200, 2), Problem(32, 100, 128, 128, 1), Problem(1, 500, 128, 128, 1))


# In the process of one engine


def build(engine: str, problem: Problem, mode: str) -> tuple[Callable[[], Any], Callable[[], list[float]]]:
    """The step to time, and one that returns what the engines must agree on."""
    import torch

    torch.manual_seed(0)
    kind = torch.nn.LSTM if problem.cell == "lstm" else torch.nn.RNN
    parts = {
        "embedding": torch.nn.Embedding(CHARACTERS, problem.D),
        "rnn": kind(problem.D, problem.H, problem.layers),
        "decoder": torch.nn.Linear(problem.H, CHARACTERS),
    }
    model = torch.nn.ModuleDict(parts)
    if engine == "scratchrnn":
        from scratchrnn.interop.torch import swap

        swap(model)
    if mode == "layer":
        x = torch.randn(problem.T, problem.B, problem.D, requires_grad=True)
        d_output = torch.randn(problem.T, problem.B, problem.H)
        leaves = [x, *model["rnn"].parameters()]

        def layer() -> Any:
            for leaf in leaves:
                leaf.grad = None
            output, _ = model["rnn"](x)
            output.backward(d_output)
            return output

        def norms() -> list[float]:
            output = layer()
            return [float(t.detach().norm()) for t in (output, *(leaf.grad for leaf in leaves))]

        return layer, norms
    if mode == "hessian":
        x = torch.randn(problem.T, problem.B, problem.D)
        weights = list(model["rnn"].parameters())
        vector = [torch.randn_like(w) for w in weights]

        def product() -> Any:
            output, _ = model["rnn"](x)
            first = torch.autograd.grad(output.square().mean(), weights, create_graph=True)
            return torch.autograd.grad(first, weights, vector)

        return product, lambda: [float(t.norm()) for t in product()]
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    words, targets = torch.randint(CHARACTERS, (2, problem.T, problem.B))

    def step() -> Any:
        output, _ = model["rnn"](model["embedding"](words))
        logits = model["decoder"](output).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        return loss

    return step, lambda: [float(step().detach())]


def serve(engine: str, threads: int) -> None:
    """Answer commands, JSON lines, until standard input ends."""
    import torch

    torch.set_num_threads(threads)
    call: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "prepare":
            call, check = build(engine, Problem(**command["problem"]), command["mode"])
            figures = [figure for _ in range(CHECKED) for figure in check()]
            seconds = [clocked(call) for _ in range(3)]
            answer = {"figures": figures, "usual": min(seconds), "torch": torch.__version__}
        else:
            before, began = others.waited(), time.perf_counter()
            seconds = [clocked(call) for _ in range(command["calls"])]
            share = None if before is None else ((others.waited() or 0.0) - before) / (time.perf_counter() - began)
            answer = {"seconds": seconds, "waited": share}
        print(json.dumps(answer), flush=True)


def clocked(call: Callable[[], Any]) -> float:
    """Seconds of a call, its result dropped."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# In the parent


class Process:
    """One engine at one number of threads."""

    def __init__(self, engine: str, threads: int) -> None:
        environment = os.environ | REGISTRY[ENGINES[engine]].environment(threads)
        environment |= REGISTRY[ENGINES["torch"]].environment(threads)  # torch runs in both
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, str(HERE / "torch_module.py"), "--serve", engine, "--threads", str(threads)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("no pipe")
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended during {command['do']!r}: {self.process.args}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(processes: dict[str, Process], problem: Problem, mode: str, seconds: float) -> dict[str, dict[str, Any]]:
    """Figures of each engine; rounds of so many seconds, more of them while fewer than `ROUNDS` were undisturbed."""
    ready = {
        name: process.ask(do="prepare", problem=asdict(problem), mode=mode) for name, process in processes.items()
    }  # fmt: skip
    ours, theirs = (np.array(ready[name]["figures"]) for name in ("scratchrnn", "torch"))
    if not np.allclose(ours, theirs, rtol=AGREE, atol=0):
        raise RuntimeError(f"{problem} {mode}: not timed, the engines disagree: {ours} and {theirs}")
    error = float(np.max(np.abs(ours - theirs) / np.abs(theirs)))
    taken = {name: timing.Rounds([], []) for name in processes}
    for done in range(MOST_ROUNDS):
        if done >= ROUNDS and all(found.undisturbed() >= ROUNDS for found in taken.values()):
            break
        for name, process in processes.items():
            time.sleep(timing.PAUSE)
            answer = process.ask(do="round", calls=max(1, int(seconds / ready[name]["usual"])))
            taken[name].seconds.append(answer["seconds"])
            taken[name].waited.append(answer["waited"])
    return {
        name: found.figures() | {"difference": error, "torch": ready[name]["torch"]} for name, found in taken.items()
    }


def main() -> None:
    """Measure, print, and append rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument(
        "--problem", nargs=5, type=int, metavar=("B", "T", "D", "H", "LAYERS"), help="instead of the three"
    )
    parser.add_argument("--cell", choices=("lstm", "rnn"), default="lstm")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a round (0.3)")
    parser.add_argument("--out", help="append rows to benchmarks/results/OUT.jsonl")
    parser.add_argument("--serve", choices=tuple(ENGINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads[0])
        return
    problems = [Problem(*options.problem)] if options.problem else PROBLEMS
    common = {"kind": "torch_module", "commit": timing.commit(), "machine": timing.machine(), "dtype": "float32"}
    for threads in dict.fromkeys(options.threads or [1, timing.usable_cores()]):
        processes = {name: Process(name, threads) for name in ENGINES}
        try:
            for problem in problems:
                problem = Problem(**asdict(problem) | {"cell": options.cell})
                for mode in options.modes:
                    found = measure(processes, problem, mode, options.seconds)
                    ratio = found["torch"]["p50"] / found["scratchrnn"]["p50"]
                    mark = "*" if any(others.disturbed(f["waited"]) for f in found.values()) else " "
                    times = ", ".join(f"{name} {rows.seconds(f['p50'])}" for name, f in found.items())
                    print(f"{problem!s:<32} {mode}  threads {threads}:  {ratio:5.2f}{mark}  {times}", flush=True)
                    if options.out:
                        new = [
                            {**common, "run": timing.moment(), **asdict(problem), "mode": mode, "threads": threads}
                            | {"engine": name, "ratio": ratio}
                            | figures
                            for name, figures in found.items()
                        ]
                        rows.append(RESULTS / f"{options.out}.jsonl", new)
        finally:
            for process in processes.values():
                process.close()
    print("* other programs took cores that it needed: read nothing into it")


if __name__ == "__main__":
    main()
