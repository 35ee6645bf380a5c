"""Kernels of `sums.py`: what the sums over time need beside matrix products.

    B batch   T time   H hidden   R rows of the weights

One thread for each number, but for `block_sums`: there a thread block has COLUMNS columns times LANES lanes. Lane l
sums rows l, l + LANES, ... of its column, and the lanes are then added in a tree of fixed shape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from .kernel import Kernel
from .pointwise import constants, one_thread_each, tanh

COLUMNS = 32  # a warp reads this many neighbours of one row
LANES = 16  # a power of two


@functools.cache
def add_row(dtype: str) -> Kernel:
    """Add a row to every row of an array."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            array,  # (N, R)
            row,  # (R,)
        ):
            n = cuda.grid(1)
            if n < array.size:
                array[n] += row[n % row.size]

        return kernel

    return one_thread_each(f"add_row_{dtype}", build, f"{dtype}[::1], {dtype}[::1]")


@functools.cache
def where_running(dtype: str) -> Kernel:
    """Copy what belongs to a step that runs, and write zero elsewhere."""

    def build() -> Callable[..., None]:
        from numba import cuda

        (zero,) = constants(dtype, 0)

        def kernel(
            array,  # (T, B, N)
            lengths,  # (B,)
            width,  # N
            out,  # (T, B, N) out; may be `array`
        ):
            n = cuda.grid(1)
            if n >= array.size:
                return
            t, b = n // width // lengths.size, n // width % lengths.size
            out[n] = array[n] if t < lengths[b] else zero

        return kernel

    return one_thread_each(f"where_running_{dtype}", build, f"{dtype}[::1], int32[::1], int32, {dtype}[::1]")


@functools.cache
def lstm_m(dtype: str) -> Kernel:
    """Equation (4) of the LSTM once more: m_t = o tanh(c_t), zero beyond a sequence's end as o and c are."""

    def build() -> Callable[..., None]:
        from numba import cuda

        tanh_ = tanh(dtype)

        def kernel(
            gates,  # (T, B, 4H)
            c,  # (T, B, H) slots 1 to T
            hidden,
            m,  # (T, B, H) out
        ):
            n = cuda.grid(1)
            if n >= c.size:
                return
            o = gates[n // hidden * 4 * hidden + 3 * hidden + n % hidden]
            m[n] = o * tanh_(c[n])  # (4)

        return kernel

    return one_thread_each(f"lstm_m_{dtype}", build, f"{dtype}[::1], {dtype}[::1], int32, {dtype}[::1]")


@functools.cache
def block_sums(dtype: str) -> Kernel:
    """The sum over the rows of each block of rows, in float64, rounded at the end."""
    columns, lanes = COLUMNS, LANES

    def build() -> Callable[..., None]:
        from numba import cuda, float64

        threads = columns * lanes
        (zero,) = constants("float64", 0)

        def kernel(
            array,  # (N, R)
            width,  # R
            rows,  # of a block; the last may have fewer
            sums,  # (blocks, R) out
        ):
            strips = (width + columns - 1) // columns
            block, strip = cuda.blockIdx.x // strips, cuda.blockIdx.x % strips
            thread = cuda.threadIdx.x
            lane, column = thread // columns, strip * columns + thread % columns
            partial = cuda.shared.array(threads, float64)
            total = zero
            if column < width:
                for row in range(block * rows + lane, min((block + 1) * rows, array.size // width), lanes):
                    total += array[row * width + column]
            partial[thread] = total
            cuda.syncthreads()
            half = lanes // 2
            while half > 0:
                if lane < half:
                    partial[thread] += partial[thread + half * columns]
                cuda.syncthreads()
                half //= 2
            if lane == 0 and column < width:
                sums[block * width + column] = partial[thread]

        return kernel

    return Kernel(f"block_sums_{dtype}", build, f"{dtype}[::1], int32, int32, {dtype}[::1]", columns * lanes)


@functools.cache
def add_blocks(dtype: str) -> Kernel:
    """Add the blocks' sums one by one, the last block first."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            sums,  # (blocks, R)
            out,  # (R,) added to
        ):
            n, width = cuda.grid(1), out.size
            if n >= width:
                return
            total = out[n]
            for block in range(sums.size // width - 1, -1, -1):
                total += sums[block * width + n]
            out[n] = total

        return kernel

    return one_thread_each(f"add_blocks_{dtype}", build, f"{dtype}[::1], {dtype}[::1]")


def kernels() -> Iterator[Kernel]:
    """Every kernel of this file."""
    for dtype in ("float32", "float64"):
        for make in (add_row, where_running, lstm_m, block_sums, add_blocks):
            yield make(dtype)
