"""Threads of somebody else: the OpenMP team that a library in this process, such as torch, computes with.

After each of its loops that library's threads look for more work for some milliseconds before they sleep. Threads of
our own would share the cores with them meanwhile, and take twice the time. So who computes beside such a library has us
hand our calls to its team, which is awake and waits for just that:

    GOMP_parallel(f, data, n)    n threads call f(data), the caller's among them, and all have returned when it returns

libgomp has this function, and so have LLVM's and Intel's OpenMP. Calls of compiled kernels are handed over as data
(`native.py`), others as members, which wait for Python's lock.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from functools import cache
from operator import methodcaller
from pathlib import Path
from types import ModuleType
from typing import Any

Task = Callable[..., Any]
Member = Generator[None, None, None]

_forked = False  # a forked child has the team's memory, and not its threads: a call would wait for them forever


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _native() -> ModuleType:  # imports Numba, which `import scratchrnn` need not wait for
    return importlib.import_module(".native", __package__)


@cache
def team_of(library: Path) -> Team | None:
    """The team of a loaded library; None where it brings no OpenMP with the functions needed."""
    try:
        linked = Team(ctypes.CDLL(str(library)))  # a symbol is looked up in what the library is linked to, too
    except AttributeError:
        return None
    try:  # but the linker looked here first: LD_PRELOAD may put another OpenMP in its place
        return Team(ctypes.CDLL(None))
    except AttributeError:
        return linked


class Team:
    """The OpenMP threads that belong to the calling thread, in the runtime that `library`, an open handle, leads to.

    AttributeError: it leads to no OpenMP with these functions.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._parallel, self._threads, self._most = (
            library.GOMP_parallel, library.omp_get_num_threads, library.omp_get_max_threads,
        )  # fmt: skip

    def size(self) -> int:
        """Threads that the library uses in the calling thread now; 0 where none can be had."""
        return 0 if _forked or sys.is_finalizing() else int(self._most())

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]]) -> None:
        """Call task(*call) for every call, side by side. If some fail, all end, and one error is raised."""
        parts = _native().parts_of(task, calls)
        if parts is not None:
            job, enter = self._hand_over(parts)
            while job.begun() < len(calls):  # no thread came for these: we are within a loop of the library's own
                enter(job.address)
            job.check()
            return
        errors: list[BaseException] = []
        left = self._enter([_member(task, call, errors, lambda: None) for call in calls])
        for _ in left:  # no thread came for these: we are within a loop of the library's own
            pass
        _raise_first(errors)

    def run_together(self, task: Task, calls: Sequence[tuple[Any, ...]], call_off: Callable[[], None]) -> bool:
        """Like `run`, for tasks that wait for each other: each in its own thread, or none at all, and then False."""
        parts, count = _native().parts_of(task, calls), len(calls)
        if parts is not None:
            job, _ = self._hand_over(parts, count, ctypes.cast(self._threads, ctypes.c_void_p).value or 0)
            job.check()
            return job.begun() == count
        errors: list[BaseException] = []
        made: list[None] = []

        def checked(*call: Any) -> None:
            if self._threads() >= count:  # the same for everybody
                made.append(None)
                task(*call)

        self._enter([_member(checked, call, errors, call_off) for call in calls])
        _raise_first(errors)
        return bool(made)

    def _hand_over(self, parts: Any, *least: int) -> tuple[Any, Any]:
        """Have each thread of the team come for a part; the job, and what whoever comes calls with its address."""
        native = _native()
        job, enter = native.Job(parts, *least), native.enter()
        self._parallel(enter, ctypes.c_void_p(job.address), int(self._most()), 0)
        return job, enter

    def _enter(self, members: list[Member]) -> Any:
        """Have each thread of the team resume one member; those that were left over."""
        size = int(self._most())  # of fewer the library would end the others, and start new ones for its next loop
        members += [_member(lambda: None, (), [], lambda: None) for _ in range(size - len(members))]
        for member in members:
            next(member)
        resumed = map(methodcaller("send", None), members)
        # No line of Python between a thread's arrival and the member's `try`: an interrupt would end the member unseen
        arrive = ctypes.CFUNCTYPE(None)(resumed.__next__)
        self._parallel(arrive, None, size, 0)
        return resumed


def _member(task: Task, call: tuple[Any, ...], errors: list[BaseException], call_off: Callable[[], None]) -> Member:
    """One call, made when it is resumed; an error is kept."""
    try:
        yield
        task(*call)
    except GeneratorExit:  # never resumed
        raise
    except BaseException as error:  # noqa: BLE001  raised in the caller's thread
        call_off()
        errors.append(error)
    yield  # its end would be an error in the thread that resumed it


def _raise_first(errors: list[BaseException]) -> None:
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # or it would hold this frame, which holds it
