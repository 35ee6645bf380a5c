"""Tangents of equation (1), which both cells share, outside the time loop.

    a_t   = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                   (1)
    a_t'  = W_ih x_t' + W_ih' x_t + b_ih' + b_hh' + W_hh' h_{t-1} + W_hh h_{t-1}'     (1')

    B batch   T time   I input   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM
    z' is the tangent of z, the derivative along the direction u; in code z_dot

Only W_hh h_{t-1}' has to wait for the step before, and on the way back only W_hhᵀ da_t'. The rest is here, in the
blocks of `affine.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine

Array = NDArray[np.floating[Any]]


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (R, I)
    weight_ih_dot: Array,  # (R, I)
    weight_hh_dot: Array,  # (R, P)
    bias_ih_dot: Array,  # (R,) zeros where the layer has none
    bias_hh_dot: Array,  # (R,)
    lengths: NDArray[np.integer[Any]],  # (B,)
    h: Array,  # (T+1, B, P) from forward
    a_dot: Array,  # (T, B, R) out: (1') without W_hh h_{t-1}'
) -> None:
    """All of (1') that needs no step before; zero beyond a sequence's end."""
    for block in affine.time_blocks(*x.shape[:2]):
        rows = affine.flat(x_dot[block]) @ weight_ih.T + affine.flat(x[block]) @ weight_ih_dot.T
        rows += affine.flat(h[block]) @ weight_hh_dot.T + bias_ih_dot + bias_hh_dot
        a_dot[block] = rows.reshape(a_dot[block].shape)  # (1')
        a_dot[block][np.arange(block.start, block.stop)[:, None] >= lengths] = 0


def carried(
    da: Array,  # (T, B, R) dL/da_t, zero beyond a sequence's end
    weight_hh_dot: Array,  # (R, P)
    lengths: NDArray[np.integer[Any]],  # (B,)
    dh_dot: Array,  # (T+1, B, P) added to, in slots 0 to T-1
) -> None:
    """dh_{t-1}' receives W_hh'ᵀ da_t, the part of W_hhᵀ da_t's tangent that needs no step after."""
    for block in affine.time_blocks(*da.shape[:2]):
        carried = (affine.flat(da[block]) @ weight_hh_dot).reshape(dh_dot[block].shape)
        carried[np.arange(block.start, block.stop)[:, None] >= lengths] = 0  # exactly, whatever the weights hold
        dh_dot[block] += carried


def backward(
    da: Array,  # (T, B, R) dL/da_t, zero beyond a sequence's end
    da_dot: Array,  # (T, B, R) likewise
    x: Array,  # (T, B, I)
    x_dot: Array,  # (T, B, I)
    h: Array,  # (T+1, B, P)
    h_dot: Array,  # (T+1, B, P)
    weight_ih: Array,  # (R, I)
    weight_ih_dot: Array,  # (R, I)
    lengths: NDArray[np.integer[Any]],  # (B,)
    dx_dot: Array,  # (T, B, I) out
    dweight_ih_dot: Array,  # (R, I) added to
    dweight_hh_dot: Array,  # (R, P) added to
    dbias_ih_dot: Array,  # (R,) added to
    dbias_hh_dot: Array,  # (R,) added to
) -> None:
    """Tangents of what undoes (1) in everything but h_{t-1}: each is a product da ⊗ z, so da' ⊗ z + da ⊗ z'."""
    affine.backward(
        da_dot, x, h, weight_ih, lengths, dx_dot, dweight_ih_dot, dweight_hh_dot, dbias_ih_dot, dbias_hh_dot
    )
    dx_rest, no_bias = np.empty_like(dx_dot), np.zeros_like(dbias_ih_dot)  # db = Σ da has nothing beside da
    affine.backward(da, x_dot, h_dot, weight_ih_dot, lengths, dx_rest, dweight_ih_dot, dweight_hh_dot, no_bias, no_bias)
    dx_dot += dx_rest
