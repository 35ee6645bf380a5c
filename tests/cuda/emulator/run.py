"""Launches of kernels from their PTX: build the C once, lay out the parameters, run, and say what went wrong."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.cuda.emulator import kept
from tests.cuda.emulator.operands import is_float
from tests.cuda.emulator.parse import WIDTH, parse
from tests.cuda.emulator.translate import Translation, translate

HERE = Path(__file__).parent
ARRAY_PARAMETERS = 7  # of a 1-D array: meminfo, parent, items, itemsize, data, shape[0], strides[0]


class KernelFault(Exception):
    """A kernel did what it must not do."""


class OutOfBounds(KernelFault):
    """An access outside of the arrays, or of the shared memory, or a write into a read-only array."""


class Misaligned(KernelFault):
    """An address that is no multiple of the access's size."""


class Deadlock(KernelFault):
    """Every thread waits at a barrier that nobody will open."""


class Endless(KernelFault):
    """The budget of steps is spent."""


class Diverged(KernelFault):
    """Threads meet at a barrier or in a warp in a way that PTX leaves undefined."""


class Race(KernelFault):
    """Two threads touch one word, one of them writing, and nothing orders the two."""


FAULTS = (None, OutOfBounds, Misaligned, OutOfBounds, Deadlock, Endless, Diverged, KernelFault, KernelFault, Race,
          MemoryError)  # fmt: skip


class _Range(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_void_p), ("end", ctypes.c_void_p),
                ("writable", ctypes.c_uint64), ("first_word", ctypes.c_uint64)]  # fmt: skip


class _Launch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("blocks", "threads", "shared_static")),
        *((name, ctypes.c_uint32) for name in ("shared_dynamic", "resident", "races")),
        *((name, ctypes.c_uint64) for name in ("seed", "steps", "stack")),
        ("parameters", ctypes.c_char_p),
        ("ranges", ctypes.POINTER(_Range)),
        ("range_count", ctypes.c_uint64),
        ("words", ctypes.c_uint64),
    ]  # fmt: skip


class _Fault(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("line", ctypes.c_int32), ("block", ctypes.c_uint32),
                ("thread", ctypes.c_uint32), ("text", ctypes.c_char * 4000)]  # fmt: skip


def why_unavailable() -> str | None:
    """Say why kernels cannot be emulated here; None: they can."""
    if os.name != "posix":
        return "the emulator's fibers need a POSIX system"
    return None if _compiler() else "the emulator needs a C compiler: gcc, clang or cc"


@functools.cache
def _compiler() -> str | None:
    return next((path for name in ("gcc", "clang", "cc") if (path := shutil.which(name))), None)


@functools.lru_cache(maxsize=256)
def build(ptx: str) -> tuple[Translation, ctypes.CDLL]:
    """Translate and compile a PTX text; the same text is compiled once."""
    if reason := why_unavailable():
        raise RuntimeError(reason)
    translation = translate(parse(ptx))
    sources = [(HERE / name).read_text() for name in ("operations.h", "runtime.c", "races.c", "memory.c", "schedule.c")]
    sources.insert(4, translation.c)
    text = "\n".join(sources)
    native = ["-mfma"] if platform.machine() == "x86_64" and _has_fma() else []
    meaning = ["-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv", *native]
    command = [str(_compiler()), *meaning, "-O1", "-w", "-fPIC", "-shared", "-xc", "-", "-lm"]

    def compile_c(library: Path) -> None:
        done = subprocess.run([*command, "-o", str(library)], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the C compiler refused the translated kernel:\n{done.stderr[:4000]}")

    digest = hashlib.sha256("\0".join([*command, text]).encode()).hexdigest()[:24]
    library = kept.made(kept.folder() / f"{digest}.so", compile_c)
    loaded = ctypes.CDLL(str(library))
    loaded.run.argtypes, loaded.run.restype = [ctypes.POINTER(_Launch), ctypes.POINTER(_Fault)], ctypes.c_int
    return translation, loaded


@functools.cache
def _has_fma() -> bool:
    try:
        return " fma " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _scalar(value: Any, kind: str, position: int) -> bytes:
    """A scalar argument as the bytes of a parameter of PTX type `kind`."""
    whole = isinstance(value, (bool, int, np.bool_, np.integer))
    if not whole and not isinstance(value, (float, np.floating)):
        raise TypeError(f"argument {position}: an array or a number expected, got {type(value).__name__}")
    if is_float(kind):
        return np.array(value, np.float32 if kind == "f32" else np.float64).tobytes()
    if not whole:
        raise TypeError(f"argument {position}: an integer for a parameter of type {kind} expected, got {value!r}")
    bits = 8 * WIDTH[kind]
    if not -(1 << bits - 1) <= int(value) < 1 << bits:
        raise OverflowError(f"argument {position}: {value} does not fit into a parameter of type {kind}")
    return (int(value) % (1 << bits)).to_bytes(bits // 8, "little")


def _parameters(arguments: Sequence[Any], types: Sequence[str]) -> tuple[bytes, list[_Range]]:
    """The parameters' bytes, and the memory that the kernel may touch."""
    wanted = sum(ARRAY_PARAMETERS if isinstance(a, np.ndarray) else 1 for a in arguments)
    if wanted != len(types):
        kinds = ", ".join("array" if isinstance(a, np.ndarray) else type(a).__name__ for a in arguments)
        raise TypeError(f"the kernel has {len(types)} parameters ({', '.join(types)}); the arguments ({kinds}) "
                        f"make {wanted}, an array counting {ARRAY_PARAMETERS}")  # fmt: skip
    data, ranges, k = b"", [], 0
    for position, a in enumerate(arguments):
        if isinstance(a, np.ndarray):
            if not a.flags.c_contiguous:
                raise ValueError(
                    f"argument {position}: a contiguous array expected, got strides {a.strides} for {a.shape}"
                )
            if any(t not in ("u64", "b64") for t in types[k : k + ARRAY_PARAMETERS]):
                raise TypeError(
                    f"argument {position} is an array; the kernel has parameters {types[k : k + ARRAY_PARAMETERS]}"
                )
            begin = a.ctypes.data
            values = (0, 0, a.size, a.itemsize, begin, a.size, a.itemsize)
            pieces = [v.to_bytes(8, "little") for v in values]
            ranges.append(_Range(begin, begin + a.nbytes, a.flags.writeable))
        else:
            if types[k] not in WIDTH:
                raise TypeError(f"argument {position} is a number; the kernel has a parameter of {types[k]}")
            pieces = [_scalar(a, types[k], position)]
        for piece in pieces:
            data += b"\0" * (-len(data) % len(piece)) + piece
        k += len(pieces)
    return data, ranges


def _count_words(ranges: Sequence[_Range]) -> int:
    """Number the 4-byte words of all arrays, those that arrays share but once; return how many there are."""
    words, end, shift = 0, 0, 0
    for r in sorted(ranges, key=lambda r: r.begin or 0):
        begin = (r.begin or 0) // 4
        if begin >= end:
            shift = words - begin
        r.first_word = begin + shift
        end = max(end, -(-(r.end or 0) // 4))
        words = end + shift
    return words


def launch(
    ptx: str,
    *,
    blocks: int,
    threads: int,
    arguments: Sequence[Any],
    shared: int = 0,
    seed: int = 0,
    resident: int | None = None,
    steps: int = 2_000_000_000,
    races: bool = True,
    global_races: bool = True,
) -> None:
    """Run a kernel on NumPy arrays, in place.

    Parameters
    ----------
    ptx : str
        PTX with one .entry, compiled by numba-cuda.
    blocks, threads : int
        The grid and the block, both of one dimension.
    arguments : sequence of arrays and numbers
        One-dimensional array parameters (7 PTX parameters each) and scalars. An array of any shape that is contiguous
        passes as flat. A read-only array must not be written.
    shared : int
        Bytes of dynamic shared memory.
    seed : int
        Of the order in which blocks, warps and threads take their turns.
    resident : int, optional
        Blocks that run at once; the others start as these end. All of them by default, as a cooperative launch has it.
    steps : int
        Turns of loops, plus 16 for each meeting and each access that others watch, after which a run is called endless.
    races, global_races : bool
        Look for races in shared memory, and in the arrays. A word of an array takes 72 bytes for that.

    Raises
    ------
    KernelFault
        One of its subclasses: OutOfBounds, Misaligned, Deadlock, Endless, Diverged, Race.
    PtxError
        An instruction that the emulator does not know.

    """
    translation, library = build(ptx)
    if blocks < 1 or not 1 <= threads <= 1024:
        raise ValueError(f"blocks and threads: at least 1, and at most 1024 threads; got {blocks} and {threads}")
    if shared and not translation.dynamic:
        raise ValueError(f"shared: {shared} bytes, but the kernel has no dynamic shared memory")
    data, ranges = _parameters(arguments, translation.parameters)
    page, words = 4096, _count_words(ranges)
    order = _Launch(
        blocks=blocks, threads=threads, shared_static=translation.shared, shared_dynamic=shared,
        resident=min(blocks, resident or blocks), races=races + 2 * global_races, seed=seed, steps=steps,
        stack=-(-(translation.frame + 16384) // page) * page, parameters=data or b"\0",
        ranges=(_Range * (len(ranges) + 1))(*ranges), range_count=len(ranges), words=words,
    )  # fmt: skip
    fault = _Fault()
    if library.run(ctypes.byref(order), ctypes.byref(fault)):
        kind = FAULTS[fault.kind]
        assert kind is not None
        text = fault.text.decode()
        if fault.line > 0:
            line = " ".join(ptx.splitlines()[fault.line - 1].split())
            text = f"block {fault.block}, thread {fault.thread}, PTX line {fault.line} `{line}`: {text}"
        raise kind(text)
