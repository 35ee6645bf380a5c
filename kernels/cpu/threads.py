"""Threads of our own: plain Python threads around kernels that release the lock.

Numba's layers abort on concurrent calls (workqueue), after a fork (GNU OpenMP), or share their limit with torch. A pool
of Python threads does neither: it is made anew in a forked child, serves several callers at once, and nobody else
knows of it. Work is split so that no thread waits for another within a call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

VARIABLE = "SCRATCHRNN_NUM_THREADS"


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _initial() -> int:
    text = os.environ.get(VARIABLE)
    if text is None:
        return usable_cores()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE}: expected an integer of at least 1; got {text!r}")
    return int(text)


_lock = threading.Lock()
_threads: int | None = None
_pool: ThreadPoolExecutor | None = None


def get_num_threads() -> int:
    """Threads that a kernel may use: what was set, else `SCRATCHRNN_NUM_THREADS`, else the usable cores."""
    global _threads
    if _threads is None:
        _threads = _initial()
    return _threads


def set_num_threads(n: int) -> None:
    """Let kernels use up to n threads, the caller's among them."""
    global _threads, _pool
    with _lock:
        if n != _threads and _pool is not None:
            _pool.shutdown(wait=False)  # running calls keep it until they are done
            _pool = None
        _threads = n


def _after_fork() -> None:
    global _lock, _pool
    _lock = threading.Lock()
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def split(count: int, parts: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Cut 0..count into at most `parts` neighbouring ranges of nearly equal size, whole multiples but the last."""
    units = -(-count // multiple)
    parts = max(1, min(parts, units))
    cuts = [min(count, multiple * (units * p // parts)) for p in range(parts + 1)]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def run(task: Callable[..., Any], ranges: Sequence[tuple[int, int]]) -> None:
    """Call task(part, first, last) for every range, side by side, the last one in the caller's thread."""
    global _pool
    if len(ranges) <= 1:
        for part, (first, last) in enumerate(ranges):
            task(part, first, last)
        return
    others: list[Future[Any]] = []
    own = list(enumerate(ranges))
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, get_num_threads() - 1), thread_name_prefix="scratchrnn")
        try:
            while len(own) > 1:
                part, span = own[0]
                others.append(_pool.submit(task, part, *span))
                del own[0]
        except RuntimeError:  # the interpreter is ending and starts no threads: all that is left is the caller's
            pass
    try:
        for part, (first, last) in own:
            task(part, first, last)
    finally:
        wait(others)  # all of them, whoever failed: none may write after the call
    for other in others:
        other.result()
