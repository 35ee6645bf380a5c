"""The log of a run: log.jsonl, one JSON object in each line.

    {"kind": "update", "step", "loss", ["bits", "perplexity",] "penalty", "gradient_norm", "clipped", "lr", "items",
     ["epoch",] "seconds", "items_per_second"}
    {"kind": "evaluation", "step", "best", "seconds", "loss", ...}          after the update of that number

bits and perplexity where the loss is in nats. null stands for what is infinite or not a number. A resumed run cuts off
what came after its checkpoint, so that but for the two figures of time the log is that of one undisturbed run.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

from scratchrnn.train.records import Step

BEGINNING = b'{"kind": "'  # of every line


class Log:
    """A file that grows by whole lines, held by one process at a time.

    Parameters
    ----------
    path : Path
        Opened as it is; `cut` says how much of it belongs to the run.

    Raises
    ------
    BlockingIOError
        Another process is writing to it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._file = path.open("ab", buffering=0)  # nothing stays in this process, where a kill would lose it
        try:
            _lock(self._file.fileno(), path)
        except BaseException:
            self._file.close()
            raise

    def cut(self, size: int) -> None:
        """Cut off what follows that many bytes; ValueError if there are fewer."""
        there = self._file.seek(0, os.SEEK_END)
        if there < size:
            raise ValueError(
                f"{self.path}: expected at least the {size} bytes that it had at the checkpoint; got {there} "
                "(without the log a run cannot be resumed to one whole; put it back, or begin in another folder)"
            )
        self._file.truncate(size)
        self.size = size

    def write(self, record: dict[str, Any]) -> None:
        """Append one line; it is with the system when this returns."""
        line = json.dumps({key: _finite(value) for key, value in record.items()}, allow_nan=False) + "\n"
        data = line.encode()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            error.filename = str(self.path)  # which the system leaves out where a disk is full
            raise
        self.size += len(line.encode())

    def sync(self) -> None:
        """Have everything on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def update_record(step: Step, nats: bool) -> dict[str, Any]:
    """The line of an update."""
    record: dict[str, Any] = {"kind": "update", "step": step.number, "loss": step.loss}
    if nats:
        record |= {"bits": step.bits, "perplexity": step.perplexity}
    record |= {"penalty": step.penalty, "gradient_norm": step.gradient_norm, "clipped": step.clipped, "lr": step.lr}
    record |= {"items": step.items} | ({} if step.epoch is None else {"epoch": step.epoch})
    return record | {"seconds": step.seconds, "items_per_second": step.items_per_second}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lock(handle: int, path: Path) -> None:
    """Hold the file until it is closed or this process ends, however it ends."""
    if os.name != "posix":  # no such lock elsewhere
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"{path}: another process is training in this folder") from None
    except OSError as error:  # some network file systems have no locks
        warnings.warn(
            f"{path}: cannot be locked ({error.strerror}): see to it that no other process trains in this folder",
            RuntimeWarning,
            stacklevel=2,
        )
