"""The process of one engine at one number of threads: reads commands as JSON lines, answers each with one.

Started by `timing.Worker`. Standard output belongs to the answers; what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import memory
import others
from cases import Case, inputs
from engines import REGISTRY, Call
from verify import Truths, WrongResultError, check, expected, tolerance

WARM_UP_BELOW = 0.05  # seconds; a longer call does not notice that its round has just begun
PILOT = 0.02  # seconds of calls from which a round's number of calls is planned,
PILOT_CALLS = 3  # at least so many of them,
PILOT_MOST = 0.5  # unless they take longer


def clocked(call: Call) -> float:
    """Seconds that a call takes, its result dropped: freeing belongs to what a loop of such calls pays."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Session:
    """What the process knows between commands."""

    def __init__(self, engine: str, threads: int) -> None:
        self.engine = REGISTRY[engine]
        self.threads = threads
        self.call: Call | None = None
        self.usual = 0.0  # seconds of a call

    def load(self) -> dict[str, Any]:
        """Import the engine's libraries."""
        self.engine.load(self.threads)
        return {"versions": self.engine.versions()}

    def truth(self, case: dict[str, Any], folder: str) -> dict[str, Any]:
        """Write the case's truth to disk."""
        return {"folder": str(Truths(Path(folder)).write(Case(**case)))}

    def prepare(self, case: dict[str, Any], truth: str) -> dict[str, Any]:
        """Make the call, verify its results, and see how long it takes once everything is warm."""
        self.call = None
        wanted = Case(**case)
        call, collect = self.engine.prepare(wanted, inputs(wanted))
        results = collect(call())
        extra = {name for name in results if name not in expected(wanted)}
        try:
            error, where = check(wanted, results, Truths.read(Path(truth), expected(wanted) | extra))
        except WrongResultError as wrong:
            return {"wrong": str(wrong)}
        del results
        seconds = [clocked(call)]
        while sum(seconds) < PILOT or (len(seconds) < PILOT_CALLS and sum(seconds) < PILOT_MOST):
            seconds.append(clocked(call))
        self.call, self.usual = call, min(seconds)  # the median may be of calls that another program stopped
        return {"error": error, "error_in": where, "tolerance": tolerance(wanted), "usual": self.usual}

    def round(self, calls: int, limit: float) -> dict[str, Any]:
        """Seconds of each of some calls in a row, at least one; no new one begins after `limit` seconds.

        `waited`: the share of the time for which a thread of ours had no core.
        """
        if self.call is None:
            raise RuntimeError("no verified call to time")
        if self.usual < WARM_UP_BELOW:
            self.call()
        waited, began = others.waited(), time.perf_counter()
        seconds = [clocked(self.call)]
        while len(seconds) < calls and time.perf_counter() < began + limit:
            seconds.append(clocked(self.call))
        share = None if waited is None else ((others.waited() or 0.0) - waited) / (time.perf_counter() - began)
        return {"seconds": seconds, "waited": share}

    def memory(self, case: dict[str, Any]) -> dict[str, Any]:
        """Peak memory of one call; only in a process that has run nothing yet."""
        return {"peak_bytes": memory.peak(self.engine, Case(**case), self.threads)}

    def sgemm(self, size: int, seconds: float) -> dict[str, Any]:
        """FLOP/s of the best product of two square float32 matrices, by this engine's library."""
        import numpy as np

        a, b = (np.random.default_rng(n).standard_normal((size, size), np.float32) for n in (1, 2))
        product, arrays = np.matmul, (a, b)
        if self.engine.name == "torch":
            import torch

            product, arrays = torch.matmul, (torch.from_numpy(a), torch.from_numpy(b))
        out = product(*arrays)
        best, ends = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < ends:
            best = min(best, clocked(lambda: product(*arrays, out=out)))
        return {"flops_per_second": 2 * size**3 / best}


def main() -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(session, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 (the parent is told, and decides)
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
