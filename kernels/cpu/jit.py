"""How these kernels are compiled: on first use, cached on disk, never stale.

The cache folder's name holds a hash of every source file here, Numba's version and the vector unit. Numba's own check
looks only at the file of the function that is called, so an edited helper in another file would keep running.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.serialize import dumps

from .machine import UNIT

# error_model: a division by zero is inf or nan as in NumPy, and the check for it would keep a loop scalar
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
VARIABLE = "SCRATCHRNN_CACHE_DIR"
NOTICE_AFTER = 1.0  # seconds

Call = tuple[Any, tuple[Any, ...]]  # a compiled function and its arguments


def source_hash(folder: Path | None = None) -> str:
    """Hash of every Python file of a folder of kernels, and of what they share with others, names included."""
    digest = hashlib.sha256()
    folder = folder or Path(__file__).parent
    for path in [*sorted(folder.glob("*.py")), folder.parent / "blocks.py"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled kernels are kept: in `SCRATCHRNN_CACHE_DIR`, else in the user's cache folder."""
    if os.environ.get(VARIABLE):
        base = Path(os.environ[VARIABLE])
    else:
        try:
            base = _users_cache()
        except RuntimeError:
            raise OSError("the user has no home folder") from None
    unit = f"{UNIT.bits}x{UNIT.rows}x{UNIT.vectors}"
    return base / f"numba-{numba.__version__}-{unit}-{source_hash()}"


def _users_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "scratchrnn"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "scratchrnn" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scratchrnn"


class _Locator(_CacheLocator):
    """Numba's way to ask where; the folder's name already says all that could make an entry stale."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(_folder())

    def get_source_stamp(self) -> str:
        return _folder().name

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)


class _Impl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(FunctionCache):
    """A file for each kernel and signature, its hash in front.

    Numba's own index names one file for two signatures if two processes save at once, and a file cut short stops it.
    """

    _impl_class = _Impl

    def _file(self, signature: Any, context: Any) -> Path:
        key = hashlib.sha256(repr(self._index_key(signature, context.codegen())).encode()).hexdigest()[:16]
        return _folder() / f"{self._impl.filename_base}-{key}.nbc"

    def _load_overload(self, signature: Any, context: Any) -> Any:
        try:
            data = self._file(signature, context).read_bytes()
        except OSError:
            return None
        digest, payload = data[:32], data[32:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        return self._impl.rebuild(context, pickle.loads(payload))

    def _save_overload(self, signature: Any, result: Any) -> None:
        if not self._impl.check_cachable(result):
            return
        path, payload = self._file(signature, result.target_context), dumps(self._impl.reduce(result))
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                try:
                    file.write(hashlib.sha256(payload).digest() + payload)
                    file.close()
                    os.replace(file.name, path)
                except OSError:
                    file.close()
                    os.unlink(file.name)
                    raise
        except OSError as error:
            _say_unwritable(str(path.parent), error.strerror or str(error))


@functools.cache
def _folder() -> Path:
    return cache_folder()


@functools.cache
def _writable() -> bool:
    """Whether the cache folder can be written; if not, say so: every process will compile again."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=_folder()):
            return True
    except OSError as error:
        _say_unwritable(os.environ.get(VARIABLE) or "", error.strerror or str(error))
        return False


_said_unwritable = False


def _say_unwritable(folder: str, reason: str) -> None:
    """Say it once in a process."""
    global _said_unwritable
    if not _said_unwritable:
        _said_unwritable = True
        sys.stderr.write(
            f"scratchrnn: the kernel cache {folder} cannot be written ({reason}); kernels are compiled anew in each "
            f"process. {VARIABLE} names another folder.\n"
        )


def inner(function: Callable[..., Any]) -> Any:
    """Make a function that only other kernels call: part of what calls it, in the cache too."""
    return numba.njit(**OPTIONS)(function)


class Kernel:
    """A function that Python calls: compiled for its argument types on first use, from the cache if it is there."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._function = function
        self._lock = threading.Lock()
        self._dispatcher: Any = None
        self._dtypes: set[Any] = set()

    def dispatcher(self) -> Any:
        """Numba's dispatcher, made on first use: making one reads the disk."""
        if self._dispatcher is None:
            with self._lock:
                if self._dispatcher is None:
                    made = numba.njit(**OPTIONS)(self._function)
                    if _writable():
                        made._cache = _Cache(self._function)
                    self._dispatcher = made
        return self._dispatcher

    def ready(self, dtype: Any, *arguments: Any) -> Any:
        """Return the dispatcher, compiled for these arguments of this dtype: the only thing their types depend on."""
        if dtype not in self._dtypes:
            with Notice(f"{self._function.__module__.rsplit('.', 1)[-1]}.{self._function.__name__} for {dtype}"):
                self.dispatcher().compile(tuple(map(numba.typeof, arguments)))
            self._dtypes.add(dtype)
        return self._dispatcher


def do(*calls: Call) -> None:
    """Make some calls, one after the other."""
    for kernel, arguments in calls:
        kernel(*arguments)


class Notice:
    """Within the block, print one line to stderr if it takes longer than a second, and one when it is done."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = False

    def _say(self) -> None:
        self._said = True
        sys.stderr.write(f"scratchrnn: compiling {self._what}, once for this machine ...\n")

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._timer = threading.Timer(NOTICE_AFTER, self._say)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._said:
            sys.stderr.write(f"scratchrnn: compiled in {time.perf_counter() - self._began:.1f} s\n")
