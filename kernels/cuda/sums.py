"""Everything outside the time loop, forward and backward: equation (1) without h, and the sums over time.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)
    h_t = W_hr m_t   with a projection                                              (5)

    B batch   T time   I input   H hidden   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

One matrix product for each block of time steps, the blocks of `blocks.py` whatever is computed: a product may round
differently for another number of rows. A parameter's gradient is summed block by block, the last block first. Nothing
is added by atomics, so everything repeats bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import blocks
from .gemm import product
from .pointwise import launch
from .pointwise_sums import COLUMNS, add_blocks, add_row, block_sums, lstm_m, where_running

if TYPE_CHECKING:
    from .queue import Queue

Array = Any  # a device array


def time_blocks(steps: int, batch: int) -> list[slice]:
    """The blocks of time steps, from first to last."""
    size = blocks.block_steps_cuda(batch)
    return [slice(start, min(start + size, steps)) for start in range(0, steps, size)]


def flat(array: Array) -> Array:
    """Rows of (t, b): (S, B, N) to (S·B, N)."""
    steps, batch, width = array.shape
    return array.reshape(steps * batch, width)


def bias(
    queue: Queue,
    bias_ih: Array,  # (R,)
    bias_hh: Array,  # (R,)
) -> Array:  # (R,)
    """b_ih + b_hh."""
    both = queue.empty(bias_ih.shape, bias_ih.dtype)
    queue.copy(both, bias_ih)
    add_to_rows(queue, both, bias_hh)
    return both


def add_to_rows(
    queue: Queue,
    array: Array,  # (N, R) or (R,) in and out
    row: Array,  # (R,)
) -> None:
    """Add `row` to each row."""
    launch(add_row(array.dtype.name), queue, array.size, array, row)


def input_part(
    queue: Queue,
    x: Array,  # (T, B, I)
    weight_ih: Array,  # (R, I)
    a_x: Array,  # (T, B, R) out
) -> None:
    """W_ih x_t for every t."""
    for block in time_blocks(*x.shape[:2]):
        product(queue, flat(a_x[block]), flat(x[block]), weight_ih, transpose_b=True)


def input_gradient(
    queue: Queue,
    da: Array,  # (T, B, R)
    weight_ih: Array,  # (R, I)
    dx: Array,  # (T, B, I) out
) -> None:
    """W_ihᵀ da_t for every t."""
    for block in time_blocks(*dx.shape[:2]):
        product(queue, flat(dx[block]), flat(da[block]), weight_ih)


def zeroed_beyond(
    queue: Queue,
    array: Array,  # (T, B, N)
    lengths: Array,  # (B,)
    out: Array,  # (T, B, N) out; may be `array`
) -> None:
    """Copy, with zeros beyond each sequence's end."""
    launch(where_running(array.dtype.name), queue, array.size, array, lengths, array.shape[2], out)


def add_products(
    queue: Queue,
    left: Array,  # (T, B, M)
    right: Array,  # (T, B, N)
    out: Array,  # (M, N) added to
) -> None:
    """Σ_t,b left rightᵀ, the last block first."""
    for block in reversed(time_blocks(*left.shape[:2])):
        product(queue, out, flat(left[block]), flat(right[block]), transpose_a=True, add=True)


def add_sums(
    queue: Queue,
    array: Array,  # (T, B, R)
    *outs: Array,  # (R,) each, added to
) -> None:
    """Σ_t,b, the last block first: each block in float64, then rounded."""
    steps, batch, width = array.shape
    dtype, count = array.dtype.name, len(time_blocks(steps, batch))
    sums = queue.empty((count, width), array.dtype)
    kernel, strips = block_sums(dtype), -(-width // COLUMNS)
    if count:
        kernel.launch(queue, count * strips, array, width, blocks.block_steps_cuda(batch) * batch, sums)
    for out in outs:
        launch(add_blocks(dtype), queue, width, sums, out)


def backward(
    queue: Queue,
    da: Array,  # (T, B, R) dL/da_t, zero beyond a sequence's end
    x: Array,  # (T, B, I)
    h: Array,  # (T, B, P) the states before each step: slots 0 to T-1
    weight_ih: Array,  # (R, I)
    lengths: Array,  # (B,)
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (R, I) added to
    dweight_hh: Array,  # (R, P) added to
    dbias_ih: Array,  # (R,) added to
    dbias_hh: Array,  # (R,) added to
) -> None:
    """Undo (1) in everything but h_{t-1}."""
    input_gradient(queue, da, weight_ih, dx)  # undoes (1), in x
    zeroed_beyond(queue, dx, lengths, dx)  # exactly, whatever the weights hold
    add_products(queue, da, x, dweight_ih)  # undoes (1), in W_ih
    h_prev = queue.empty(h.shape, h.dtype)
    zeroed_beyond(queue, h, lengths, h_prev)  # a last state may be infinite, and 0 · inf is nan
    add_products(queue, da, h_prev, dweight_hh)  # undoes (1), in W_hh
    add_sums(queue, da, dbias_ih, dbias_hh)  # undoes (1), in b_ih and b_hh


def projection_backward(
    queue: Queue,
    dh: Array,  # (T, B, P) total dL/dh_t: slots 1 to T
    gates: Array,  # (T, B, 4H)
    c: Array,  # (T, B, H) slots 1 to T
    dweight_hr: Array,  # (P, H) added to
) -> None:
    """Undo (5) in W_hr."""
    m = queue.empty(c.shape, c.dtype)
    launch(lstm_m(c.dtype.name), queue, c.size, gates, c, c.shape[2], m)
    add_products(queue, dh, m, dweight_hr)  # undoes (5), in W_hr
