"""One process per engine and number of threads, rounds interleaved A B A B: two libraries in one process overrule each
other's thread limits, and a machine that slows down for a second must not slow only one of them.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import others
from cases import Case
from engines import REGISTRY

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LEAST_ROUNDS = 5
LEAST_KEPT = 3  # undisturbed rounds without which all are kept, and the row is marked
MOST_ROUNDS = 12
MOST_CALLS = 2000  # in a round
OVERRUN = 2.0  # times its share of the budget after which a round ends early
PAUSE = 0.002  # seconds between rounds: idle threads of the last engine stop spinning


class WorkerError(RuntimeError):
    """An engine's process could not do what it was told."""


class Worker:
    """The parent's end of an engine's process."""

    def __init__(self, engine: str, threads: int) -> None:
        self.engine, self.threads = engine, threads
        paths = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | REGISTRY[engine].environment(threads) | {"PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), engine, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.pid = self._process.pid
        self.versions: dict[str, str] = self.ask("load")["versions"]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError(f"{self.engine}: no pipe")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.engine}, {self.threads} threads: its process ended during {do!r}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise WorkerError(f"{self.engine}, {self.threads} threads: {do}: {answer['failed']}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@dataclass(frozen=True)
class Quantiles:
    """Of the seconds that single calls took, over all rounds."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Quantiles:
        """Quantiles of a sample, interpolated between neighbours."""
        if not seconds:
            raise ValueError("seconds: expected at least one")
        return cls(*(float(q) for q in np.quantile(seconds, [0.2, 0.5, 0.8])))


def plan(usual: Mapping[str, float], budget: float) -> tuple[int, dict[str, int]]:
    """Rounds, and each engine's calls in a round, so that no engine takes much more than `budget` seconds.

    Slow calls: one in each of `LEAST_ROUNDS` rounds, whatever the budget.
    """
    calls = {name: max(1, min(MOST_CALLS, int(budget / MOST_ROUNDS / seconds))) for name, seconds in usual.items()}
    rounds = max(budget / (calls[name] * seconds) for name, seconds in usual.items())
    return int(min(MOST_ROUNDS, max(LEAST_ROUNDS, rounds))), calls


@dataclass
class Rounds:
    """One engine's rounds of a case."""

    seconds: list[list[float]]  # of each call, per round
    waited: list[float | None]  # share of each round for which a thread had no core

    def undisturbed(self) -> int:
        """How many rounds no other program spoiled."""
        return sum(not others.disturbed(share) for share in self.waited)

    def kept(self) -> list[int]:
        """Which rounds count: the undisturbed ones, or all if those are fewer than `LEAST_KEPT`."""
        enough = self.undisturbed() >= LEAST_KEPT
        return [n for n, share in enumerate(self.waited) if not (enough and others.disturbed(share))]

    def figures(self) -> dict[str, Any]:
        """What a row says of them."""
        kept = self.kept()
        calls = [s for n in kept for s in self.seconds[n]]
        shares = [share for n in kept if (share := self.waited[n]) is not None]
        q = Quantiles.of(calls)
        return {
            "p20": q.p20, "p50": q.p50, "p80": q.p80, "calls": len(calls), "rounds": len(kept),
            "dropped": len(self.waited) - len(kept), "waited": round(float(np.median(shares)), 4) if shares else None,
        }  # fmt: skip


def interleaved(workers: Mapping[str, Worker], usual: Mapping[str, float], budget: float) -> dict[str, Rounds]:
    """Time each engine whose call is prepared, in turns.

    While fewer than `LEAST_ROUNDS` rounds of an engine are undisturbed, more are made, up to twice the plan.
    """
    rounds, calls = plan(usual, budget)
    limit = OVERRUN * budget / rounds
    found = {name: Rounds([], []) for name in usual}
    ends = time.monotonic() + OVERRUN * rounds * sum(max(budget / rounds, usual[name]) for name in usual)
    for done in range(2 * rounds):
        if done >= LEAST_KEPT and time.monotonic() > ends:  # somebody else has the machine
            break
        if done >= rounds and all(
            sum(not others.disturbed(w) for w in r.waited) >= LEAST_ROUNDS for r in found.values()
        ):
            break
        for name in usual:
            time.sleep(PAUSE)
            answer = workers[name].ask("round", calls=calls[name], limit=limit)
            found[name].seconds.append(answer["seconds"])
            found[name].waited.append(answer["waited"])
    return found


def time_case(case: Case, workers: Mapping[str, Worker], truth: Path, budget: float) -> dict[str, dict[str, Any]]:
    """Verify every engine that has this case, then time those that passed.

    Returns
    -------
    dict
        Per engine its figures, or {"skipped": reason}, or {"wrong": message}.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, worker in workers.items():
        reason = REGISTRY[name].why_not(case)
        if reason is not None:
            found[name] = {"skipped": reason}
            continue
        try:
            found[name] = worker.ask("prepare", case=case.record(), truth=str(truth))
        except WorkerError as error:
            found[name] = {"wrong": str(error)}
    usual = {name: figures["usual"] for name, figures in found.items() if "usual" in figures}
    if not usual:
        return found
    for name, rounds in interleaved(workers, usual, budget).items():
        verdict = {key: found[name][key] for key in ("error", "error_in", "tolerance")}
        found[name] = verdict | rounds.figures()
    return found


def sgemm_ceiling(workers: Mapping[str, Worker], size: int, seconds: float) -> dict[str, float]:
    """FLOP/s of the best float32 product on this machine now, by library, in alternation."""
    best: dict[str, float] = {}
    for _ in range(3):
        for name, worker in workers.items():
            rate = worker.ask("sgemm", size=size, seconds=seconds / 3)["flops_per_second"]
            best[name] = max(best.get(name, 0.0), rate)
    return best


def start_anew(threads: int) -> None:
    """Run this program again with all of NumPy's and scratchrnn's threads limited, unless they are already.

    The limits are read when the libraries are loaded, which may have happened.
    """
    wanted = REGISTRY["scratchrnn-numba"].environment(threads)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str | None:
    """The commit of this checkout, with a plus sign if the code that is timed differs from it; None outside git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = head and _git("status", "--porcelain", "--", "scratchrnn", "kernels")
    return f"{head}+" if changed else head


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What ran this: enough to tell two machines apart."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def moment() -> dict[str, Any]:
    """When, and how busy the machine was with other work: the load average of the last minute."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"when": now, "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None}
