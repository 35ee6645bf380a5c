"""C += A·B with B packed: the one matrix product of these kernels.

    B (K, N) is packed into panels of a few registers' width, [panel][k][columns], the last one padded with zeros.
    C (M, N) is computed in register tiles, k in blocks: a block is summed from zero in registers, then added to C.

An element of C is the same sum in the same order whatever tile, panel or thread it falls into, so results do not
depend on the number of threads. Blocks of k bound the rounding error, as sums of short sums do, and let a panel stay
in the first cache while it meets all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .. import memory
from .jit import OPTIONS, inner
from .machine import UNIT
from .simd import copy, pointer, register_tile, transpose

Array = NDArray[np.floating[Any]]

BLOCK = 128  # of k
STRIP = 16  # rows that are packed together: their lines fit the first cache
ROWS, VECTORS = UNIT.rows, UNIT.vectors
PACKED = np.int64(0)  # row stride of a left factor from `pack_left`; an int would be another type, compiled for anew


def packed_size(n: int, k: int, dtype: np.dtype[Any]) -> int:
    """Numbers that k rows of n columns take when packed: whole registers."""
    lanes = UNIT.lanes(dtype.itemsize)
    return -(-n // lanes) * lanes * k


def room(n: int, dtype: np.dtype[Any]) -> Array:
    """Room for n numbers; if they are many, on memory used before, and from the start of a cache line on."""
    return memory.empty((n,), dtype)


def scratch(dtype: np.dtype[Any]) -> Array:
    """Room for one register tile: where a panel's columns are not all real, the tile is computed here."""
    return room(ROWS * VECTORS * UNIT.bits // (8 * dtype.itemsize), dtype)


@inner
def pack_rows(w, at, stride, per, skip, n, k, lanes, out):
    """Pack B[i, j] = w[at + row(j) + i] for n columns j and k rows i; column j is a row of w, contiguous in i.

    row(j) = (j mod per)·stride + (j div per)·skip: `per` rows of each of several groups, such as gates.
    """
    o = 0
    for p in range(0, n, VECTORS * lanes):
        width = min(VECTORS, (n - p + lanes - 1) // lanes) * lanes
        for j_0 in range(0, width, lanes):
            column = p + j_0
            begin = at + column % per * stride + column // per * skip
            in_squares = k // lanes * lanes if column % per + lanes <= per and column + lanes <= n else 0
            for i_0 in range(0, in_squares, lanes):
                transpose(pointer(out, o + i_0 * width + j_0), width, pointer(w, begin + i_0), stride)
            for j in range(j_0, j_0 + lanes):
                if p + j < n:
                    start = at + (p + j) % per * stride + (p + j) // per * skip
                    for i in range(in_squares, k):
                        out[o + i * width + j] = w[start + i]
                else:
                    for i in range(k):
                        out[o + i * width + j] = 0
        o += k * width


@inner
def pack_columns(w, at, stride, n, k, lanes, out):
    """Pack B[i, j] = w[at + i·stride + j] for n columns j and k rows i; row i is contiguous in j."""
    o = 0
    for p in range(0, n, VECTORS * lanes):
        width = min(VECTORS, (n - p + lanes - 1) // lanes) * lanes
        real = min(width, n - p)
        for i in range(k):
            start = at + i * stride + p
            row, to = w[start : start + real], out[o : o + width]
            for j in range(real):
                to[j] = row[j]
            for j in range(real, width):
                to[j] = 0
            o += width


def _every_tile() -> Any:
    """One call of `register_tile` for each height and width: its two sizes must be literal."""
    lines = ["def tile(height, vectors, c, c_row, a, a_row, a_column, b, count):"]
    for v in range(1, VECTORS + 1):
        lines.append(f"    {'if' if v == 1 else 'elif'} vectors == {v}:")
        for r in range(1, ROWS + 1):
            lines.append(f"        {'if' if r == 1 else 'elif'} height == {r}:")
            lines.append(f"            register_tile({r}, {v}, c, c_row, a, a_row, a_column, b, count)")
    scope: dict[str, Any] = {"register_tile": register_tile}
    exec("\n".join(lines), scope)
    return njit(**OPTIONS)(scope["tile"])


tile = _every_tile()


@inner
def pack_zeros(packed, i, n, k, lanes):
    """Zero row i of a packed block of n columns and k rows."""
    o = 0
    for p in range(0, n, VECTORS * lanes):
        width = min(VECTORS, (n - p + lanes - 1) // lanes) * lanes
        row = packed[o + i * width : o + (i + 1) * width]
        for j in range(width):
            row[j] = 0
        o += k * width


@inner
def pack_left(w, at, stride, rows, k, left):
    """Pack A[r, i] = w[at + i·stride + r] as [tile][i][r].

    Walking down the columns of a wide array, tile by tile, would meet each of its cache lines again and again.
    """
    for i_0 in range(0, k, STRIP):
        i_1 = min(i_0 + STRIP, k)
        for r in range(0, rows, ROWS):
            height = min(ROWS, rows - r)
            o = r * k
            if height == ROWS:
                for i in range(i_0, i_1):
                    copy(ROWS, pointer(left, o + i * ROWS), pointer(w, at + i * stride + r))
            else:
                for i in range(i_0, i_1):
                    start = at + i * stride + r
                    row, to = w[start : start + height], left[o + i * height : o + (i + 1) * height]
                    for q in range(height):
                        to[q] = row[q]


@inner
def tile_at_edge(height, vectors, c, c_at, c_row, real, a, a_row, a_column, b, count, lanes, edge):
    """`tile` where only `real` columns of a panel exist: in scratch memory, then added."""
    width = vectors * lanes
    for j in range(height * width):
        edge[j] = -0.0  # the one number that changes nothing it is added to
    tile(height, vectors, pointer(edge, 0), width, a, a_row, a_column, b, count)
    for q in range(height):
        start = c_at + q * c_row
        to, add = c[start : start + real], edge[q * width : q * width + real]
        for j in range(real):
            to[j] += add[j]


@inner
def product(c, c_at, c_row, a, a_at, a_row, b, n, k, lanes, rows, edge):
    """c[r, :n] += Σ_i a[r, i] b[i, :n] for `rows` rows; c and a are flat, from c_at and a_at on, with these strides.

    a_row = PACKED: `pack_left` made A.
    """
    panel = 0
    for p in range(0, n, VECTORS * lanes):
        vectors = min(VECTORS, (n - p + lanes - 1) // lanes)
        width = vectors * lanes
        real = min(width, n - p)
        for k_0 in range(0, k, BLOCK):
            count = min(BLOCK, k - k_0)
            b_0 = pointer(b, panel + k_0 * width)
            tiles = (rows + ROWS - 1) // ROWS  # of nearly equal height
            r = 0
            while r < rows:
                if a_row != PACKED:
                    height, row, column = (rows - r + tiles - 1) // tiles, a_row, 1
                    a_0 = pointer(a, a_at + r * a_row + k_0)
                else:
                    height = min(ROWS, rows - r)
                    row, column = 1, height
                    a_0 = pointer(a, a_at + r * k + k_0 * height)
                tiles -= 1
                c_0 = c_at + r * c_row + p
                if real == width:
                    tile(height, vectors, pointer(c, c_0), c_row, a_0, row, column, b_0, count)
                else:
                    tile_at_edge(height, vectors, c, c_0, c_row, real, a_0, row, column, b_0, count, lanes, edge)
                r += height
        panel += k * width
