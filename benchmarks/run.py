"""Verify, then time every engine over the grid; append rows to results/NAME.jsonl; print ratios and geometric means.

python benchmarks/run.py --quick                       under two minutes on two cores
python benchmarks/run.py --threads 1 all --out NAME    the whole grid
python benchmarks/run.py --device cuda                 on a GPU, with options of its own (--device cuda --help)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import groupby
from pathlib import Path
from typing import Any

import cuda_run
import memory
import rows as row_file
from cases import CELLS, GRID, MODES, QUICK, Case, Shape, cases, flops, least_bytes
from engines import REGISTRY
from others import wait_until_free
from timing import Worker, WorkerError, commit, machine, moment, sgemm_ceiling, time_case, usable_cores
from verify import Truths

DEFAULT_ENGINES = ("scratchrnn-numba", "torch", "torch-loop")
PATIENCE = 3.0  # seconds, before one case
RESULTS = Path(__file__).resolve().parent / "results"
CEILING_BY = ("scratchrnn-numpy", "torch")  # whose library multiplies matrices: NumPy's, torch's


def parse_shape(text: str) -> Shape:
    """B,T,D,H as four positive integers."""
    parts = text.strip("()").split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected B,T,D,H as in 32,100,128,128; got {text!r}")
    B, T, D, H = map(int, parts)
    return B, T, D, H


def parse_threads(text: str) -> int:
    """A positive number, or `all`."""
    if text == "all":
        return usable_cores()
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number or 'all'; got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--quick", action="store_true", help="five shapes, float32, infer and train, 0.15 s a cell")
    p.add_argument("--engines", nargs="+", choices=[*REGISTRY, "all"], default=list(DEFAULT_ENGINES))
    p.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    p.add_argument("--modes", nargs="+", choices=MODES, help="default: all; with --quick infer and train")
    p.add_argument("--threads", nargs="+", type=parse_threads, metavar="N|all", help="default: 1 all")
    p.add_argument("--shapes", nargs="+", type=parse_shape, metavar="B,T,D,H", help="default: the grid")
    p.add_argument("--budget", type=float, help="seconds for each engine and cell beyond 5 rounds (default 0.5)")
    p.add_argument("--patience", type=float, default=60.0, help="seconds in all to wait for others to pause (60)")
    p.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    p.add_argument("--out", default=None, metavar="NAME", help="file results/NAME.jsonl, or a path; default: local")
    return p


def selected(options: argparse.Namespace) -> list[Case]:
    """The cases that the options ask for."""
    modes = options.modes or (["infer", "train"] if options.quick else list(MODES))
    shapes = options.shapes or (list(QUICK) if options.quick else list(GRID))
    extra = {"float64": ()} if options.quick else {}
    return cases(shapes, options.cells, modes, overhead=options.shapes is None, **extra)


def usable_engines(names: Sequence[str]) -> list[str]:
    """The engines that can run here; why the others cannot is printed."""
    usable = []
    for name in REGISTRY if "all" in names else dict.fromkeys(names):
        reason = REGISTRY[name].why_unavailable()
        if reason is None:
            usable.append(name)
        else:
            print(f"{name}: skipped: {reason}")
    return usable


class Run:
    """One run: its processes, its truths, its rows."""

    def __init__(self, engines: Sequence[str], threads: Sequence[int], out: Path, budget: float, memory: bool) -> None:
        self.engines, self.threads, self.out, self.budget, self.memory = engines, threads, out, budget, memory
        self.patience = 0.0  # seconds left to wait for other programs
        self.rows: list[row_file.Row] = []
        self.wrong: list[str] = []
        self.common = {"run": uuid.uuid4().hex[:12], "commit": commit(), "machine": machine()}

    def add(self, **fields: Any) -> None:
        """Append a row to the file and keep it."""
        row = {**self.common, **moment(), **fields}
        self.rows.append(row)
        row_file.append(self.out, [row])

    def start(self, stack: ExitStack, engine: str, threads: int) -> Worker:
        """Start a process that ends with the run."""
        return stack.enter_context(closing(Worker(engine, threads)))

    def ceilings(self, size: int, seconds: float) -> None:
        """Measure the machine's float32 product, per number of threads."""
        for threads in self.threads:
            with ExitStack() as stack:
                names = [name for name in CEILING_BY if REGISTRY[name].why_unavailable() is None]
                best = sgemm_ceiling({name: self.start(stack, name, threads) for name in names}, size, seconds)
            self.add(kind="sgemm", threads=threads, size=size, flops_per_second=best)
            text = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in best.items())
            print(f"SGEMM {size}³, threads {threads}: {text} GFLOP/s", flush=True)

    def go(self, wanted: Sequence[Case]) -> None:
        """Time all cases; those that share a truth share its computation."""
        with tempfile.TemporaryDirectory(prefix="scratchrnn-benchmark-") as folder, ExitStack() as stack:
            oracle = self.start(stack, "torch", 1)
            workers = {n: {name: self.start(stack, name, n) for name in self.engines} for n in self.threads}
            fresh = {name: self.start(stack, name, max(self.threads)) for name in self.engines} if self.memory else {}
            done = 0
            for _, group in groupby(wanted, key=lambda case: case.truth_key):
                same = list(group)
                truth = Path(oracle.ask("truth", case=same[0].record(), folder=folder)["folder"])
                for case in same:
                    for n in self.threads:
                        self.time(case, n, workers[n], truth, fresh if n == max(self.threads) else {})
                    done += 1
                    print(f"[{done}/{len(wanted)}] {self._line(case)}", flush=True)
                Truths(Path(folder)).drop()

    def time(self, case: Case, threads: int, workers: dict[str, Worker], truth: Path, fresh: dict[str, Worker]) -> None:
        """Rows of one case at one number of threads; an engine that is wrong gets none."""
        self.patience -= wait_until_free(threads, usable_cores(), min(PATIENCE, self.patience))
        for name, figures in time_case(case, workers, truth, self.budget).items():
            if "wrong" in figures:
                self.wrong.append(f"{name}, threads {threads}: {figures['wrong']}")
                print(f"NOT TIMED: {self.wrong[-1]}", flush=True)
            if "p50" not in figures:
                continue
            peak = fresh[name].ask("memory", case=case.record())["peak_bytes"] if name in fresh else None
            self.add(
                kind="time", engine=name, **case.record(), threads=threads, **figures, peak_bytes=peak,
                flops=flops(case), least_bytes=least_bytes(case), versions=workers[name].versions,
            )  # fmt: skip

    def _line(self, case: Case) -> str:
        parts = [
            f"{row['engine'].removeprefix('scratchrnn-')} {row_file.seconds(row['p50'])}({row['threads']})"
            for row in row_file.timings(self.rows)
            if row_file.case_of(row) == case
        ]
        return f"{case}: " + "  ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 if every engine's results were right."""
    by_device = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    by_device.add_argument("--device")
    device, rest = by_device.parse_known_args(arguments)
    if device.device == "cuda":
        return cuda_run.main(rest, parse_shape)
    options = parser().parse_args(arguments)
    began = time.perf_counter()
    if REGISTRY["torch"].why_unavailable():
        print("the truth is computed with torch in float64: pip install torch", file=sys.stderr)
        return 2
    name = options.out or "local"
    out = Path(name) if name.endswith(".jsonl") or os.sep in name else RESULTS / f"{name}.jsonl"
    with_memory = not options.no_memory and memory.why_unavailable() is None
    threads = list(dict.fromkeys(options.threads or [1, usable_cores()]))
    budget = options.budget or (0.15 if options.quick else 0.5)
    run = Run(usable_engines(options.engines), threads, out, budget, with_memory and not options.quick)
    run.patience = options.patience
    wanted = selected(options)
    try:
        run.ceilings(1024 if options.quick or options.shapes else 2048, 1.0 if options.quick else 3.0)
        run.go(wanted)
    except WorkerError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    for ours in run.engines:
        if REGISTRY[ours].baseline:
            print("\n" + row_file.summary(run.rows, ours))
    print(f"\n{len(run.rows)} rows to {out} in {time.perf_counter() - began:.0f} s")
    if run.wrong:
        print("wrong results, not timed:\n  " + "\n  ".join(run.wrong))
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
