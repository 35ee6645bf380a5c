"""How a call is cut up: samples over threads, time into chunks that stay in a cache."""

from __future__ import annotations

from . import threads
from .gemm import ROWS

CHUNK_BYTES = 512 * 1024  # of pre-activations: half of a usual second cache
LEAST_WORK = 1_500_000  # multiply-adds for which handing a part to a thread pays


def steps_per_chunk(steps: int, samples: int, row_bytes: int) -> int:
    """Time steps whose input part is computed ahead of the recurrence; whole tiles of rows."""
    fit = CHUNK_BYTES // max(1, samples * row_bytes)
    return max(1, min(steps, max(2 * ROWS, fit // ROWS * ROWS)))


def workers(multiply_adds: int) -> int:
    """Threads that this much work keeps busy."""
    return max(1, min(threads.get_num_threads(), multiply_adds // LEAST_WORK))
