"""The one door to `kernels`: which backends exist, which can run here and why not, and which one is meant.

A backend is a package `scratchrnn.kernels.<name>` with modules `rnn` and `lstm`, each offering `infer`, `forward`,
`backward` and `preactivations`, and `lstm` also `activate`, and `linear`, offering `forward` and `backward`, with the
signatures of the definition, `scratchrnn.kernels.numpy`. It may have `rnn_tangent` and `lstm_tangent`, offering
`forward` and `backward`, for second derivatives. The record is here; the code is there.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from scratchrnn._validate import check_c_order, check_positive_int, describe, on_device
from scratchrnn.kernels import arrays as arrays  # for layers, which go through this door too
from scratchrnn.kernels import blocks
from scratchrnn.kernels import memory as memory  # likewise


class BackendUnavailableError(RuntimeError):
    """A backend that exists was asked for by name and cannot run on this machine."""


def _always() -> str | None:
    return None


def _why_no_cuda() -> str | None:
    reason: str | None = _kernel_module("cuda", "availability").why_unavailable()
    return reason


@dataclass(frozen=True)
class Backend:
    """What is known of a backend without loading it."""

    name: str
    devices: tuple[str, ...]  # "cpu", "cuda"
    summary: str
    folder: str  # of kernels/
    why_unavailable: Callable[[], str | None] = _always  # None: it can run here
    block_steps: Callable[[int], int] = blocks.block_steps  # of its sums over time, by the size of a batch

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name: expected a Python identifier; got {self.name!r}")
        if not self.devices or not set(self.devices) <= {"cpu", "cuda"}:
            raise ValueError(f"devices: expected some of 'cpu', 'cuda'; got {self.devices!r}")

    @property
    def has_tangents(self) -> bool:
        """Whether there is what second derivatives need."""
        return importlib.util.find_spec(f"{__package__}.kernels.{self.folder}.lstm_tangent") is not None


class Tangents(NamedTuple):
    """The modules of a backend that second derivatives need."""

    rnn: ModuleType  # forward, backward
    lstm: ModuleType  # the same


@dataclass(frozen=True)
class Kernels:
    """A backend, loaded: its modules, and what layers do with arrays between its calls."""

    name: str
    rnn: ModuleType  # infer, forward, backward, preactivations
    lstm: ModuleType  # the same, and activate
    linear: ModuleType  # forward, backward
    arrays: Any = arrays  # kernels/arrays.py, or within `placed` what stands for it on a device

    @property
    def tangent(self) -> Tangents:
        """The backend's tangents, loaded when they are first asked for.

        Raises
        ------
        NotImplementedError
            It has none; the message says which have.
        """
        return _import_tangents(self.name)


REGISTRY: dict[str, Backend] = {
    backend.name: backend
    for backend in [
        Backend("numba", ("cpu",), "compiled on first use, all cores", "cpu"),
        Backend("numpy", ("cpu",), "the definition: plain NumPy, one line per equation", "numpy"),
        Backend("cuda", ("cuda",), "NVIDIA GPUs through numba.cuda", "cuda", _why_no_cuda, blocks.block_steps_cuda),
    ]
}

DEFAULT = "numba"

_current: ContextVar[str | None] = ContextVar("scratchrnn_backend", default=None)


def _record(name: Any) -> Backend:
    if not isinstance(name, str):
        raise TypeError(f"backend: expected the name of a backend; got {type(name).__name__} {name!r}")
    if name not in REGISTRY:
        raise ValueError(f"backend: unknown name {name!r}; known: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]


def known() -> tuple[Backend, ...]:
    """Records of all backends, usable here or not."""
    return tuple(REGISTRY.values())


def available() -> tuple[str, ...]:
    """Names of the backends that can run on this machine.

    >>> "numpy" in available()
    True
    """
    return tuple(backend.name for backend in REGISTRY.values() if backend.why_unavailable() is None)


def check_backend(name: str | None) -> str | None:
    """Return `name` if it is None or a known backend; whether it can run is asked when it is used."""
    return None if name is None else _record(name).name


def current() -> str:
    """Name of the backend that a layer without a choice of its own uses now."""
    return _current.get() or DEFAULT


def load(name: str | None = None) -> Kernels:
    """Load a backend's kernels.

    Parameters
    ----------
    name : str, optional
        A backend's name: this one or an error, never another. When absent, the one of the enclosing `use_backend`,
        else the default.

    Raises
    ------
    ValueError
        No backend has this name.
    BackendUnavailableError
        It cannot run here; the message says what is missing.
    """
    backend = _record(current() if name is None else name)
    reason = backend.why_unavailable()
    if reason is not None:
        raise BackendUnavailableError(f"backend {backend.name!r} cannot run here: {reason}")
    return _import(backend.name, backend.folder)


@cache
def _import(name: str, folder: str) -> Kernels:
    package = f"{__package__}.kernels.{folder}"
    return Kernels(name, *(importlib.import_module(f"{package}.{module}") for module in ("rnn", "lstm", "linear")))


@contextmanager
def _arrays_on_device(lead: Any) -> Iterator[Any]:
    with _kernel_module("cuda", "arrays").Arrays(lead) as on:
        yield on


def arrays_at(lead: Any) -> AbstractContextManager[Any]:
    """What layers do with arrays, for those that are where `lead` is: `kernels/arrays.py`, or its like on a device.

    There it is done on the stream that `lead`'s owner is using.
    """
    return _arrays_on_device(lead) if on_device(lead) else nullcontext(arrays)


@contextmanager
def _on_device(kernels: Kernels, lead: Any) -> Iterator[Kernels]:
    with _arrays_on_device(lead) as on:
        yield replace(kernels, arrays=on)


def placed(kernels: Kernels, name: str, lead: Any) -> AbstractContextManager[Kernels]:
    """The backend, for arrays that are where `lead`, the argument `name`, is.

    Raises
    ------
    TypeError
        It is on a device that the backend does not run on.
    ValueError
        It is on a device, and not in C order.
    """
    if not on_device(lead):
        return nullcontext(kernels)
    if "cuda" not in _record(kernels.name).devices:
        able = ", ".join(repr(backend.name) for backend in known() if "cuda" in backend.devices)
        raise TypeError(
            f"{name}: expected a NumPy array, since backend {kernels.name!r} runs on the CPU; got {describe(lead)}, "
            f"which backend {able} takes"
        )
    check_c_order(name, lead)
    return _on_device(kernels, lead)


def block_steps(batch: int, backend: str | None = None) -> int:
    """Time steps of one block of a backend's sums over time, for a batch of this size.

    A sequence cut at multiples of it has the gradients of the whole one, bit for bit.

    Parameters
    ----------
    batch : int
    backend : str, optional
        A backend's name. When absent, the one of the enclosing `use_backend`, else the default.

    >>> block_steps(8), block_steps(8, "cuda")
    (16, 256)
    """
    return int(_record(current() if backend is None else backend).block_steps(batch))


@cache
def _import_tangents(name: str) -> Tangents:
    backend = _record(name)
    if not backend.has_tangents:
        able = ", ".join(repr(other.name) for other in known() if other.has_tangents)
        raise NotImplementedError(
            f"backend {name!r} has no tangents, which second derivatives need; these have: {able}"
        )
    return Tangents(*(_kernel_module(backend.folder, f"{cell}_tangent") for cell in ("rnn", "lstm")))


@contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Within the block, layers that chose no backend of their own use this one.

    Holds for the current thread or task only. Raises before the block if the backend is unknown or cannot run here.

    >>> with use_backend("numpy") as backend:
    ...     current()
    'numpy'
    """
    load(name)
    token = _current.set(name)
    try:
        yield _record(name)
    finally:
        _current.reset(token)


def _kernel_module(folder: str, module: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.kernels.{folder}.{module}")


def set_num_threads(n: int) -> None:
    """Let the backend "numba" use up to `n` threads, the calling one among them.

    Holds for the whole process. Results are the same to the last bit for any number, and a call too small to be shared
    runs on one. Without a call the number is that of the environment variable SCRATCHRNN_NUM_THREADS, read at the first
    use, or else of the cores that this process may run on. Neither torch's threads nor those of NumPy's BLAS change.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        Not an integer.
    ValueError
        Below 1.

    >>> before = get_num_threads()
    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    >>> set_num_threads(before)
    """
    _kernel_module("cpu", "threads").set_num_threads(check_positive_int("n", n))


def get_num_threads() -> int:
    """Threads that the backend "numba" may use.

    Raises
    ------
    ValueError
        The environment variable SCRATCHRNN_NUM_THREADS decides, and is not a whole number of at least 1.
    """
    return int(_kernel_module("cpu", "threads").get_num_threads())


def lend_threads(n: int, library: Path | None) -> AbstractContextManager[None]:
    """Within the block, what this thread computes with the backend "numba" uses up to `n` threads.

    Parameters
    ----------
    n : int
        At least 1. The limit of `set_num_threads` holds beside it.
    library : Path, optional
        A loaded library whose OpenMP threads are used, if it has some and uses so many itself. Else ours are.
    """
    team = None if library is None else _kernel_module("cpu", "openmp").team_of(library)
    lent: AbstractContextManager[None] = _kernel_module("cpu", "threads").lend(n, team)
    return lent


def release_memory() -> None:
    """Give back to the system the memory that layers keep for their next call.

    Big arrays that a layer or a kernel makes (outputs, traces, gradients, workspace) stand on memory that earlier ones
    left when they died: fresh memory would cost a quarter of a call. At most 512 MiB wait so, and never more than were
    in use at once recently. Live arrays are untouched. The backend "cuda" keeps memory of the device likewise, without
    that bound.

    >>> release_memory()
    """
    memory.release()
    _kernel_module("cuda", "driver").release_memory()


def cuda_facts() -> dict[str, Any]:
    """What the backend "cuda" would run on, for `scratchrnn info`.

    Returns
    -------
    dict
        "driver": the newest CUDA that the driver runs, or None. "devices": each one's name and compute capability.
        "toolkit": version of the toolkit that is installed as Python packages, or None.
    """
    facts: dict[str, Any] = _kernel_module("cuda", "availability").describe()
    return facts


def kernel_cache_folder() -> Path:
    """Where the backend "numba" keeps compiled kernels: in SCRATCHRNN_CACHE_DIR, else in the user's cache folder.

    An edited kernel, another Numba or another vector unit means another folder.

    Raises
    ------
    OSError
        The user has no home folder, and no environment variable names another.
    """
    return Path(_kernel_module("cpu", "jit").cache_folder())
