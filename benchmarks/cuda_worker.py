"""The process of one shape on the GPU, all engines in it: reads commands as JSON lines, answers each with one.

Before an engine runs, a line {"at": engine} goes out: if the process dies or hangs, its parent knows where.
Standard output belongs to the answers; what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import cuda_clock
import cuda_plan
import cuda_verify
import timing
import verify
from cases import Case, inputs
from cuda_engines import REGISTRY
from verify import WrongResultError

WARM_CALLS = 2
LEAST_ROUNDS = 3  # of calls slower than the budget
MOST_CALLS = 200  # in a round: events are objects


class DeviceLostError(RuntimeError):
    """The device reports an error for everything: no call of this process can succeed any more."""


class Session:
    """What the process knows between commands."""

    def __init__(self, answers: Any, device: str, engines: list[str]) -> None:
        import torch

        self.answers, self.device, self.torch = answers, device, torch
        self.engines = {name: REGISTRY[name] for name in engines}
        self.clock = cuda_clock.Clock(torch, device)
        self.calls: dict[tuple[str, str], Any] = {}  # mode, engine -> call and collect
        self.failed: dict[tuple[str, str], str] = {}
        self.truth: dict[str, Any] = {}

    def _at(self, engine: str) -> None:
        print(json.dumps({"at": engine}), file=self.answers, flush=True)

    def _attempt(self, case: Case, name: str) -> tuple[Any, str | None]:
        """The results of an engine's call, or why there are none."""
        self._at(name)
        try:
            call, collect = self.calls[case.mode, name]
            with self.engines[name].settings():
                results = collect(call())
                self.clock.wait()
        except Exception as error:  # noqa: BLE001 (whatever an engine raises belongs into its row)
            return None, f"{type(error).__name__}: {error}"[:500]
        return results, None

    def _alive(self) -> None:
        try:
            self.clock.wait()
        except Exception as error:
            raise DeviceLostError(str(error)) from error

    def prepare(self, case: dict[str, Any], modes: list[str]) -> dict[str, Any]:
        """Load libraries and make every engine's call once, so that everything is compiled. Nothing is timed."""
        for name, engine in self.engines.items():
            self._at(name)
            engine.device = self.device
            try:
                engine.load(1)
            except Exception as error:  # noqa: BLE001
                for mode in modes:
                    self.failed[mode, name] = f"{type(error).__name__}: {error}"[:500]
        given = inputs(Case(**case))
        for mode in modes:
            wanted = Case(**case | {"mode": mode})
            for name, engine in self.engines.items():
                if (mode, name) in self.failed or engine.why_not(wanted) is not None:
                    continue
                try:
                    self.calls[mode, name] = engine.prepare(wanted, given)
                except Exception as error:  # noqa: BLE001
                    self.failed[mode, name] = f"{type(error).__name__}: {error}"[:500]
                    continue
                _, reason = self._attempt(wanted, name)
                if reason is not None:
                    self.failed[mode, name] = reason
                    self._alive()
        if self.device == "cuda":
            self.torch.cuda.empty_cache()
        plans = cuda_plan.here(case["cell"], case["B"], case["H"]) if self.device == "cuda" else {}
        return {"versions": cuda_plan.versions(self.torch), "plans": plans}

    def time(self, case: dict[str, Any], budget: float) -> dict[str, Any]:
        """Figures of every engine that has this case: verified, then timed in turns; why not, for the others."""
        wanted = Case(**case)
        names = [name for name in self.engines if (wanted.mode, name) in self.calls]
        found: dict[str, dict[str, Any]] = {
            name: {"failed": reason} for (mode, name), reason in self.failed.items() if mode == wanted.mode
        }
        if not self.truth:
            self._at("truth")
            self.truth = verify.true_tensors(wanted, self.device)
        usual: dict[str, float] = {}
        for name in names:
            if name in found:
                continue
            results, reason = self._attempt(wanted, name)
            if reason is not None:
                found[name] = {"failed": reason}
                self._alive()
                continue
            allowed = self.engines[name].tolerance(verify.tolerance(wanted))
            try:
                errors = cuda_verify.check(wanted, results, self.truth, allowed)
            except WrongResultError as wrong:
                found[name] = {"wrong": str(wrong)}
                continue
            del results
            where = max(errors, key=lambda name: errors[name])
            found[name] = {"error": errors[where], "error_in": where, "tolerance": allowed, "errors": errors}
            usual[name] = min(self._seconds(wanted.mode, name, 1)[0][0] for _ in range(WARM_CALLS))
        if usual:
            for name, figures in self._rounds(wanted.mode, usual, budget).items():
                found[name] |= figures
        return {"engines": found, "sm_clock_mhz": sm_clock() if self.device == "cuda" else None}

    def _seconds(self, mode: str, name: str, calls: int) -> tuple[list[float], list[float]]:
        with self.engines[name].settings():
            return self.clock.seconds(self.calls[mode, name][0], calls)

    def _rounds(self, mode: str, usual: dict[str, float], budget: float) -> dict[str, dict[str, Any]]:
        """Rounds in turns, A B A B, each begun by a call that does not count unless calls are slow."""
        rounds, calls = timing.plan(usual, budget)
        seconds: dict[str, list[float]] = {name: [] for name in usual}
        host: dict[str, list[float]] = {name: [] for name in usual}
        ends = time.monotonic() + 3 * budget * len(usual)
        done = 0
        for done in range(1, rounds + 1):
            for name in usual:
                self._at(name)
                warm = usual[name] < budget / rounds
                count = min(calls[name], MOST_CALLS) + warm
                device, issued = self._seconds(mode, name, count)
                seconds[name] += device[warm:]
                host[name] += issued[warm:]
            if done >= LEAST_ROUNDS and time.monotonic() > ends:
                break
        return {
            name: {
                **vars(timing.Quantiles.of(seconds[name])), "calls": len(seconds[name]), "rounds": done,
                "host": statistics.median(host[name]),
            }
            for name in usual
        }  # fmt: skip

    def kernels(self, mode: str, engine: str) -> dict[str, Any]:
        """Names and times of the kernels of one call. Only after everything was timed: the profiler stays attached."""
        self._at(engine)
        with self.engines[engine].settings():
            return {"kernels": cuda_clock.kernels(self.torch, self.calls[mode, engine][0])}


def sm_clock() -> int | None:
    """MHz of the multiprocessors now, of the first device; None where nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return int(done.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def main() -> None:
    """Answer commands until standard input ends, or the device is lost."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session: Session | None = None
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        try:
            if session is None:
                session = Session(answers, sys.argv[1], sys.argv[2].split(","))
            answer = getattr(session, do)(**command)
        except Exception as error:  # noqa: BLE001 (the parent is told, and decides)
            if do == "time" or isinstance(error, DeviceLostError):  # whoever ran last broke it for the others
                print(json.dumps({"lost": f"{type(error).__name__}: {error}"[:500]}), file=answers, flush=True)
                return
            answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps({"answer": answer}), file=answers, flush=True)


if __name__ == "__main__":
    main()
