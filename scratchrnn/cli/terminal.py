"""What the commands share: exit codes, errors of one line, bad input told from a bug."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from scratchrnn.backends import BackendUnavailableError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class InputError(Exception):
    """What the user gave cannot be used; the message is all that the user needs."""


@contextmanager
def user_input() -> Iterator[None]:
    """Within the block a complaint is about what the user gave: it becomes one line and exit code 2."""
    try:
        yield
    except (ValueError, TypeError, OSError, BackendUnavailableError) as error:
        raise InputError(str(error)) from error


def print_error(message: str) -> None:
    """Write one line to stderr."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
