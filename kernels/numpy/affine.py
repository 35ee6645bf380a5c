"""Equation (1), which both cells share, over all time steps at once.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)

    B batch   T time   I input   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

Only W_hh h_{t-1} has to wait for the step before; the rest is one matrix product for the whole sequence, forward and
backward. That is the one departure here from one line per time step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def input_part(
    x: Array,  # (T, B, I)
    weight_ih: Array,  # (R, I)
    bias_ih: Array,  # (R,)
    bias_hh: Array,  # (R,)
) -> Array:  # (T, B, R)
    """W_ih x_t + b_ih + b_hh for every t."""
    steps, batch, inputs = x.shape
    a_x = x.reshape(steps * batch, inputs) @ weight_ih.T + bias_ih + bias_hh
    return a_x.reshape(steps, batch, weight_ih.shape[0])


def sum_of_products(
    left: Array,  # (N, R)
    right: Array,  # (N, C)
) -> Array:  # (R, C)
    """Σ_n left_n right_nᵀ, summed in √N blocks of √N terms, the blocks in float64.

    One float32 sum of N terms loses about √N roundings, this one about N^¼.
    """
    block = max(1, math.isqrt(len(left)))
    total = np.zeros((left.shape[1], right.shape[1]), np.float64)
    for n in range(0, len(left), block):
        total += left[n : n + block].T @ right[n : n + block]
    return total


def backward(
    da: Array,  # (T, B, R) dL/da_t, zero beyond a sequence's end
    x: Array,  # (T, B, I)
    h: Array,  # (T+1, B, P)
    weight_ih: Array,  # (R, I)
    lengths: NDArray[np.integer[Any]],  # (B,)
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (R, I) out
    dweight_hh: Array,  # (R, P) out
    dbias_ih: Array,  # (R,) out
    dbias_hh: Array,  # (R,) out
) -> None:
    """Undo (1) in everything but h_{t-1}; all steps use the same parameters, so their gradients are sums over t, b."""
    steps, batch, inputs = x.shape
    rows = da.reshape(steps * batch, da.shape[2])
    dx[...] = (rows @ weight_ih).reshape(x.shape)  # undoes (1), in x
    beyond = np.arange(steps)[:, None] >= lengths
    dx[beyond] = 0  # exactly, whatever the weights hold
    dweight_ih[...] = sum_of_products(rows, x.reshape(steps * batch, inputs))  # undoes (1), in W_ih
    h_prev = h[:-1].copy()
    h_prev[beyond] = 0  # a last state may be infinite, and 0 · inf is nan
    dweight_hh[...] = sum_of_products(rows, h_prev.reshape(steps * batch, h.shape[2]))  # undoes (1), in W_hh
    dbias_ih[...] = rows.sum(axis=0, dtype=np.float64)  # undoes (1), in b_ih
    dbias_hh[...] = dbias_ih  # undoes (1), in b_hh
