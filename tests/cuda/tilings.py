"""The persistent kernels' tiling in NumPy, from `Plan` and `Tile` alone: who holds what, and in which order sums go.

    z[b, r] = Σ_k W[r, k] s[b, k]       W (N, K) as the kernel sees it: W_hh forward, W_hhᵀ backward

Every array has the block's 256 threads as its first axis, so a line here is what all threads do at once. Additions and
roundings are the kernel's, in its order: `product` has the bits of the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchrnn.kernels.cuda.plan import Plan
from scratchrnn.kernels.cuda.tile import THREADS, WARP, Tile

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]
THREAD = np.arange(THREADS)
NOTHING = -1  # in place of a row or a column: a register of padding


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """a b + c, rounded once.

    a b is exact in float64. The sum is rounded to odd there (its last bit is 1 where a bit was lost), so that rounding
    it to float32 sees on which side of the middle it lies: Boldo and Melquiond 2008.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        product, addend = a.astype(np.float64) * b, c.astype(np.float64)
        total = product + addend
        back = total - product
        lost = (product - (total - back)) + (addend - back)
        even = total.view(np.int64) & 1 == 0
        fixed = np.isfinite(total) & (lost != 0) & even
        return np.where(fixed, np.nextafter(total, np.where(lost > 0, np.inf, -np.inf)), total).astype(np.float32)


@dataclass(frozen=True)
class Weights:
    """How the kernel finds its W in W_hh (G·H, H): rows are units, all gates of them (forward), or units (backward)."""

    hidden: int
    gates: int
    backward: bool

    @property
    def depth(self) -> int:
        """K."""
        return self.gates * self.hidden if self.backward else self.hidden

    @property
    def rows_of_a_unit(self) -> int:
        """Rows of W for each unit."""
        return 1 if self.backward else self.gates

    def seen(self, weight_hh: Floats) -> Floats:
        """W."""
        return np.ascontiguousarray(weight_hh.T) if self.backward else weight_hh


def registers(tile: Tile, weights: Weights, unit: int, units: int) -> tuple[Ints, Ints]:
    """Row and column of W in each register of each thread of the block from `unit` on: (256, rows, vectors, 4) each."""
    shape = (THREADS, tile.rows, tile.vectors, 4)
    i, j, e = np.arange(tile.rows)[:, None, None], np.arange(tile.vectors)[:, None], np.arange(4)
    thread = THREAD[:, None, None, None]
    row = np.broadcast_to(thread // tile.slices * tile.rows + i, shape)
    column = np.broadcast_to(4 * (j * tile.slices + thread % tile.slices) + e, shape)
    gate, u = row // units, row % units
    real = (gate < weights.rows_of_a_unit) & (unit + u < weights.hidden) & (column < weights.depth)
    return np.where(real, gate * weights.hidden + unit + u, NOTHING), np.where(real, column, NOTHING)


def staged(tile: Tile, state: Floats) -> Floats:
    """What a block has in shared memory of s (samples, K): zeros from K to `columns`."""
    padded = np.zeros((len(state), tile.columns), np.float32)
    padded[:, : state.shape[1]] = state
    return padded


def partial(tile: Tile, held: Floats, samples: Floats) -> Floats:
    """Own sums of each thread: (256, samples, rows), of held (256, rows, vectors, 4) and samples (samples, columns)."""
    acc = np.zeros((THREADS, len(samples), tile.rows), np.float32)
    for j in range(tile.vectors):
        for e in range(4):
            s = samples[:, 4 * (j * tile.slices + THREAD % tile.slices) + e]  # (samples, 256)
            acc = fma(held[:, None, :, j, e], s.T[:, :, None], acc)
    return acc


def exchange(tile: Tile, acc: Floats) -> tuple[Floats, Ints]:
    """Sums over lanes by exchanging halves: (256, share) each of a sum, and which of the thread's values it is of."""
    values, lanes = acc.shape[1], min(WARP, tile.slices)
    which = np.broadcast_to(np.arange(values), acc.shape)
    distance = lanes // 2
    while distance:
        other = THREAD ^ distance
        if values == 1:
            acc = acc + acc[other]
        else:
            values //= 2
            upper = (THREAD & distance != 0)[:, None]
            lower_half, upper_half = acc[:, :values], acc[:, values:]
            sent = np.where(upper, lower_half, upper_half)
            acc = np.where(upper, upper_half, lower_half) + sent[other]
            which = np.where(upper, which[:, values:], which[:, :values])
        distance //= 2
    return acc, which


def multiply(tile: Tile, held: Floats, samples: Floats) -> Floats:
    """`sums` after one product: (parts, all_rows, samples), what each warp found of each row.

    Raises
    ------
    AssertionError
        An element that no thread writes, or several do.
    """
    acc, which = exchange(tile, partial(tile, held, samples).reshape(THREADS, -1))
    lanes = min(WARP, tile.slices)
    repeats = max(1, lanes // (tile.rows * len(samples)))
    writes = THREAD % lanes % repeats == 0
    part, group = THREAD % tile.slices // WARP, THREAD // tile.slices
    row = group[:, None] * tile.rows + which % tile.rows
    sums = np.full((tile.parts, tile.all_rows, len(samples)), np.nan, np.float32)
    written = np.zeros(sums.shape, np.intp)
    at = np.broadcast_to(part[:, None], row.shape)[writes], row[writes], (which // tile.rows)[writes]
    sums[at] = acc[writes]
    np.add.at(written, at, 1)
    assert (written == 1).all()
    return sums


def blocks(plan: Plan) -> Iterator[tuple[int, int]]:
    """First unit of each block of a group, and how many it has."""
    for block in range(plan.blocks):
        unit = block * plan.units
        yield unit, min(plan.units, plan.hidden - unit)


def groups(plan: Plan, batch: int) -> Iterator[slice]:
    """Samples of each group."""
    for group in range(plan.groups):
        first = group * plan.per_group
        yield slice(first, first + min(plan.per_group, batch - first))


def items(plan: Plan, count: int) -> Iterator[tuple[Ints, Ints]]:
    """Unit and sample of each thread's first item of the pointwise part, of its second, and so on."""
    for start in range(0, plan.units * count, THREADS):
        n = start + THREAD[: plan.units * count - start]
        yield n % plan.units, n // plan.units


def product(plan: Plan, weights: Weights, weight_hh: Floats, state: Floats) -> Floats:
    """z (B, N) of s (B, K), with the device's bits."""
    tile, seen = plan.tile, weights.seen(weight_hh)
    batch, at_once = len(state), plan.tile.samples
    z = np.full((batch, seen.shape[0]), np.nan, np.float32)
    for unit, mine in blocks(plan):
        row, column = registers(tile, weights, unit, plan.units)
        held = np.where(row == NOTHING, np.float32(0), seen[row, column])
        for first in range(0, batch, at_once):
            sums = multiply(tile, held, _filled(staged(tile, state[first : first + at_once]), at_once))
            total = sums[0]
            for part in sums[1:]:
                total = total + part
            for gate in range(weights.rows_of_a_unit):
                of_block = total[gate * plan.units : gate * plan.units + mine, : batch - first]
                at = gate * weights.hidden + unit
                z[first : first + at_once, at : at + mine] = of_block.T
    return z


def _filled(samples: Floats, count: int) -> Floats:
    """As many samples as a product takes: the rest may hold anything."""
    rest = np.full((count - len(samples), samples.shape[1]), np.nan, np.float32)
    return np.concatenate([samples, rest])
