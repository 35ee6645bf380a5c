"""What the persistent kernels share: the constants they are compiled with, staging, sums, and their launch.

Shared memory of a block, in numbers:

    staged state (room, columns) | sums (parts, all_rows, stride) | carried (samples, units)

Indices are unsigned where speed counts: Numba takes a signed one from the array's end if it is negative, and asks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import vendor
from .plan import GATES
from .queue import address
from .tile import THREADS, Tile, choose

DeviceArray = Any

LOADS = 4  # of 16 bytes, that a thread waits for at once while it stages


@dataclass(frozen=True)
class Shape:
    """The constants that a kernel is compiled with."""

    cell: str  # "lstm", "rnn_tanh" or "rnn_relu"
    hidden: int
    units: int
    tile: Tile
    vector: bool  # the exchanged state is read 16 bytes at a time
    keep_c: bool = False  # write c_t
    keep_gates: bool = False  # write i, f, g, o
    keep_end: bool = False  # write h and c at each sequence's end

    @property
    def gates(self) -> int:
        """G."""
        return GATES[self.cell.partition("_")[0]]

    @property
    def nonlinearity(self) -> str:
        """φ of an RNN; the LSTM's is tanh."""
        return self.cell.partition("_")[2] or "tanh"


@functools.cache
def stage(shape: Shape, width: int) -> Callable[..., Any]:
    """Device function: samples first..first+count of s (B, width), from element `at` on, into shared memory."""
    from numba import cuda, int64

    columns, load1 = shape.tile.columns, vendor.load1()
    all_four, rest = _vectors(shape, width, LOADS, False), _vectors(shape, width, LOADS - 1, True)

    @cuda.jit(device=True, forceinline=True)
    def by_fours(state, at, first, count, staged, thread):
        start, end, n = at + first * width, count * (width // 4), int64(thread)
        while n + (LOADS - 1) * THREADS < end:
            all_four(state, start, staged, n, end)
            n += LOADS * THREADS
        if n < end:
            rest(state, start, staged, n, end)

    @cuda.jit(device=True, forceinline=True)
    def one_by_one(state, at, first, count, staged, thread):
        for n in range(thread, count * width, THREADS):
            b, k = n // width, n % width
            staged[b * columns + k] = load1(state, at + (first + b) * width + k)

    return by_fours if shape.vector else one_by_one


def _vectors(shape: Shape, width: int, loads: int, checked: bool) -> Callable[..., Any]:
    """Device function: stage so many times 16 bytes, of numbers n, n + THREADS, ..., all on their way at once.

    checked: only those before `end`. Where loads have conditions, the compiler soon runs out of registers for them.
    """
    from numba import cuda, float32, int32, uint32

    load4, store4, held = vendor.load4(), vendor.shared_store4(), 4 * loads
    fours, padding = max(1, width // 4), shape.tile.columns - width

    @cuda.jit(device=True, forceinline=True)
    def vectors(state, start, staged, n, end):
        numbers = cuda.local.array(held, float32)
        for i in range(loads):
            if not checked or n + i * THREADS < end:
                x = load4(state, start + 4 * (n + i * THREADS))
                for e in range(4):
                    numbers[4 * i + e] = x[e]
        for i in range(loads):
            m = n + i * THREADS
            if not checked or m < end:
                b = int32(uint32(m) // uint32(fours))
                x = numbers[4 * i], numbers[4 * i + 1], numbers[4 * i + 2], numbers[4 * i + 3]
                store4(staged, 4 * m + b * padding, x)

    return vectors


@functools.cache
def total(shape: Shape) -> Callable[..., Any]:
    """Device function: z[row, b], added over the warps that share the row."""
    from numba import cuda, uint32

    parts, all_rows = shape.tile.parts, shape.tile.all_rows

    @cuda.jit(device=True, forceinline=True)
    def total(staged, sums, row, b, stride):
        z = staged[uint32(sums + row * stride + b)]
        for part in range(1, parts):
            z += staged[uint32(sums + (part * all_rows + row) * stride + b)]
        return z

    return total


# what tests compile: cell, H, units, samples of a group; the smallest, the odd, and the fullest registers
SAMPLES = [("lstm", 512, 16, 4), ("lstm", 768, 8, 16), ("lstm", 1024, 8, 64), ("lstm", 160, 32, 2), ("lstm", 37, 37, 1),
           ("lstm", 32, 32, 1), ("rnn_tanh", 512, 64, 1), ("rnn_relu", 256, 8, 3)]  # fmt: skip


def shapes(backward: bool = False) -> Iterator[Shape]:
    """Shapes of `SAMPLES`."""
    for cell, hidden, units, samples in SAMPLES:
        gates = GATES[cell.partition("_")[0]]
        tile = choose(units, gates * hidden, samples) if backward else choose(gates * units, hidden, samples)
        if tile is not None:
            yield Shape(cell, hidden, units, tile, hidden % 4 == 0)


def vector(width: int, *arrays: DeviceArray) -> bool:
    """Whether rows of `width` numbers of these arrays can be read 16 bytes at a time."""
    return width % 4 == 0 and all(address(array) % 16 == 0 for array in arrays)
