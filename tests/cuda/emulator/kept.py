"""What compiling gave, kept in files: a kernel's PTX by all that makes it, a library by its C.

A run of the engine's tests compiles hundreds of kernels, a second or two for each. Within `kept_in(folder)` processes
find there what another has compiled, or an earlier run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from scratchrnn.kernels.cuda.kernel import Kernel

_folder: Path | None = None


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Within the block, look in this folder before compiling."""
    global _folder
    before, _folder = _folder, folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        _folder = before


def folder() -> Path:
    """Where libraries are: that of `kept_in`, or one of this process, which goes with it."""
    return _folder or Path(_own().name)


@functools.cache
def _own() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ptx-emulator-")


def made(path: Path, make: Callable[[Path], object]) -> Path:
    """The file, made if it is not there, and whole whenever it is: other processes make it too."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            new = Path(beside, path.name)
            make(new)
            new.replace(path)
    return path


@functools.cache
def ptx(kernel: Kernel) -> str:
    """The kernel's PTX, from a file where the kernel's constants can be told by what they print."""
    constants = _constants(kernel)
    if _folder is None or constants is None:
        return kernel.ptx()
    parts = [kernel.name, kernel.signature, str(kernel.threads), constants, _sources()]
    path = folder() / f"{_digest(*parts)}.ptx"
    return made(path, lambda new: new.write_text(kernel.ptx())).read_text()


def _constants(kernel: Kernel) -> str | None:
    """What the kernel's `build` closes over; None where that is more than numbers, names and records of them."""
    build: Any = kernel.build
    if not getattr(build, "__module__", "").startswith("scratchrnn.kernels.cuda."):
        return None  # its source is not among the sources
    closed = inspect.getclosurevars(build).nonlocals
    plain = all(isinstance(value, (str, int, float)) or is_dataclass(value) for value in closed.values())
    return repr((build.__module__, build.__qualname__, sorted(closed.items()))) if plain else None


@functools.cache
def _sources() -> str:
    """A digest of what kernels are made of, and of their compiler."""
    package = Path(inspect.getfile(Kernel)).parent
    files = [path.read_text() for path in sorted(package.glob("*.py"))]
    return _digest(importlib.metadata.version("numba-cuda"), *files)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
