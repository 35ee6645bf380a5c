"""Threads of our own: plain Python threads around kernels that release the lock.

Numba's layers abort on concurrent calls (workqueue), after a fork (GNU OpenMP), or share their limit with torch. A pool
of Python threads does neither: it is made anew in a forked child, serves several callers at once, and nobody else
knows of it. Where the threads of a call wait for each other (`barrier.py`), all of them run or none does.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

VARIABLE = "SCRATCHRNN_NUM_THREADS"

Task = Callable[..., Any]


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


class _Job:
    """One call for another thread."""

    __slots__ = ("call", "done", "error", "finished", "task")

    def __init__(self, task: Task, call: tuple[Any, ...]) -> None:
        self.task, self.call = task, call
        self.error: BaseException | None = None
        self.finished = False
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.task(*self.call)
        except BaseException as error:  # noqa: BLE001  the caller raises it
            self.error = error
        self.finished = True
        self.done.release()

    def wait(self) -> None:
        """Return, or raise what came in the meantime, such as an interrupt, when the job is finished and not before."""
        interrupt: BaseException | None = None
        while not self.finished:
            try:
                self.done.acquire()
            except BaseException as error:  # noqa: BLE001  raised below
                interrupt = error
        if interrupt is not None:
            raise interrupt


class _Pool:
    """Threads that take jobs from a queue; daemons, since nobody's exit may wait for them."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.size = 0

    def grow(self, size: int) -> None:
        """Have `size` threads, or as many as can be started: there may be a limit, or the interpreter is ending."""
        with suppress(RuntimeError):
            while self.size < size:
                threading.Thread(target=self._work, name="scratchrnn", daemon=True).start()
                self.size += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # its arrays with it

    def put(self, job: _Job) -> None:
        self._jobs.put(job)

    def close(self) -> None:
        """Let the threads end when the jobs that are there are done."""
        for _ in range(self.size):
            self._jobs.put(None)


_lock = threading.Lock()
_together = threading.Lock()  # held by a call whose threads wait for each other: two could take each other's threads
_threads: int | None = None
_pool: _Pool | None = None


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
            _pool.close()
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


def _hand_out(task: Task, calls: Sequence[tuple[Any, ...]], together: bool = False) -> list[_Job]:
    """Give calls to other threads; none if there are no threads, or with `together` fewer threads than calls."""
    global _pool
    jobs: list[_Job] = []
    if sys.is_finalizing():  # the threads stand still
        return jobs
    with _lock:
        if _pool is None:
            _pool = _Pool()
        _pool.grow(get_num_threads() - 1)
        if _pool.size >= (len(calls) if together else 1):
            for call in calls:
                job = _Job(task, call)
                _pool.put(job)
                jobs.append(job)
    return jobs


def _wait(jobs: Sequence[_Job]) -> None:
    """For all of them, whoever failed and whatever came: none may write after the call."""
    interrupt: BaseException | None = None
    for job in jobs:
        try:
            job.wait()
        except BaseException as error:  # noqa: BLE001  raised below
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _raise_first(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.error is not None:
            raise job.error


def run(task: Task, calls: Sequence[tuple[Any, ...]]) -> None:
    """Call task(*call) for every call, side by side, the last one in the caller's thread."""
    jobs = _hand_out(task, calls[:-1]) if len(calls) > 1 else []
    try:
        for call in calls[len(jobs) :]:
            task(*call)
    finally:
        _wait(jobs)
    _raise_first(jobs)


def run_together(task: Task, calls: Sequence[tuple[Any, ...]], call_off: Callable[[], None]) -> bool:
    """Like `run`, for tasks that wait for each other: each in a thread of its own, or none at all, and then False.

    `call_off` makes all that wait leave; it is called if one of them fails, or the caller is interrupted.
    """
    if not _together.acquire(blocking=False):
        return False
    jobs: list[_Job] = []
    try:
        jobs = _hand_out(lambda *call: _or_call_off(task, call, call_off), calls[:-1], together=True)
        if len(jobs) < len(calls) - 1:
            return False
        _or_call_off(task, calls[-1], call_off)
    except BaseException:
        call_off()
        raise
    finally:
        try:
            _wait(jobs)
        finally:
            _together.release()
    _raise_first(jobs)
    return True


def _or_call_off(task: Task, call: tuple[Any, ...], call_off: Callable[[], None]) -> None:
    try:
        task(*call)
    except BaseException:
        call_off()
        raise
