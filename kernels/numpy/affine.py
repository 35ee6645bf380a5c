"""Equation (1), which both cells share, outside the time loop.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)

    B batch   T time   I input   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

Only W_hh h_{t-1} has to wait for the step before. The rest is one matrix product for each block of time steps, forward
and backward; that is the one departure here from one line per time step. The blocks are those of `blocks.py`, whatever
is computed, since a matrix product may round differently for another number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import block_steps
from .lengths import running

Array = NDArray[np.floating[Any]]


def time_blocks(steps: int, batch: int) -> list[slice]:
    """The blocks of time steps, from first to last."""
    size = block_steps(batch)
    return [slice(start, min(start + size, steps)) for start in range(0, steps, size)]


def flat(array: Array) -> Array:
    """Rows of (t, b): (S, B, N) to (S·B, N)."""
    steps, batch, width = array.shape
    return array.reshape(steps * batch, width)


def input_part(
    x: Array,  # (T, B, I)
    weight_ih: Array,  # (R, I)
    bias_ih: Array,  # (R,)
    bias_hh: Array,  # (R,)
) -> Iterator[Array]:  # T times (B, R)
    """W_ih x_t + b_ih + b_hh, one t after the other."""
    steps, batch, _ = x.shape
    for block in time_blocks(steps, batch):
        a_x = flat(x[block]) @ weight_ih.T + bias_ih + bias_hh
        yield from a_x.reshape(block.stop - block.start, batch, weight_ih.shape[0])


def preactivations(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (R, I)
    weight_hh: Array,  # (R, P)
    bias_ih: Array,  # (R,) zeros where the layer has none
    bias_hh: Array,  # (R,)
    lengths: NDArray[np.integer[Any]],  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from forward
    a: Array,  # (T, B, R) out: pre-activations
) -> None:
    """(1) once more, now that every h is known: bit for bit what forward computed on the way."""
    a[...] = 0
    for t, a_x in enumerate(input_part(x, weight_ih, bias_ih, bias_hh)):
        b = running(lengths, t)
        a[t][b] = a_x[b] + h[t][b] @ weight_hh.T  # (1)


def backward(
    da: Array,  # (T, B, R) dL/da_t, zero beyond a sequence's end
    x: Array,  # (T, B, I)
    h: Array,  # (T+1, B, P)
    weight_ih: Array,  # (R, I)
    lengths: NDArray[np.integer[Any]],  # (B,)
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (R, I) added to
    dweight_hh: Array,  # (R, P) added to
    dbias_ih: Array,  # (R,) added to
    dbias_hh: Array,  # (R,) added to
) -> None:
    """Undo (1) in everything but h_{t-1}; all steps use the same parameters, so their gradients are sums over t, b."""
    steps, batch, _ = x.shape
    for block in reversed(time_blocks(steps, batch)):
        rows = flat(da[block])
        beyond = np.arange(block.start, block.stop)[:, None] >= lengths
        dx[block] = (rows @ weight_ih).reshape(x[block].shape)  # undoes (1), in x
        dx[block][beyond] = 0  # exactly, whatever the weights hold
        dweight_ih += rows.T @ flat(x[block])  # undoes (1), in W_ih
        h_prev = h[block].copy()
        h_prev[beyond] = 0  # a last state may be infinite, and 0 · inf is nan
        dweight_hh += rows.T @ flat(h_prev)  # undoes (1), in W_hh
        dbias = rows.sum(axis=0, dtype=np.float64).astype(da.dtype)
        dbias_ih += dbias  # undoes (1), in b_ih
        dbias_hh += dbias  # undoes (1), in b_hh
