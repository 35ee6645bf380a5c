"""Threads of our own: plain Python threads around kernels that release the lock.

Numba's layers abort on concurrent calls (workqueue), after a fork (GNU OpenMP), or share their limit with torch. A pool
of Python threads does neither: it is made anew in a forked child, serves several callers at once, and nobody else
knows of it. Where the threads of a call wait for each other (`barrier.py`), all of them run or none does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
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
_together = (
    threading.Lock()
)  # one call at a time whose threads wait for each other: two could take each other's threads
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
    global _lock, _together, _pool
    _lock, _together = threading.Lock(), threading.Lock()
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def split(count: int, parts: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Cut 0..count into at most `parts` neighbouring ranges of nearly equal size, whole multiples but the last."""
    if parts == 1 and count:
        return [(0, count)]
    units = -(-count // multiple)
    parts = max(1, min(parts, units))
    cuts = [min(count, multiple * (units * p // parts)) for p in range(parts + 1)]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def _submit(
    task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], each_its_own: bool = False
) -> list[Future[Any]]:
    """Hand calls to the pool, as many as it takes: none more once the interpreter is ending.

    With `each_its_own`, none if there are more calls than threads.
    """
    global _pool
    taken: list[Future[Any]] = []
    with _lock:
        if each_its_own and len(calls) >= get_num_threads():
            return taken
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, get_num_threads() - 1), thread_name_prefix="scratchrnn")
        with suppress(RuntimeError):
            for call in calls:
                taken.append(_pool.submit(task, *call))  # noqa: PERF401  what was taken counts when it stops
    return taken


def run(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
    """Call task(*call) for every call, side by side, the last one in the caller's thread."""
    if len(calls) == 1:
        task(*calls[0])
        return
    others = _submit(task, calls[:-1])
    try:
        for call in calls[len(others) :]:
            task(*call)
    finally:
        wait(others)  # all of them, whoever failed: none may write after the call
    for other in others:
        other.result()


def run_together(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], call_off: Callable[[], None]) -> bool:
    """Like `run`, for tasks that wait for each other: each in a thread of its own, or none at all, and then False.

    `call_off` makes all that wait leave; it is called if one of them could not start, or the caller was interrupted.
    """
    if not _together.acquire(blocking=False):
        return False
    others: list[Future[Any]] = []
    try:
        others = _submit(task, calls[:-1], each_its_own=True)
        if len(others) < len(calls) - 1:
            call_off()
            return False
        task(*calls[-1])
    except BaseException:
        call_off()
        raise
    finally:
        wait(others)
        _together.release()
    for other in others:
        other.result()
    return True
