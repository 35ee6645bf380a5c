"""The product that a persistent kernel repeats at every time step: z = W s, with W in registers.

    z[r, b] = Σ_k W[r, k] s[b, k]                            r < rows of the block, k < K, b a sample

A block of 256 threads keeps its rows of W for the whole launch; s, the state that all blocks exchange, is staged in
shared memory once per step. A thread holds `rows` × `4·vectors` numbers of W:

    thread = row group · slices + slice            row r = row group · rows + i                         i < rows
                                                   column k = 4 · (j · slices + slice) + e    j < vectors, e < 4

so 16-byte loads of neighbouring threads lie side by side. Its partial sums for `samples` samples at once are added
over the lanes of a warp by exchanging halves: with v values on 2^n lanes a lane sends v/2 values and keeps v/2, and
after n rounds has its share of the sums, for about v shuffles instead of n·v. The order of the additions depends on
`slices` and `vectors` alone, so results repeat bit for bit. Where slices span several warps, what each found is added
in order by whoever reads (`parts` of them).

FMAs of one sample: rows·4·vectors a thread. Bytes from shared memory: 16·vectors a thread. Both in `Tile.clocks`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import vendor

THREADS = 256  # of every persistent kernel: 255 registers each, the most that a thread can name
WARP = 32
HELD = 128  # numbers of W that a thread holds at most: as many again are needed for sums, addresses and loads
UNROLLED = 256  # multiply-adds that NVVM still unrolls; with more, arrays move from registers to local memory


@dataclass(frozen=True)
class Tile:
    """How a block's rows of W lie over its threads."""

    rows: int  # of W, a thread
    vectors: int  # of four columns, a thread
    slices: int  # threads that share a row
    samples: int  # at once

    @property
    def columns(self) -> int:
        """Columns of W with padding: the length of a staged state."""
        return 4 * self.vectors * self.slices

    @property
    def all_rows(self) -> int:
        """Rows of W in the block, with padding."""
        return THREADS // self.slices * self.rows

    @property
    def parts(self) -> int:
        """Warps that share a row: numbers to add for each z."""
        return max(1, self.slices // WARP)

    @property
    def held(self) -> int:
        """Numbers of W in a thread's registers."""
        return 4 * self.rows * self.vectors

    @property
    def clocks(self) -> int:
        """Estimated clocks of one sample on an SM: 128 FMAs or 128 bytes of shared memory each, 32 shuffles each."""
        warps = THREADS // WARP
        multiply_adds, loads, shuffles = warps * self.held // 4, warps * 4 * self.vectors, warps * self.rows
        return max(multiply_adds, loads) + shuffles


def choose(rows: int, columns: int, samples: int) -> Tile | None:
    """The tile of a block with so many rows and columns of W and so many samples, cheapest by `Tile.clocks`.

    None if W does not fit into the registers.

    >>> choose(64, 512, 4)
    Tile(rows=4, vectors=8, slices=16, samples=2)
    """
    found: list[Tile] = []
    for slices in (4, 8, 16, 32, 64, 128, 256):
        vectors = -(-columns // (4 * slices))
        held_rows = 1 << (-(-rows * slices // THREADS) - 1).bit_length()
        if 4 * held_rows * vectors > HELD:
            continue
        at_once = 1
        while 2 * at_once <= min(samples, 4) and 4 * held_rows * vectors * 2 * at_once <= UNROLLED:
            at_once *= 2
        found.append(Tile(held_rows, vectors, slices, at_once))
    return min(found, key=lambda tile: (tile.clocks, tile.slices), default=None)


@functools.cache
def weights(tile: Tile, count: int, depth: int, stride: tuple[int, int, int], hidden: int) -> Callable[..., Any]:
    """Device function that reads a block's part of W into registers, zero where there is none.

    Row g·units + u of the block, column k, is weight[g·stride[0] + (unit + u)·stride[1] + k·stride[2]].
    """
    from numba import cuda, float32

    rows, vectors, slices = tile.rows, tile.vectors, tile.slices
    per_gate, per_unit, per_column = stride
    full = vectors if depth == tile.columns else vectors - 1  # only the last of a thread's vectors reaches into padding

    @cuda.jit(device=True, forceinline=True)
    def load_row(w, at, weight, start, last):
        for j in range(full):  # no question asked: more code, and the loop would not unroll
            for e in range(4):
                w[at + 4 * j + e] = weight[start + (4 * j * slices + e) * per_column]
        for n in range(4 * full, 4 * vectors):
            k = n // 4 * 4 * slices + n % 4
            w[at + n] = weight[start + k * per_column] if k < last else float32(0.0)

    @cuda.jit(device=True, forceinline=True)
    def load(w, weight, unit, units, thread):
        column = thread % slices * 4
        for i in range(rows):
            row = thread // slices * rows + i
            gate, u = row // units, row % units
            if gate < count and unit + u < hidden:
                start = gate * per_gate + (unit + u) * per_unit + column * per_column
                load_row(w, 4 * vectors * i, weight, start, depth - column)
            else:
                for n in range(4 * vectors):
                    w[4 * vectors * i + n] = float32(0.0)

    return load


@functools.cache
def product(tile: Tile) -> Callable[..., Any]:
    """Device function: a thread's partial sums for `tile.samples` samples, added over its warp, into `sums`.

    sums[(part · all_rows + r) · stride + b] for the samples from b on, staged at `at`.
    """
    from numba import cuda, float32, uint32

    rows, vectors, slices, samples, columns = tile.rows, tile.vectors, tile.slices, tile.samples, tile.columns
    all_rows, values, lanes = tile.all_rows, tile.rows * tile.samples, min(WARP, tile.slices)
    share, repeats = max(1, values // lanes), max(1, lanes // values)
    load, add = vendor.shared_load4(), _over_lanes(values, lanes)

    @cuda.jit(device=True, forceinline=True)
    def partial(w, staged, at, thread, acc):
        for v in range(values):
            acc[v] = float32(0.0)
        for b in range(samples):
            for j in range(vectors):
                s = load(staged, at + b * columns + 4 * (j * slices + thread % slices))
                for i in range(rows):
                    for e in range(4):
                        acc[b * rows + i] += w[4 * (i * vectors + j) + e] * s[e]

    @cuda.jit(device=True, forceinline=True)
    def multiply(w, staged, at, thread, acc, sums, b, stride):
        partial(w, staged, at, thread, acc)
        lane, group, part = thread % lanes, thread // slices, thread % slices // WARP
        add(acc, lane)
        if lane % repeats == 0:
            for n in range(share):
                v = lane // repeats * share + n
                row = part * all_rows + group * rows + v % rows
                staged[uint32(sums + row * stride + b + v // rows)] = acc[n]

    return multiply


def _over_lanes(values: int, lanes: int) -> Callable[..., Any]:
    """Device function: add `values` numbers of each lane over `lanes` lanes; every lane keeps its share of the sums."""
    from numba import cuda

    rounds = []
    distance = lanes // 2
    while distance:
        rounds.append(_halve(values, distance) if values > 1 else _both(distance))
        values, distance = max(1, values // 2), distance // 2

    @cuda.jit(device=True, forceinline=True)
    def nothing(acc, lane):
        pass

    first, second, third, fourth, fifth = (rounds + [nothing] * 5)[:5]

    @cuda.jit(device=True, forceinline=True)
    def add(acc, lane):
        first(acc, lane)
        second(acc, lane)
        third(acc, lane)
        fourth(acc, lane)
        fifth(acc, lane)

    return add


def _halve(values: int, distance: int) -> Callable[..., Any]:
    from numba import cuda

    half = values // 2

    @cuda.jit(device=True, forceinline=True)
    def halve(acc, lane):
        upper = lane & distance != 0
        for v in range(half):
            kept, sent = (acc[v + half], acc[v]) if upper else (acc[v], acc[v + half])
            acc[v] = kept + cuda.shfl_xor_sync(0xFFFFFFFF, sent, distance)

    return halve


def _both(distance: int) -> Callable[..., Any]:
    from numba import cuda

    @cuda.jit(device=True, forceinline=True)
    def both(acc, lane):
        acc[0] += cuda.shfl_xor_sync(0xFFFFFFFF, acc[0], distance)

    return both
