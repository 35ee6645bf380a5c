"""The vanilla (Elman) RNN, by definition: plain NumPy, one line per equation, float32 and float64.

    B batch   T time   I input   H hidden

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)   (B, H)
    h_t = φ(a_t),   φ = tanh or relu                                                (2)   (B, H)

State arrays have T+1 slots along time: slot 0 is the initial state and slot t+1 is the state after step t, which reads
x[t]. A sequence of length n runs steps 0..n-1; everything later is exactly zero, in both directions of the
computation. The reverse direction of a bidirectional layer is this same code on a reversed sequence.

`infer`, `forward`, `backward`, and (1) once more, `preactivations`, are what a backend offers; they write into arrays
that the caller gives.
Derivation of every backward line: kernels/README.md. Elman 1990; backward through time: Werbos 1990; clip: Graves 2013,
arXiv:1308.0850, section 2.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine
from .lengths import running

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


def step_forward(
    a_x: Array,  # (B, H) this step's part of (1) that needs no h: affine.input_part
    h_prev: Array,  # (B, H)
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
) -> tuple[Array, Array]:  # a (B, H), h (B, H)
    """One time step: equations (1) and (2)."""
    a = a_x + h_prev @ weight_hh.T  # (1)
    h = np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)  # (2)
    return a, h


def step_backward(
    dh: Array,  # (B, H) total dL/dh_t
    h: Array,  # (B, H)
    weight_hh: Array,  # (H, H)
    nonlinearity: str,
    clip: float,  # bound of |da|; inf: none
) -> tuple[Array, Array]:  # da (B, H), dh_prev (B, H)
    """One time step back: each line undoes the forward line that it names, last line first."""
    # undoes (2): tanh' = 1-tanh²; relu' = 0 at 0 and below, and a nan lets the gradient through, both as in torch
    da = dh * (1 - h**2) if nonlinearity == "tanh" else np.where(h <= 0, 0, dh)
    da = da if clip == math.inf else np.clip(da, -clip, clip)  # a nan stays
    dh_prev = da @ weight_hh  # undoes (1), in h_prev
    return da, dh_prev


def infer(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    h_0: Array,  # (B, H)
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    output: Array,  # (T, B, H) out
    h_n: Array,  # (B, H) out: h at each sequence's own end
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    h_n[...] = h_0
    output[...] = 0
    for t, a_x in enumerate(affine.input_part(x, weight_ih, bias_ih, bias_hh)):
        b = running(lengths, t)
        _, h_n[b] = step_forward(a_x[b], h_n[b], weight_hh, nonlinearity)
        output[t][b] = h_n[b]


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) slot 0 in: the initial state; slots 1..T out
) -> None:
    """The whole sequence, keeping every state."""
    h[1:] = 0
    for t, a_x in enumerate(affine.input_part(x, weight_ih, bias_ih, bias_hh)):
        b = running(lengths, t)
        _, h[t + 1][b] = step_forward(a_x[b], h[t][b], weight_hh, nonlinearity)


preactivations = affine.preactivations  # (1) is the same in both cells


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) from forward
    clip: float,  # bound of each |dL/da_t|, before it flows on; inf: none
    dh: Array,  # (T+1, B, H) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    da: Array,  # (T, B, H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (H, I) added to
    dweight_hh: Array,  # (H, H) added to
    dbias_ih: Array,  # (H,) added to
    dbias_hh: Array,  # (H,) added to
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter.

    The parameters' gradients are added to what the caller put there: zeros, or those of the steps that follow these.
    """
    da[...] = 0
    for t in reversed(range(x.shape[0])):
        b = running(lengths, t)
        da[t][b], dh_prev = step_backward(dh[t + 1][b], h[t + 1][b], weight_hh, nonlinearity, clip)
        dh[t][b] += dh_prev

    affine.backward(da, x, h, weight_ih, lengths, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh)  # undoes (1)
