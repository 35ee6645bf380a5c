"""What the commands share: exit codes, errors of one line, bad input told from a bug."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from scratchrnn.backends import BackendUnavailableError

FAILED, BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141


class InputError(Exception):
    """What the user gave cannot be used; the message is all that the user needs."""


@contextmanager
def user_input() -> Iterator[None]:
    """Within the block a complaint is about what the user gave: it becomes one line and exit code 2."""
    try:
        yield
    except (ValueError, TypeError, OSError, BackendUnavailableError) as error:
        raise InputError(_in_words(error)) from error


def _in_words(error: Exception) -> str:
    """The message; what the system itself complains about begins with the file as well."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or 'output'}: cannot be read or written: {error.strerror}"
    return str(error)


def print_error(message: str) -> None:
    """Write one line to stderr."""
    _print("error", message)


def print_warning(message: str) -> None:
    """Write one line to stderr; the command goes on."""
    _print("warning", message)


def _print(kind: str, message: str) -> None:
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
