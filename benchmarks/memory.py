"""Peak memory of one call: what the operating system saw, whoever allocated it.

A process that has loaded an engine but never run it forks. The child draws the inputs, makes one tiny call (so that
code compiled or loaded on first use is not counted), hands its free heap back, resets the kernel's high-water mark, and
makes the one call. The mark (VmHWM of /proc/self/status) less the resident memory before, less the bytes of the
gradients that every engine must hand out, is the peak. Its resolution is some hundred kilobytes: page tables, thread
stacks and the kernel's own batching of counters. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, inputs
from engines import Engine

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def why_unavailable() -> str | None:
    """Say what is missing here, or None."""
    if not (STATUS.exists() and RESET.exists() and hasattr(os, "fork")):
        return "needs Linux's /proc/self/clear_refs"
    return None


def gradient_bytes(case: Case) -> int:
    """Bytes of the gradients of x, the initial state and the weights; none in inference."""
    if case.mode == "infer":
        return 0
    states = 2 if case.cell == "lstm" else 1
    numbers = case.T * case.B * case.D + case.rows * (case.D + case.H + 2) + states * case.B * case.H
    return numbers * np.dtype(case.dtype).itemsize


def _status(name: str) -> int:
    """A field of /proc/self/status in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes by which resident memory rises above its present level while `call` runs, its result still held."""
    ctypes.CDLL(None).malloc_trim(0)
    RESET.write_text("5")
    before = _status("VmRSS")
    held = call()
    peak = _status("VmHWM") - before
    del held
    return peak


def in_child(what: str, measure: Callable[[], int]) -> int:
    """Return what `measure` returns in a child of this process; `what` names it if the child dies."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, json.dumps(measure()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError(f"{what}: the child that measures memory died")
    return int(json.loads(text))


def peak(engine: Engine, case: Case, threads: int) -> int:
    """Peak bytes of one call of a case, in a child of this process, beyond inputs, weights and gradients."""

    def measure() -> int:
        engine.load(threads)
        tiny = replace(case, B=1, T=2, D=3, H=4)
        engine.prepare(tiny, inputs(tiny))[0]()
        call, _ = engine.prepare(case, inputs(case))
        return max(0, peak_of(call) - gradient_bytes(case))

    return in_child(f"{engine.name}: {case}", measure)
