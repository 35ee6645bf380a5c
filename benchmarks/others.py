"""Other programs on the machine: whether they took a core away from the threads that are timed.

An OpenMP team waits in a busy loop for its slowest thread: with one core taken by somebody else, torch on all cores
can be a thousand times slower. Such a time says nothing about torch. The kernel counts how long each thread was ready
to run and had no core; a round in which that is more than `MOST_WAITED` of its time is dropped. Linux only; elsewhere
nothing is dropped and the share is null.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

MOST_WAITED = 0.03  # of a round's time, all threads of the process together
LOOK = 0.1  # seconds of a look at the machine; the kernel counts in hundredths
SELF = Path("/proc/self/task")
STAT = Path("/proc/stat")
IDLE = (3, 4)  # fields of /proc/stat: idle, waiting for a disk


def waited() -> float | None:
    """Seconds for which threads of this process were ready and had no core, since they started."""
    if not (SELF / str(os.getpid()) / "schedstat").exists():
        return None
    total = 0
    for thread in SELF.iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    return total / 1e9


def disturbed(share: float | None) -> bool:
    """Whether a share of time spent waiting for a core spoils what was timed."""
    return share is not None and share > MOST_WAITED


def _busy_seconds() -> float:
    fields = [int(field) for field in STAT.read_text().splitlines()[0].split()[1:9]]
    return sum(value for n, value in enumerate(fields) if n not in IDLE) / os.sysconf("SC_CLK_TCK")


def wait_until_free(threads: int, cores: int, patience: float) -> float:
    """While nothing of ours runs: sleep until `threads` cores are free, at most `patience` seconds; return seconds."""
    began = time.monotonic()
    while STAT.exists() and time.monotonic() - began < patience:
        before, looked = _busy_seconds(), time.monotonic()
        time.sleep(LOOK)
        if (_busy_seconds() - before) / (time.monotonic() - looked) + threads < cores + 0.5:
            break
    return time.monotonic() - began
