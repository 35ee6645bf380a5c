"""Ctrl-C and signals to end, as wishes: a command finishes what it does and writes what was reached.

A command says with a subclass of `Wishes` what a wish will do at this moment, and asks between two steps how many there
have been.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ClassVar, TypeVar


class Wishes(ABC):
    """How often it was wished to stop; the wish after `patience` of them interrupts.

    `exit_code` is that of the first wish, 0 without.
    """

    patience: ClassVar[int]

    def __init__(self) -> None:
        self.count = 0
        self.exit_code = 0

    def __call__(self) -> int:
        """How often until now."""
        return self.count

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Count, and say what that does. Written straight to the terminal: a signal may come inside a print."""
        self.count += 1
        self.exit_code = self.exit_code or 128 + number
        if number not in {signal.SIGINT, signal.SIGTERM}:
            _leave_terminal()
        if self.count > self.patience:
            signal.signal(number, signal.SIG_DFL)  # an exception may be lost where Python cannot raise it; then this
            raise KeyboardInterrupt
        with suppress(OSError):
            os.write(2, f"\n{self.answer()}\n".encode())

    @abstractmethod
    def answer(self) -> str:
        """What the wish that has just come will do."""


def _leave_terminal() -> None:
    """The terminal has gone: nothing more is written to it, which would fail."""
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


SomeWishes = TypeVar("SomeWishes", bound=Wishes)


@contextmanager
def asked_to_stop(wishes: SomeWishes) -> Iterator[SomeWishes]:
    """Within the block a signal is a wish, to be asked for between two steps, so that nothing is left half done."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, wishes.on_signal) for number in numbers}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
