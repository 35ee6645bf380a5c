"""In the child process: the stub driver's controls, and the emulator behind its launches, attached on import."""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.cuda import emulator
from tests.cuda.emulator.parse import WIDTH
from tests.cuda.emulator.run import ARRAY_PARAMETERS, build

FOLDER = Path(os.environ["STUB_DRIVER"])
LETTERS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s8": "b", "s16": "h", "s32": "i", "s64": "q",
           "b8": "B", "b16": "H", "b32": "I", "b64": "Q", "f32": "f", "f64": "d"}  # fmt: skip

stub = ctypes.CDLL(str(FOLDER / "libcuda.so.1"))
stub.stub_count.restype = stub.stub_calls.restype = ctypes.c_long
_cublas = ctypes.CDLL(str(FOLDER / "libcublas.so"))


@dataclass(frozen=True)
class Launched:
    """A launch, as the driver was asked for it."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    cooperative: bool
    stream: int
    parameters: bytes


launched: list[Launched] = []  # all of them, in the order in which they ran


def count(what: str) -> int:
    """Of live streams, events, graphs, executables, pools, allocations, libraries, handles; of launches, violations."""
    if what == "handles":
        return ctypes.c_long.in_dll(_cublas, "live_handles").value
    return int(stub.stub_count(what.encode()))


def calls(name: str) -> int:
    """How often the driver's function of this name was called."""
    return int(stub.stub_calls(name.encode()))


def fail(name: str, status: int, *, on: int = 1) -> None:
    """Let a call of this name fail: the next, or one after it. It does nothing then."""
    stub.stub_fail(name.encode(), ctypes.c_long(on), status)


def lazy(on: bool = True) -> None:
    """Run what is queued only when somebody waits for it."""
    stub.stub_lazy(int(on))


_ptx: dict[int, tuple[str, str]] = {}


def _ptx_of(kernel: int, name: str) -> str:
    """What numba-cuda compiled under this name, found among all that lives."""
    if kernel not in _ptx or _ptx[kernel][0] != name:
        from numba.cuda.codegen import CUDACodeLibrary

        found = (o for o in gc.get_objects() if type(o) is CUDACodeLibrary and o._entry_name == name)
        _ptx[kernel] = name, next(found).get_asm_str()
    return _ptx[kernel][1]


def _arguments(types: list[str], block: bytes) -> list[Any]:
    """A parameter block as the emulator's arguments: arrays on the driver's memory, and numbers."""
    values, at = [], 0
    for kind in types:
        at += -at % (WIDTH[kind])
        values.append(struct.unpack_from(LETTERS[kind], block, at)[0])
        at += WIDTH[kind]
    arguments: list[Any] = []
    while values:
        words, kinds = values[:ARRAY_PARAMETERS], types[-len(values) :][:ARRAY_PARAMETERS]
        wide = len(words) == ARRAY_PARAMETERS and all(kind in ("u64", "b64") for kind in kinds)
        if wide and words[:2] == [0, 0] and words[2:4] == words[5:7]:
            size, itemsize, address = words[2:5]
            if size and not stub.stub_find(ctypes.c_void_p(address), ctypes.c_size_t(size * itemsize)):
                raise emulator.OutOfBounds(f"an array of {size} x {itemsize} bytes at {address:#x}: not the device's")
            memory = (ctypes.c_uint8 * (size * itemsize)).from_address(address) if size else b""
            arguments.append(np.frombuffer(memory, f"u{itemsize}"))
            del values[:ARRAY_PARAMETERS]
        else:
            arguments.append(values.pop(0))
    return arguments


@ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint,
)  # fmt: skip
def _run(
    kernel: int, name: bytes, grid: Any, block: Any, shared: int, cooperative: int, stream: int, at: int, size: int
) -> int:
    try:
        found = Launched(
            name.decode(), tuple(grid[:3]), tuple(block[:3]), shared, bool(cooperative), stream or 0,
            ctypes.string_at(at, size),
        )  # fmt: skip
        launched.append(found)
        ptx = _ptx_of(kernel, found.name)
        translation, _ = build(ptx)
        blocks = found.grid[0]
        emulator.launch(
            ptx, blocks=blocks, threads=found.block[0], shared=shared if translation.dynamic else 0,
            arguments=_arguments(translation.parameters, found.parameters),
            resident=blocks if cooperative else 132, races=False, global_races=False,
        )  # fmt: skip
    except BaseException:  # noqa: BLE001 - C calls this
        traceback.print_exc(file=sys.stderr)
        return 1
    return 0


stub.stub_callback(_run)


def _redirect_cublas() -> None:
    """Only cuBLAS is found elsewhere than on a machine with a GPU."""
    from cuda import pathfinder

    load = pathfinder.load_nvidia_dynamic_lib

    def found(name: str) -> Any:
        if name != "cublas":
            return load(name)
        return type("Loaded", (), {"abs_path": str(FOLDER / "libcublas.so")})

    pathfinder.load_nvidia_dynamic_lib = found


_redirect_cublas()
