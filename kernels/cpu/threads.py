"""Threads of our own: plain Python threads around kernels that release the lock.

Numba's layers abort on concurrent calls (workqueue), after a fork (GNU OpenMP), or share their limit with torch. A pool
of Python threads does none of these: it is made anew in a forked child, serves several callers at once, and nobody else
knows of it. Where the threads of a call wait for each other (`barrier.py`), all of them run or none does.

Within `lend` the threads are another library's, which computes in turns with us (`openmp.py`).
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from .openmp import Team

VARIABLE = "SCRATCHRNN_NUM_THREADS"
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of Linux control groups, version 2: microseconds of every so many

Task = Callable[..., Any]


def usable_cores() -> int:
    """Cores that this process may run on, and has time for: a container's quota counts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return cores


def _initial() -> int:
    text = os.environ.get(VARIABLE)
    if text is None:
        return usable_cores()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE}: expected an integer of at least 1; got {text!r}")
    return int(text)


class _Job:
    """One call for another thread, unless its caller takes it back before it has begun."""

    __slots__ = ("_claims", "call", "done", "error", "finished", "task")

    def __init__(self, task: Task, call: tuple[Any, ...]) -> None:
        self.task, self.call = task, call
        self.error: BaseException | None = None
        self.finished = False
        self.done = threading.Lock()
        self.done.acquire()
        self._claims: list[str] = []  # the first has it; appending is one step

    def claim(self, who: str) -> bool:
        """Whether the call is `who`'s to make; asking again changes nothing."""
        self._claims.append(who)
        return self._claims[0] == who

    def run(self, ended: Callable[[], Any]) -> None:
        """Make the call in this thread, and say that it has `ended` before anybody can see that it is done."""
        if not self.claim("thread"):
            ended()
            return
        try:
            self.task(*self.call)
        except BaseException as error:  # noqa: BLE001  the caller raises it
            self.error = error
        ended()
        self.finished = True
        self.done.release()

    def wait(self) -> None:
        """Until it is finished. An interrupt ends the waiting."""
        if not self.finished:
            self.done.acquire()


class _Pool:
    """Threads that take jobs from a queue; daemons, since nobody's exit may wait for them."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.size = 0
        self._pending: list[None] = []  # one for each job that has not ended; a list, since `n += 1` is not one step

    def grow(self, size: int) -> None:
        """Have `size` threads, or as many as can be started: there may be a limit, or the interpreter is ending."""
        with suppress(RuntimeError):
            while self.size < size:
                threading.Thread(target=self._work, name="scratchrnn", daemon=True).start()
                self.size += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run(self._pending.pop)
            del job  # its arrays with it

    def put(self, job: _Job) -> None:
        """Add a job."""
        self._pending.append(None)
        self._jobs.put(job)

    def free(self) -> int:
        """Threads that have nothing to do."""
        return self.size - len(self._pending)

    def close(self) -> None:
        """Let the threads end when the jobs that are there are done."""
        for _ in range(self.size):
            self._jobs.put(None)


class _Lent(NamedTuple):
    """What the calls of one thread use instead of the pool."""

    threads: int
    team: Team | None


_lent: ContextVar[_Lent | None] = ContextVar("scratchrnn_lent", default=None)
_lock = threading.RLock()  # a signal's handler may compute, too
_turn: object = None  # of the call whose threads wait for each other: two could take each other's threads
_threads: int | None = None
_pool: _Pool | None = None


def get_num_threads() -> int:
    """Threads for a kernel: what was set, else `SCRATCHRNN_NUM_THREADS`, else the usable cores; or those lent."""
    global _threads
    if _threads is None:
        _threads = _initial()
    lent = _lent.get()
    return _threads if lent is None else min(lent.threads, _threads)


def set_num_threads(n: int) -> None:
    """Let kernels use up to n threads, the caller's among them."""
    global _threads, _pool
    with _lock:
        if n != _threads and _pool is not None:
            _pool.close()
            _pool = None
        _threads = n


@contextmanager
def lend(n: int, team: Team | None) -> Iterator[None]:
    """Within the block, kernels called in this thread use up to n threads, those of the team while it has as many."""
    try:
        _lent.set(_Lent(n, team))
        yield
    finally:
        _lent.set(None)  # not what was before: an interrupt may have come between a loan and its `try`


def _team(count: int) -> Team | None:
    """The team that was lent, if it has a thread for each of so many calls."""
    lent = _lent.get()
    if lent is None or lent.team is None or not 1 < count <= lent.team.size():
        return None
    return lent.team


def _after_fork() -> None:
    global _lock, _turn, _pool
    _lock = threading.RLock()
    _turn = _pool = None


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


def _hand_out(task: Task, calls: Sequence[tuple[Any, ...]], jobs: list[_Job], together: bool = False) -> None:
    """Give calls to other threads, as `jobs`; none if there are no threads, or with `together` too few are free."""
    global _pool
    if sys.is_finalizing():  # the threads stand still
        return
    with _lock:
        if _pool is None:
            _pool = _Pool()
        _pool.grow(get_num_threads() - 1)
        if (_pool.free() >= len(calls)) if together else _pool.size:
            for call in calls:
                jobs.append(_Job(task, call))  # before it can begin: who is interrupted knows of it
                _pool.put(jobs[-1])


def _wait(jobs: Sequence[_Job], all_out: bool) -> None:
    """For all jobs, whoever failed and whatever came: none may write after the call.

    If something came before they were `all_out`, those that have not begun never will.
    """
    interrupt: BaseException | None = None
    waiting = True
    while waiting:
        try:
            begun = [job for job in jobs if all_out or not job.claim("caller")]
            for job in begun:
                job.wait()
            waiting = False
        except BaseException as error:  # noqa: BLE001  raised below
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _raise_first(jobs: Sequence[_Job]) -> None:
    errors = [job.error for job in jobs if job.error is not None]
    for job in jobs:
        job.error = None  # its traceback holds this call's arrays
    if errors:
        raise errors[0]


def run(task: Task, calls: Sequence[tuple[Any, ...]]) -> None:
    """Call task(*call) for every call, side by side, one of them in the caller's thread."""
    team = _team(len(calls))
    if team is not None:
        team.run(task, calls)
        return
    jobs: list[_Job] = []
    all_out = False
    try:
        if len(calls) > 1:
            _hand_out(task, calls[:-1], jobs)
        all_out = True
        for call in calls[len(jobs) :]:
            task(*call)
    finally:
        _wait(jobs, all_out)
    _raise_first(jobs)


def run_together(task: Task, calls: Sequence[tuple[Any, ...]], call_off: Callable[[], None]) -> bool:
    """Like `run`, for tasks that wait for each other: each in a free thread of its own, or none at all, and then False.

    `call_off` makes all that wait leave; it is called if one of them fails, or the caller is interrupted.
    """
    global _turn
    mine, jobs, all_out = object(), list[_Job](), False
    try:
        with _lock:
            if _turn is None:
                _turn = mine
        if _turn is not mine:
            return False
        team = _team(len(calls))
        if team is not None:
            return team.run_together(task, calls, call_off)
        _hand_out(lambda *call: _or_call_off(task, call, call_off), calls[:-1], jobs, together=True)
        all_out = True
        if not jobs:
            return False
        _or_call_off(task, calls[-1], call_off)
    except BaseException:
        call_off()
        raise
    finally:
        try:
            _wait(jobs, all_out)
        finally:
            if _turn is mine:
                _turn = None
    _raise_first(jobs)
    return True


def _or_call_off(task: Task, call: tuple[Any, ...], call_off: Callable[[], None]) -> None:
    try:
        task(*call)
    except BaseException:
        call_off()
        raise
