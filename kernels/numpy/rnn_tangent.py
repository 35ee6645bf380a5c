"""Tangents of the vanilla RNN, by definition: how everything in `rnn.py` changes along a direction.

    B batch   T time   I input   H hidden
    z' = dz/dε at ε = 0, as x, the weights and the initial state move by ε times their own tangents; in code z_dot

    a_t' = W_ih x_t' + W_ih' x_t + b_ih' + b_hh' + W_hh' h_{t-1} + W_hh h_{t-1}'        (1')   (B, H)
    h_t' = φ'(a_t) ⊙ a_t'                                                           (2')   (B, H)

`forward` is these lines. `backward` is the same done to every line of `rnn.backward`, that is, to a gradient: with the
loss's own second derivatives in its cotangents it gives the Hessian times the direction (Pearlmutter, Fast exact
multiplication by the Hessian, 1994: the operator R). Slots, lengths and order are those of `rnn.py`; what is beyond a
sequence's end is exactly zero. Derivation: kernels/README.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine_tangent
from .lengths import running

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


def step_forward(
    a_dot: Array,  # (B, H)
    h: Array,  # (B, H) after the step
    nonlinearity: str,  # "tanh" or "relu"
) -> Array:  # h_dot (B, H)
    """(2'): tanh' = 1-tanh²; relu' = 0 at 0 and below, and a nan lets the tangent through, both as in torch."""
    return a_dot * (1 - h**2) if nonlinearity == "tanh" else np.where(h <= 0, 0, a_dot)  # (2')


def step_backward(
    da: Array,  # (B, H) dL/da_t
    dh_dot: Array,  # (B, H) total
    h: Array,  # (B, H)
    a_dot: Array,  # (B, H)
    nonlinearity: str,
) -> Array:  # da_dot (B, H)
    """Tangent of da = dh ⊙ φ'(a): tanh'' = -2 tanh tanh', and relu has none."""
    if nonlinearity == "tanh":
        return dh_dot * (1 - h**2) - 2 * h * da * a_dot
    return np.where(h <= 0, 0, dh_dot)


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    weight_ih_dot: Array,  # (H, I)
    weight_hh_dot: Array,  # (H, H)
    bias_ih_dot: Array,  # (H,) zeros where the layer has none
    bias_hh_dot: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) from rnn.forward
    h_dot: Array,  # (T+1, B, H) slot 0 in: tangent of the initial state; slots 1..T out
    a_dot: Array,  # (T, B, H) out
) -> None:
    """The tangent of every state and pre-activation."""
    affine_tangent.forward(
        x, x_dot, weight_ih, weight_ih_dot, weight_hh_dot, bias_ih_dot, bias_hh_dot, lengths, h, a_dot
    )
    h_dot[1:] = 0
    for t in range(x.shape[0]):
        b = running(lengths, t)
        a_dot[t][b] += h_dot[t][b] @ weight_hh.T  # (1')
        h_dot[t + 1][b] = step_forward(a_dot[t][b], h[t + 1][b], nonlinearity)


def backward(
    x: Array,  # (T, B, I) as given to forward
    x_dot: Array,  # (T, B, I)
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    weight_ih_dot: Array,  # (H, I)
    weight_hh_dot: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) from rnn.forward
    h_dot: Array,  # (T+1, B, H) from forward
    a_dot: Array,  # (T, B, H) from forward
    dh: Array,  # (T+1, B, H) total dL/dh_t, from rnn.backward without a clip
    da: Array,  # (T, B, H) dL/da_t, likewise
    dh_dot: Array,  # (T+1, B, H) in: of dL/dh_t from outside, zero where none; out: of the total dL/dh_t
    da_dot: Array,  # (T, B, H) out
    dx_dot: Array,  # (T, B, I) out
    dweight_ih_dot: Array,  # (H, I) added to
    dweight_hh_dot: Array,  # (H, H) added to
    dbias_ih_dot: Array,  # (H,) added to
    dbias_hh_dot: Array,  # (H,) added to
) -> None:
    """The tangent of every gradient: line by line that of `rnn.backward`, last step first."""
    da_dot[...] = 0
    affine_tangent.carried(da, weight_hh_dot, lengths, dh_dot)
    for t in reversed(range(x.shape[0])):
        b = running(lengths, t)
        da_dot[t][b] = step_backward(da[t][b], dh_dot[t + 1][b], h[t + 1][b], a_dot[t][b], nonlinearity)
        dh_dot[t][b] += da_dot[t][b] @ weight_hh  # of dh_{t-1} = W_hhᵀ da; the other half is in `carried`

    affine_tangent.backward(
        da, da_dot, x, x_dot, h, h_dot, weight_ih, weight_ih_dot, lengths,
        dx_dot, dweight_ih_dot, dweight_hh_dot, dbias_ih_dot, dbias_hh_dot,
    )  # fmt: skip
