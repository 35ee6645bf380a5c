"""How a call is cut up: samples or hidden units over threads, time into chunks that stay in a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from . import threads
from .barrier import NOBODY, Meeting
from .gemm import ROWS
from .jit import Call, do

CHUNK_BYTES = 512 * 1024  # of pre-activations: half of a usual second cache
MANY_ROWS = 80 * ROWS  # that share one reading of a big W_ih
LEAST_WORK = 3_000_000  # multiply-adds for which handing a part to a thread pays
LEAST_STEP = 16_384  # multiply-adds of one step and thread that outweigh a meeting of the threads
FEW_SAMPLES = 2  # for each thread: fewer, and threads share hidden units instead
FAR_BYTES = 5 * 1024 * 1024  # of W_hh: forward, threads then share units, so that each reads its own part only


class Part(NamedTuple):
    """What one thread does: these samples, these hidden units."""

    first: int
    last: int
    unit: int
    units: int


def steps_per_chunk(steps: int, samples: int, row_bytes: int, weight_bytes: int) -> int:
    """Time steps whose input part is computed ahead of the recurrence.

    They stay in a cache, but a W_ih that does not is read for many rows at a time, and samples that are few are taken
    in whole tiles of steps.
    """
    fit = CHUNK_BYTES // max(1, samples * row_bytes)
    if samples < 2 * ROWS:
        fit = max(2 * ROWS, fit // ROWS * ROWS)
    elif weight_bytes > CHUNK_BYTES:
        fit = max(fit, -(-MANY_ROWS // samples))
    return max(1, min(steps, fit))


def workers(multiply_adds: int) -> int:
    """Threads that this much work keeps busy."""
    return max(1, min(threads.get_num_threads(), multiply_adds // LEAST_WORK))


def ranges_of_units(batch: int, hidden: int, busy: int, step_work: int, lanes: int, read_bytes: int = 0) -> list[Part]:
    """Hidden units over threads, if samples are few or the weights read at each step big; else none.

    And only where a step is long enough to meet after it.
    """
    few = batch < FEW_SAMPLES * busy or read_bytes > FAR_BYTES
    if busy == 1 or not few or step_work < LEAST_STEP * busy:
        return []
    parts = [Part(0, batch, first, last - first) for first, last in threads.split(hidden, busy, lanes)]
    return parts if len(parts) > 1 else []


def run(
    by_units: Sequence[Part], batch: int, hidden: int, busy: int, calls: Callable[[Part, Meeting], tuple[Call, ...]]
) -> None:
    """Have threads make the calls of their parts: by units, if so planned and threads are free, else by samples."""
    if busy == 1:
        do(*calls(Part(0, batch, 0, hidden), NOBODY))
        return
    if by_units:
        meeting = Meeting(len(by_units))
        if threads.run_together(do, [calls(part, meeting) for part in by_units], meeting.call_off):
            return
    spans = threads.split(batch, busy)  # nobody waits for anybody
    threads.run(do, [calls(Part(first, last, 0, hidden), NOBODY) for first, last in spans])
