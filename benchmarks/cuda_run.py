"""`run.py --device cuda`: every engine over the grid on one GPU, verified, then timed; a row for each, failed or not.

python benchmarks/run.py --device cuda                         the whole grid, rows to benchmarks/results/gpu.jsonl
python benchmarks/run.py --device cuda --dry-run               what would run, and the plans expected of an H100
python benchmarks/run.py --device cuda --rehearse --shapes 2,5,3,4    the same programs on the CPU; times mean nothing
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cuda_cases
import cuda_plan
import rows as row_file
from cases import CELLS, MODES, Case, Shape
from cuda_engines import REGISTRY
from cuda_process import Process, ProcessLostError
from rows import Row
from timing import commit, machine, moment

RESULTS = Path(__file__).resolve().parent / "results"
PREPARING = 150.0  # seconds that importing and compiling may take; all shapes do it at once
CELL = 45.0  # seconds that a shape and mode may take beyond its budget, the truth included
PROFILE = 20.0  # for one call's kernels
NAMING = 5.0  # for all of a shape: no new one begins later
NO_TIME = "not timed: the time for the whole run was over"


def why_unavailable() -> str | None:
    """Say what is missing for timing anything on a GPU here, or None."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "torch is not installed: truth and rivals are torch's; pip install torch, built for CUDA"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a build for CUDA, and a driver"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device: no NVIDIA GPU, or no driver (nvidia-smi says which)"
    return None


def parser(parse_shape: Callable[[str], Shape]) -> argparse.ArgumentParser:
    """Options of this program."""
    p = argparse.ArgumentParser(
        prog="run.py --device cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--engines", nargs="+", choices=list(REGISTRY), default=list(REGISTRY))
    p.add_argument("--cells", nargs="+", choices=CELLS, default=["lstm"])
    p.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    p.add_argument("--shapes", nargs="+", type=parse_shape, metavar="B,T,D,H", default=list(cuda_cases.GRID))
    p.add_argument("--trace-steps", type=int, metavar="T", help="full trace on at most T steps; rows say so")
    p.add_argument("--budget", type=float, default=0.25, help="seconds for each engine and case (0.25)")
    p.add_argument("--seconds", type=float, default=float("inf"), help="for everything; what is left out has a row")
    p.add_argument("--out", default="gpu", metavar="NAME", help="file results/NAME.jsonl, or a path; default: gpu")
    p.add_argument("--no-kernels", action="store_true", help="do not ask the profiler for the kernels' names")
    p.add_argument(
        "--dry-run", action="store_true", help="print the cases and the plans expected of an H100; run nothing"
    )
    p.add_argument(
        "--rehearse", action="store_true", help="on the CPU, to see that it runs; rows are of kind 'rehearsal'"
    )
    return p


def jobs(options: argparse.Namespace) -> list[list[Case]]:
    """The cases, by process: one shape and cell each, all modes; a cut trace has a process of its own."""
    found = []
    for cell in options.cells:
        for shape in options.shapes:
            B, T, D, H = shape
            cut = options.trace_steps is not None and "trace" in options.modes and options.trace_steps < T
            modes = [mode for mode in options.modes if not (cut and mode == "trace")]
            if modes:
                found.append([Case(*shape, cell, mode, "float32") for mode in modes])
            if cut:
                found.append([Case(B, options.trace_steps, D, H, cell, "trace", "float32")])
    return found


def describe(wanted: Sequence[Sequence[Case]], engines: Sequence[str]) -> str:
    """The cases, and the plans expected of an H100, as text."""
    device, lines = cuda_plan.h100(), ["Nothing was run. PREDICTED for an H100, not measured:"]
    for group in wanted:
        first = group[0]
        for direction, plan in cuda_plan.decision(first.cell, first.B, first.H, device).items():
            lines.append(f"{first.cell} {row_file.describe_shape(first.shape)} {direction}: {plan}")
        for case in group:
            able = [name for name in engines if REGISTRY[name].why_not(case) is None]
            lines.append(f"  {cuda_cases.MODE[case.mode]}: {', '.join(able)}")
    return "\n".join(lines)


def meeting_cost(rows: Sequence[Row], blocks: int) -> dict[str, Any] | None:
    """The measured cost of a meeting of so many blocks, or of the nearest number that was measured."""
    measured = [
        row for row in rows if row["kind"] == "cuda-barrier" and row["how"] == "counter" and "microseconds" in row
    ]
    if blocks < 2 or not measured:
        return None
    row = min(measured, key=lambda row: abs(row["blocks"] - blocks))
    return {name: row[name] for name in ("how", "blocks", "microseconds")}


class Run:
    """One run: its processes, one at a time on the device, and its rows."""

    def __init__(self, options: argparse.Namespace, out: Path) -> None:
        self.options, self.out = options, out
        self.device = "cpu" if options.rehearse else "cuda"
        self.kind = "rehearsal" if options.rehearse else "cuda-time"
        self.ends = time.monotonic() + options.seconds
        self.old = row_file.read(out) if out.exists() else []
        self.rows: list[Row] = []
        self.common = {
            "run": uuid.uuid4().hex[:12],
            "commit": commit(),
            "machine": machine() | {"gpu": cuda_plan.device()},
        }

    def left(self) -> float:
        """Seconds until the run must end."""
        return self.ends - time.monotonic()

    def start(self, group: Sequence[Case], engines: Sequence[str]) -> Process:
        """A process for a shape, told to prepare."""
        process = Process(self.device, engines)
        process.send("prepare", case=group[0].record(), modes=[case.mode for case in group])
        return process

    def go(self, wanted: Sequence[Sequence[Case]]) -> None:
        """All shapes. All processes compile at once, and none times anything before all are ready.

        Where the device takes one process at a time, each starts when the one before it has ended.
        """
        alone = self.common["machine"]["gpu"].get("compute_mode") == "Exclusive_Process"
        for groups in [[group] for group in wanted] if alone else [wanted]:
            processes = [self.start(group, self.options.engines) for group in groups]
            try:
                ready = [self.prepared(group, process) for group, process in zip(groups, processes, strict=True)]
                for group, (process, answer, failed) in zip(groups, ready, strict=True):
                    self.shape(group, process, answer, failed)
            finally:
                for process in processes:
                    process.close()

    def prepared(self, group: Sequence[Case], process: Process | None) -> tuple[Process | None, Row, dict[str, str]]:
        """A process that is ready, what it said, and the engines that had to be left out, with the reason."""
        failed: dict[str, str] = {}
        while process is not None:
            try:
                return process, process.receive(max(5.0, min(PREPARING, self.left()))), failed
            except (ProcessLostError, RuntimeError) as error:
                process.kill()
                process = self.without(group, process, error, failed)
        return None, {}, failed

    def without(
        self, group: Sequence[Case], process: Process, error: Exception, failed: dict[str, str]
    ) -> Process | None:
        """A new process without the engine that broke the old one; None where there is nobody to leave out."""
        engine = error.engine if isinstance(error, ProcessLostError) else None
        if engine not in process.engines:
            failed |= dict.fromkeys(process.engines, str(error))
            return None
        failed[engine] = str(error)
        rest = [name for name in process.engines if name != engine]
        return self.start(group, rest) if rest and self.left() > 0 else None

    def shape(self, group: Sequence[Case], process: Process | None, answer: Row, failed: dict[str, str]) -> None:
        """Rows of a shape, written at its end, or as far as it came."""
        rows: list[Row] = []
        try:
            for case in group:
                found: dict[str, Row] = {}
                while process is not None and self.left() > 0:
                    try:
                        patience = CELL + 6 * self.options.budget * len(process.engines)
                        told = process.ask(
                            "time", min(patience, self.left() + 5), case=case.record(), budget=self.options.budget
                        )
                    except RuntimeError as error:  # ProcessLostError among them
                        process.kill()
                        process, answer, more = self.prepared_anew(group, process, error, failed)
                        failed = failed | more
                        continue
                    found = {
                        name: figures | {"sm_clock_mhz": told["sm_clock_mhz"]}
                        for name, figures in told["engines"].items()
                    }
                    break
                rows += self.rows_of(case, found, failed, answer, over=self.left() <= 0)
            if process is not None and not self.options.no_kernels and self.device == "cuda":
                self.name_kernels(process, rows)
        finally:
            self.add(rows)
            if process is not None:
                process.close()

    def prepared_anew(
        self, group: Sequence[Case], process: Process, error: Exception, failed: dict[str, str]
    ) -> tuple[Process | None, Row, dict[str, str]]:
        """Go on without the engine that broke the process."""
        more = dict(failed)
        new = self.without(group, process, error, more)
        ready, answer, later = self.prepared(group, new)
        return ready, answer, more | later

    def rows_of(self, case: Case, found: dict[str, Row], failed: dict[str, str], answer: Row, over: bool) -> list[Row]:
        """One row for each engine that has this case."""
        rows = []
        for name in self.options.engines:
            if REGISTRY[name].why_not(case) is not None:
                continue
            figures = found.get(name) or {"failed": failed.get(name) or (NO_TIME if over else "no answer")}
            row = {
                "kind": self.kind,
                "engine": name,
                **case.record(),
                **figures,
                **{k: answer.get(k) for k in ("versions", "plans")},
            }
            whole = [T for B, T, D, H in self.options.shapes if (B, D, H) == (case.B, case.D, case.H) and T > case.T]
            if whole:
                row["cut_from_steps"] = max(whole)
            blocks = ((row["plans"] or {}).get("forward") or {}).get("blocks")
            if blocks is not None:
                row["meeting"] = meeting_cost(self.old, blocks)
            rows.append(row)
        took = [f"{row['engine']} {row_file.seconds(row['p50']) if 'p50' in row else 'failed'}" for row in rows]
        print(f"{case}: " + "  ".join(took), flush=True)
        for row in rows:
            for what in ("wrong", "failed"):
                if what in row:
                    print(f"  {what.upper()}: {row['engine']}: {row[what]}", flush=True)
        return rows

    def name_kernels(self, process: Process, rows: Sequence[Row]) -> None:
        """Put names into the rows of cuDNN and the persistent kernels, as long as the time for it lasts."""
        ends = time.monotonic() + NAMING
        for row in rows:
            if "p50" not in row or row["mode"] == "trace" or row["engine"] not in cuda_cases.NAMED:
                continue
            if time.monotonic() > ends or self.left() <= 0:
                return
            try:
                row |= process.ask("kernels", PROFILE, mode=row["mode"], engine=row["engine"])
            except RuntimeError as error:
                row["kernels_failed"] = str(error)
                if isinstance(error, ProcessLostError):
                    return

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows to the file and keep them."""
        stamped = [{**self.common, **moment(), **row} for row in rows]
        self.rows += stamped
        row_file.append(self.out, stamped)


def path_of(name: str) -> Path:
    """results/NAME.jsonl, or a path."""
    return Path(name) if name.endswith(".jsonl") or os.sep in name else RESULTS / f"{name}.jsonl"


def main(arguments: Sequence[str], parse_shape: Callable[[str], Shape]) -> int:
    """Run; 0 if every row was timed, 1 if some was not, 2 if nothing can run here."""
    p = parser(parse_shape)
    options = p.parse_args(arguments)
    if options.trace_steps is not None and options.trace_steps < 1:
        p.error(f"--trace-steps: expected at least 1; got {options.trace_steps}")
    if not options.budget > 0:
        p.error(f"--budget: expected seconds above 0; got {options.budget}")
    wanted = jobs(options)
    if options.dry_run:
        print(describe(wanted, options.engines))
        return 0
    reason = None if options.rehearse else why_unavailable()
    if reason is not None:
        print(f"--device cuda: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that rows are written
    began, out = time.perf_counter(), path_of(options.out)
    run = Run(options, out)
    run.go(wanted)
    untimed = sum("p50" not in row for row in run.rows)
    print(f"{len(run.rows)} rows, {untimed} of them not timed, to {out} in {time.perf_counter() - began:.0f} s")
    if options.rehearse:
        print("A rehearsal on the CPU: its times mean nothing.")
    return 1 if untimed else 0
