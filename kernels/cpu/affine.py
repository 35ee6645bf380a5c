"""Equation (1), which both cells share, outside the time loop.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)

    B batch   T time   I input   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

Arrays are flat here: row (t, b) of a (T, B, n) array begins at (t·B + b)·n.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import SUM_ROWS, block_steps
from . import threads
from .gemm import (
    PACKED,
    ROWS,
    pack_columns,
    pack_left,
    pack_rows,
    pack_zeros,
    packed_size,
    product,
    room,
    scratch,
)
from .jit import Call, Kernel, do, inner
from .lengths import all_run, any_runs, ends_early, next_run
from .machine import UNIT
from .plan import workers

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]

STRETCH = 20 * ROWS  # rows of a packed block that stay in the second cache


@Kernel
def pack_forward(weight_ih, weight_hh, inputs, size, groups, hidden, unit, units, lanes, p_ih, p_hh):
    """Pack W_ih and W_hh for the pre-activations of units unit..unit+units: those of each gate side by side."""
    n = groups * units
    pack_rows(weight_ih, unit * inputs, inputs, units, hidden * inputs, n, inputs, lanes, p_ih)
    pack_rows(weight_hh, unit * size, size, units, hidden * size, n, size, lanes, p_hh)


@Kernel
def pack_transposed(weight, rows, width, column, columns, lanes, packed):
    """Pack columns column..column+columns of a weight (rows, width): what Wᵀ is multiplied from."""
    pack_columns(weight, column, width, columns, rows, lanes, packed)


@inner
def add_bias(a, rows, bias):
    """Set each of the rows of `a` to the bias."""
    n = bias.size
    for r in range(rows):
        row = a[r * n : (r + 1) * n]
        for j in range(n):
            row[j] = bias[j]


@inner
def input_part(a, x, batch, inputs, bias, p_ih, lengths, lanes, edge, start, stop, first, last):
    """W_ih x_t + bias for samples first..last and t in start..stop, in rows (t - start, b - first) of a."""
    n, samples = bias.size, last - first
    if samples == batch and all_run(lengths, stop, first, last):  # the rows lie side by side in x too
        rows = (stop - start) * batch
        add_bias(a, rows, bias)
        product(a, np.int64(0), n, x, start * batch * inputs, inputs, p_ih, n, inputs, lanes, rows, edge)
        return
    add_bias(a, (stop - start) * samples, bias)
    if samples >= 2 * ROWS:
        for t in range(start, stop):
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                at, row = (t * batch + b_0) * inputs, (t - start) * samples + b_0 - first
                product(a, row * n, n, x, at, inputs, p_ih, n, inputs, lanes, b_1 - b_0, edge)
                b_0, b_1 = next_run(lengths, t, b_1, last)
    else:  # each sample's own steps: many rows even where few samples are left
        for b in range(first, last):
            count = max(0, min(stop, lengths[b]) - start)
            at, step = (start * batch + b) * inputs, batch * inputs
            product(a, (b - first) * n, samples * n, x, at, step, p_ih, n, inputs, lanes, count, edge)


@Kernel
def preactivations_of(x, inputs, batch, bias, p_ih, p_hh, lengths, h, size, a, lanes, edge, block, first, last):
    """(1) for steps first..last, a block at a time, from every h_{t-1}; beyond an end, a stays as it is."""
    rows = bias.size
    for start in range(first, last, block):
        stop = min(start + block, last)
        if all_run(lengths, stop, 0, batch):
            n, count = start * batch, (stop - start) * batch
            add_bias(a[n * rows :], count, bias)
            product(a, n * rows, rows, x, n * inputs, inputs, p_ih, rows, inputs, lanes, count, edge)
            product(a, n * rows, rows, h, n * size, size, p_hh, rows, size, lanes, count, edge)
        else:
            for t in range(start, stop):
                b_0, b_1 = next_run(lengths, t, 0, batch)
                while b_0 < batch:
                    n, count = t * batch + b_0, b_1 - b_0
                    add_bias(a[n * rows :], count, bias)
                    product(a, n * rows, rows, x, n * inputs, inputs, p_ih, rows, inputs, lanes, count, edge)
                    product(a, n * rows, rows, h, n * size, size, p_hh, rows, size, lanes, count, edge)
                    b_0, b_1 = next_run(lengths, t, b_1, batch)


@Kernel
def products_of(a, k, packed, c, n, batch, lengths, lanes, edge, block, anew, first, last):
    """c_t += W a_t for steps first..last, a block at a time; `anew`: c_t = W a_t, and zero beyond a length."""
    for start in range(first, last, block):
        stop = min(start + block, last)
        row, count = start * batch, (stop - start) * batch
        if anew:
            to = c[row * n : (row + count) * n]
            for j in range(to.size):
                to[j] = 0
        if all_run(lengths, stop, 0, batch):
            product(c, row * n, n, a, row * k, k, packed, n, k, lanes, count, edge)
        else:
            for t in range(start, stop):
                b_0, b_1 = next_run(lengths, t, 0, batch)
                while b_0 < batch:
                    row, count = t * batch + b_0, b_1 - b_0
                    product(c, row * n, n, a, row * k, k, packed, n, k, lanes, count, edge)
                    b_0, b_1 = next_run(lengths, t, b_1, batch)


@inner
def blank(packed, n, width, k, batch, lengths, lanes):
    """Zero the rows of a packed block, rows (t, b) from n on, that lie beyond a sequence's end."""
    for i in range(k):
        if (n + i) // batch >= lengths[(n + i) % batch]:
            pack_zeros(packed, i, width, k, lanes)


@inner
def add_rows(w, at, stride, rows, k, sums):
    """sums[r] += Σ_i w[at + i·stride + r]."""
    for i in range(k):
        start = at + i * stride
        row = w[start : start + rows]
        for r in range(rows):
            sums[r] += row[r]


@Kernel
def weight_gradients(
    da, rows, x, inputs, h, size, batch, steps, block, lengths, dweight_ih, dweight_hh, dbias_ih, dbias_hh,
    lanes, edge, left, right, sums, first, last,
):  # fmt: skip
    """dW_ih = Σ da_t x_tᵀ, dW_hh = Σ da_t h_{t-1}ᵀ, db = Σ da_t for rows first..last of them.

    Added to what is there, the last block of time first; db is summed in float64 within a block.
    """
    count = last - first
    if count == 0:
        return
    for start in range((steps - 1) // block * block, -1, -block):
        if any_runs(lengths, start, batch):
            end = min(start + block, steps) * batch
            for j in range(count):
                sums[j] = 0
            for n in range(start * batch, end, SUM_ROWS):
                k = min(SUM_ROWS, end - n)
                add_rows(da, n * rows + first, rows, count, k, sums)
                pack_left(da, n * rows + first, rows, count, k, left)
                pack_columns(x, n * inputs, inputs, inputs, k, lanes, right)
                for r in range(0, count, STRETCH):
                    height, at = min(STRETCH, count - r), (first + r) * inputs
                    product(dweight_ih, at, inputs, left, r * k, PACKED, right, inputs, k, lanes, height, edge)
                pack_columns(h, n * size, size, size, k, lanes, right)
                blank(right, n, size, k, batch, lengths, lanes)  # a last state may be infinite, and 0 · inf is nan
                for r in range(0, count, STRETCH):
                    height, at = min(STRETCH, count - r), (first + r) * size
                    product(dweight_hh, at, size, left, r * k, PACKED, right, size, k, lanes, height, edge)
            for j in range(count):
                left[j] = sums[j]  # rounded
                dbias_ih[first + j] += left[j]
                dbias_hh[first + j] += left[j]


def flat(array: Array) -> Array:
    """The array in one row; a read-only one copied, since it is another type to Numba, which would compile for it."""
    return (array if array.flags.writeable else array.copy()).reshape(-1)


class Packing:
    """Room for W_ih and W_hh packed for some units, and the call that fills it."""

    def __init__(self, weight_ih: Array, weight_hh: Array, gates: int, unit: int, units: int) -> None:
        (rows, inputs), size, dtype = weight_ih.shape, weight_hh.shape[1], weight_ih.dtype
        split = packed_size(gates * units, inputs, dtype)
        both = room(split + packed_size(gates * units, size, dtype), dtype)
        self.p_ih, self.p_hh = both[:split], both[split:]
        arguments = (
            flat(weight_ih), flat(weight_hh), inputs, size, gates, rows // gates, unit, units,
            UNIT.lanes(weight_ih.itemsize), self.p_ih, self.p_hh,
        )  # fmt: skip
        self.call = pack_forward.ready(dtype, *arguments), arguments

    def now(self) -> Packing:
        """Fill it."""
        kernel, arguments = self.call
        kernel(*arguments)
        return self


def transposed(weight: Array, column: int, columns: int) -> tuple[Array, Call]:
    """Room for columns column..column+columns of W packed for products with Wᵀ, and the call that fills it."""
    rows, width = weight.shape
    packed = room(packed_size(columns, rows, weight.dtype), weight.dtype)
    arguments = (flat(weight), rows, width, column, columns, UNIT.lanes(weight.itemsize), packed)
    return packed, (pack_transposed.ready(weight.dtype, *arguments), arguments)


def packed_transposed(weight: Array) -> Array:
    """W packed for products with Wᵀ."""
    packed, (kernel, arguments) = transposed(weight, 0, weight.shape[1])
    kernel(*arguments)
    return packed


def packed_rows(weight: Array) -> Array:
    """W packed for products with W."""
    return Packing(weight, weight[:, :0], 1, 0, len(weight)).now().p_ih


def preactivations(
    x: Array,  # (T, B, I)
    weight_ih: Array,  # (R, I)
    weight_hh: Array,  # (R, P)
    bias_ih: Array,  # (R,)
    bias_hh: Array,  # (R,)
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, P)
    a: Array,  # (T, B, R) out, zero beyond a sequence's end
) -> None:
    """Equation (1) for all steps at once, given every h: the same sums in the same order as in the time loop."""
    (steps, batch, inputs), (rows, size), dtype = x.shape, weight_hh.shape, x.dtype
    if ends_early(lengths, steps):
        a[...] = 0
    lanes, block = UNIT.lanes(x.itemsize), block_steps(batch)
    weights = Packing(weight_ih, weight_hh, 1, 0, rows).now()
    fixed = (
        flat(x), inputs, batch, bias_ih + bias_hh, weights.p_ih, weights.p_hh, lengths, flat(h),
        size, a.reshape(-1), lanes,
    )  # fmt: skip
    kernel = preactivations_of.ready(dtype, *fixed, scratch(dtype), block, 0, 0)
    spans = threads.split(steps, workers(steps * batch * rows * (inputs + size)))
    threads.run(kernel, [(*fixed, scratch(dtype), block, *span) for span in spans])


def add_products(
    a: Array,  # (T, B, K)
    packed: Array,  # W (N, K), packed for products with it
    lengths: Lengths,  # (B,)
    c: Array,  # (T, B, N) added to
) -> None:
    """c_t += W a_t for every step of every sequence, all at once."""
    (steps, batch, n), k = c.shape, a.shape[2]
    fixed = (flat(a), k, packed, c.reshape(-1), n, batch, lengths, UNIT.lanes(c.itemsize))
    spans = threads.split(steps, workers(steps * batch * n * k))
    calls = [(*fixed, scratch(c.dtype), block_steps(batch), False, *span) for span in spans]
    threads.run(products_of.ready(c.dtype, *fixed, scratch(c.dtype), block_steps(batch), False, 0, 0), calls)


def backward(
    da: Array,  # (T, B, R)
    x: Array,  # (T, B, I)
    h: Array,  # (T+1, B, P)
    weight_ih: Array,  # (R, I)
    lengths: Lengths,  # (B,)
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (R, I) added to
    dweight_hh: Array,  # (R, P) added to
    dbias_ih: Array,  # (R,) added to
    dbias_hh: Array,  # (R,) added to
    dx_anew: bool = True,  # False: to dx, too, it is added
) -> None:
    """Undo (1) in everything but h_{t-1}, given da_t for every t, zero beyond a sequence's end."""
    (steps, batch, inputs), rows, size, dtype = x.shape, da.shape[2], h.shape[2], da.dtype
    lanes, block = UNIT.lanes(da.itemsize), block_steps(batch)
    sums = (
        flat(da), rows, flat(x), inputs, flat(h), size, batch, steps, block, lengths,
        dweight_ih.reshape(-1), dweight_hh.reshape(-1), dbias_ih, dbias_hh, lanes,
    )  # fmt: skip
    right = packed_size(max(inputs, size), SUM_ROWS, dtype)

    def workspace(first: int, last: int) -> tuple[Any, ...]:
        left, totals = room((last - first) * SUM_ROWS, dtype), np.empty(last - first)
        return scratch(dtype), left, room(right, dtype), totals, first, last

    to_x = (flat(da), rows, packed_transposed(weight_ih), dx.reshape(-1), inputs, batch, lengths, lanes)

    def calls(rows_of: tuple[int, int], steps_of: tuple[int, int]) -> tuple[Call, ...]:
        sums_of, x_of = (*sums, *workspace(*rows_of)), (*to_x, scratch(dtype), block, dx_anew, *steps_of)
        return (
            (weight_gradients.ready(dtype, *sums_of), sums_of),  # undoes (1), in W_ih, W_hh, b_ih, b_hh
            (products_of.ready(dtype, *x_of), x_of),  # undoes (1), in x
        )

    busy = workers(steps * batch * rows * (inputs + size))
    spans = zip_longest(threads.split(rows, busy, ROWS), threads.split(steps, busy), fillvalue=(0, 0))
    threads.run(do, [calls(*span) for span in spans])
