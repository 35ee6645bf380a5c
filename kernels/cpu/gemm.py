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

from .jit import OPTIONS, Kernel, inner
from .machine import UNIT
from .simd import pointer, register_tile

Array = NDArray[np.floating[Any]]

BLOCK = 128  # of k
ROWS, VECTORS = UNIT.rows, UNIT.vectors


def packed_columns(n: int, dtype: Any) -> int:
    """Columns that n columns take when packed: whole registers."""
    lanes = UNIT.lanes(np.dtype(dtype).itemsize)
    return -(-n // lanes) * lanes


def scratch(dtype: Any) -> Array:
    """Room for one register tile: where a panel's columns are not all real, the tile is computed here."""
    return np.empty(ROWS * VECTORS * UNIT.lanes(np.dtype(dtype).itemsize), dtype)


@inner
def pack(w, n_stride, k_stride, n, k, lanes, out):
    """Pack B[k, n] = w[n·n_stride + k·k_stride]; w and out are flat."""
    o = 0
    for p in range(0, n, VECTORS * lanes):
        width = min(VECTORS, (n - p + lanes - 1) // lanes) * lanes
        real = min(width, n - p)
        for i in range(k):
            row = out[o : o + width]
            base = p * n_stride + i * k_stride
            for j in range(real):
                row[j] = w[base + j * n_stride]
            for j in range(real, width):
                row[j] = 0
            o += width


@Kernel
def pack_all(w, n_stride, k_stride, n, k, lanes, out):
    """`pack`, for Python."""
    pack(w, n_stride, k_stride, n, k, lanes, out)


def packed(w: Array, n_stride: int, k_stride: int, n: int, k: int) -> Array:
    """B[k, n] = w.flat[n·n_stride + k·k_stride], packed."""
    out = np.empty(packed_columns(n, w.dtype) * k, w.dtype)
    arguments = (w.reshape(-1), n_stride, k_stride, n, k, UNIT.lanes(w.itemsize), out)
    pack_all.ready(w.dtype, *arguments)(*arguments)
    return out


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
def product(c, c_at, c_row, a, a_at, a_row, a_column, b, n, k, lanes, rows, edge):
    """c[r, :n] += Σ_i a[r, i] b[i, :n] for `rows` rows; c and a are flat, from c_at and a_at on, with these strides."""
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
                height = (rows - r + tiles - 1) // tiles
                tiles -= 1
                a_0 = pointer(a, a_at + r * a_row + k_0 * a_column)
                if real == width:
                    c_0 = pointer(c, c_at + r * c_row + p)
                    tile(height, vectors, c_0, c_row, a_0, a_row, a_column, b_0, count)
                else:
                    for j in range(height * width):
                        edge[j] = 0
                    tile(height, vectors, pointer(edge, 0), width, a_0, a_row, a_column, b_0, count)
                    for q in range(height):
                        start = c_at + (r + q) * c_row + p
                        to, add = c[start : start + real], edge[q * width : q * width + real]
                        for j in range(real):
                            to[j] += add[j]
                r += height
        panel += k * width
