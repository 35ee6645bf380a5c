"""Equation (1), which both cells share, outside the time loop.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)

    B batch   T time   I input   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

Arrays are flat here: row (t, b) of a (T, B, n) array begins at (t·B + b)·n.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import threads
from .gemm import BLOCK, ROWS, pack, packed, packed_columns, product, scratch
from .jit import Kernel, inner
from .machine import UNIT

Array = NDArray[np.floating[Any]]

LEAST_BLOCK = 16  # of a sum over time: below this the tile's own cost shows


@inner
def input_part(a, a_step, a_at, x, batch, inputs, bias, p_ih, lanes, edge, b, start, stop):
    """W_ih x_t + bias of sample b for t in start..stop, in rows of a: the first at a_at, then every a_step."""
    n = bias.size
    for t in range(stop - start):
        row = a[a_at + t * a_step : a_at + t * a_step + n]
        for j in range(n):
            row[j] = bias[j]
    at = (start * batch + b) * inputs
    product(a, a_at, a_step, x, at, batch * inputs, 1, p_ih, n, inputs, lanes, stop - start, edge)


@Kernel
def input_gradient(da, dx, p_ih, batch, rows, inputs, lengths, steps, lanes, edge, first, last):
    """dx_t = W_ihᵀ da_t for a range of (sample, block of steps), zero beyond a length."""
    blocks = (steps + BLOCK - 1) // BLOCK
    for item in range(first, last):
        b, start = item // blocks, item % blocks * BLOCK
        stop = min(start + BLOCK, steps)
        for t in range(start, stop):
            row = dx[(t * batch + b) * inputs : (t * batch + b + 1) * inputs]
            for j in range(inputs):
                row[j] = 0
        n = start * batch + b
        count = max(0, min(stop, lengths[b]) - start)
        product(dx, n * inputs, batch * inputs, da, n * rows, batch * rows, 1, p_ih, inputs, rows, lanes, count, edge)


@Kernel
def sum_of_products(out, left, left_width, right, right_width, count, block, lanes, edge, room, first, last):
    """out[r, :] = Σ_n left[n, r] right[n, :] for r in first..last, n in blocks; room for one packed block of right."""
    own = out[first * right_width : last * right_width]
    for j in range(own.size):
        own[j] = 0
    for n in range(0, count, block):
        k = min(block, count - n)
        pack(right[n * right_width :], 1, right_width, right_width, k, lanes, room)
        at = n * left_width + first
        product(own, 0, right_width, left, at, 1, left_width, room, right_width, k, lanes, last - first, edge)


@Kernel
def column_sums(out, left, width, count, sums, first, last):
    """out[r] = Σ_n left[n, r] for r in first..last, summed in float64."""
    for j in range(last - first):
        sums[j] = 0
    for n in range(count):
        row = left[n * width + first : n * width + last]
        for j in range(last - first):
            sums[j] += row[j]
    for j in range(last - first):
        out[first + j] = sums[j]


def products_in_parallel(out: Array, left: Array, right: Array, workers: int) -> None:
    """out (R, C) = Σ over all leading axes of left (..., R) ᵀ right (..., C), rows of out split over threads.

    In √N blocks of √N terms, which together lose N^¼ roundings, not √N.
    """
    rows, wide = out.shape
    count = left.size // rows if rows else 0
    block = min(BLOCK, max(LEAST_BLOCK, math.isqrt(count)))
    lanes, room = UNIT.lanes(out.itemsize), block * packed_columns(wide, out.dtype)
    fixed = (out.reshape(-1), left.reshape(-1), rows, right.reshape(-1), wide, count, block, lanes)
    kernel = sum_of_products.ready(out.dtype, *fixed, scratch(out.dtype), np.empty(0, out.dtype), 0, 0)

    def task(_: int, first: int, last: int) -> None:
        kernel(*fixed, scratch(out.dtype), np.empty(room, out.dtype), first, last)

    threads.run(task, threads.split(rows, workers, ROWS))


def backward(
    da: Array,  # (T, B, R)
    x: Array,  # (T, B, I)
    h: Array,  # (T+1, B, P)
    weight_ih: Array,  # (R, I)
    lengths: NDArray[np.integer[Any]],  # (B,)
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (R, I) out
    dweight_hh: Array,  # (R, P) out
    dbias_ih: Array,  # (R,) out
    dbias_hh: Array,  # (R,) out
    workers: int,
) -> None:
    """Undo (1) in everything but h_{t-1}, given da_t for every t, zero beyond a sequence's end."""
    steps, batch, inputs = x.shape
    rows = da.shape[2]
    lanes = UNIT.lanes(da.itemsize)
    p_ih = packed(weight_ih, 1, inputs, inputs, rows)
    fixed = (da.reshape(-1), dx.reshape(-1), p_ih, batch, rows, inputs, lengths, steps, lanes)
    kernel = input_gradient.ready(da.dtype, *fixed, scratch(da.dtype), 0, 0)

    def task(_: int, first: int, last: int) -> None:
        kernel(*fixed, scratch(da.dtype), first, last)

    threads.run(task, threads.split(batch * -(-steps // BLOCK), workers))  # undoes (1), in x
    products_in_parallel(dweight_ih, da, x, workers)  # undoes (1), in W_ih
    h_prev = h[:-1]
    beyond = np.arange(steps)[:, None] >= lengths
    if beyond.any():
        h_prev = h_prev.copy()
        h_prev[beyond] = 0  # a last state may be infinite, and 0 · inf is nan
    products_in_parallel(dweight_hh, da, h_prev, workers)  # undoes (1), in W_hh
    sums = (dbias_ih, da.reshape(-1), rows, steps * batch, np.empty(rows), 0, rows)
    column_sums.ready(da.dtype, *sums)(*sums)  # undoes (1), in b_ih
    dbias_hh[...] = dbias_ih  # undoes (1), in b_hh
