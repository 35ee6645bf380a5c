"""The LSTM, by definition: plain NumPy, one line per equation, float32 and float64.

    B batch   T time   I input   H hidden   P projection (P = H without one)
    gate rows are stacked in torch's order i, f, g, o; a_* is a pre-activation, i f g o are activated

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)   (B, 4H)
    i_t = σ(a_i)   f_t = σ(a_f)   g_t = tanh(a_g)   o_t = σ(a_o)                    (2)   (B, H) each
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t                                                 (3)   (B, H)
    m_t = o_t ⊙ tanh(c_t)                                                           (4)   (B, H)
    h_t = W_hr m_t   with a projection, else m_t                                    (5)   (B, P)

State arrays have T+1 slots along time: slot 0 is the initial state and slot t+1 is the state after step t, which reads
x[t]. A sequence of length n runs steps 0..n-1; everything later is exactly zero, in both directions of the
computation. The reverse direction of a bidirectional layer is this same code on a reversed sequence.

`infer`, `forward`, `backward`, and (1) and (2) once more, `preactivations` and `activate`, are what a backend offers;
they write into arrays that the caller gives.
Derivation of every backward line: kernels/README.md. Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000;
projection: Sak et al. 2014; clip: Graves 2013, arXiv:1308.0850, section 2.1; detach_h: Arpit et al. 2018,
arXiv:1810.03023.
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
Mask = NDArray[np.bool_]


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), elementwise, without overflow: exp only ever sees a number below zero."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


def activated(a: Array) -> Array:  # (B, 4H) to (B, 4H)
    """Equation (2): the gates i, f, g, o side by side."""
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    return np.concatenate([sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)], axis=1)  # (2)


def step_forward(
    a_x: Array,  # (B, 4H) this step's part of (1) that needs no h: affine.input_part
    h_prev: Array,  # (B, P)
    c_prev: Array,  # (B, H)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H)
) -> tuple[Array, Array, Array, Array]:  # a (B, 4H), gates (B, 4H), c (B, H), h (B, P)
    """One time step: equations (1) to (5)."""
    a = a_x + h_prev @ weight_hh.T  # (1)
    gates = activated(a)  # (2)
    i, f, g, o = np.split(gates, 4, axis=1)
    c = f * c_prev + i * g  # (3)
    m = o * np.tanh(c)  # (4)
    h = m if weight_hr is None else m @ weight_hr.T  # (5)
    return a, gates, c, h


def step_backward(
    dh: Array,  # (B, P) total dL/dh_t
    dc: Array,  # (B, H) dL/dc_t through c_{t+1} and from outside
    gates: Array,  # (B, 4H) activated
    c_prev: Array,  # (B, H)
    c: Array,  # (B, H)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H)
    clip: float,  # bound of |da|; inf: none
) -> tuple[Array, Array, Array, Array]:  # da (B, 4H), total dc (B, H), dh_prev (B, P), dc_prev (B, H)
    """One time step back: each line undoes the forward line that it names, last line first."""
    i, f, g, o = np.split(gates, 4, axis=1)
    tanh_c = np.tanh(c)
    dm = dh if weight_hr is None else dh @ weight_hr  # undoes (5): h = W_hr m
    do = dm * tanh_c  # undoes (4): m = o tanh(c), in o
    dc = dc + dm * o * (1 - tanh_c**2)  # undoes (4), in c: now the total dL/dc_t
    di, df, dg = dc * g, dc * c_prev, dc * i  # undoes (3): c = f c_prev + i g, in i, f, g
    dc_prev = dc * f  # undoes (3), in c_prev
    da = np.concatenate(
        [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1
    )  # undoes (2): σ' = σ(1-σ), tanh' = 1-tanh²
    da = da if clip == math.inf else np.clip(da, -clip, clip)  # a nan stays
    dh_prev = da @ weight_hh  # undoes (1), in h_prev
    return da, dc, dh_prev, dc_prev


def infer(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    h_0: Array,  # (B, P)
    c_0: Array,  # (B, H)
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    bias_ih: Array,  # (4H,) zeros where the layer has none
    bias_hh: Array,  # (4H,)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,) each in 0..T
    output: Array,  # (T, B, P) out
    h_n: Array,  # (B, P) out: h at each sequence's own end
    c_n: Array,  # (B, H) out
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    h_n[...], c_n[...] = h_0, c_0
    output[...] = 0
    for t, a_x in enumerate(affine.input_part(x, weight_ih, bias_ih, bias_hh)):
        b = running(lengths, t)
        _, _, c_n[b], h_n[b] = step_forward(a_x[b], h_n[b], c_n[b], weight_hh, weight_hr)
        output[t][b] = h_n[b]


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    bias_ih: Array,  # (4H,) zeros where the layer has none
    bias_hh: Array,  # (4H,)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) slot 0 in: the initial state; slots 1..T out
    c: Array,  # (T+1, B, H) likewise
    gates: Array | None,  # (T, B, 4H) out: i, f, g, o; None: not kept
) -> None:
    """The whole sequence, keeping every state, and every gate where there is room."""
    for array in (h[1:], c[1:]) if gates is None else (h[1:], c[1:], gates):
        array[...] = 0
    for t, a_x in enumerate(affine.input_part(x, weight_ih, bias_ih, bias_hh)):
        b = running(lengths, t)
        _, gates_t, c[t + 1][b], h[t + 1][b] = step_forward(a_x[b], h[t][b], c[t][b], weight_hh, weight_hr)
        if gates is not None:
            gates[t][b] = gates_t


preactivations = affine.preactivations  # (1) is the same in both cells


def activate(
    a: Array,  # (T, B, 4H) from preactivations
    lengths: Lengths,  # (B,) each in 0..T
    gates: Array,  # (T, B, 4H) out: i, f, g, o
) -> None:
    """(2) once more: bit for bit the gates that forward computed."""
    gates[...] = 0
    for t in range(a.shape[0]):
        b = running(lengths, t)
        gates[t][b] = activated(a[t][b])  # (2)


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from forward
    c: Array,  # (T+1, B, H) from forward
    gates: Array,  # (T, B, 4H) from forward
    clip: float,  # bound of each |dL/da_t|, before it flows on; inf: none
    detach_h: Mask | None,  # (T, B) True: the step's gates send nothing to h_{t-1}; None: nowhere
    dh: Array,  # (T+1, B, P) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    dc: Array,  # (T+1, B, H) in: dL/dc_t from outside; out: the total dL/dc_t
    da: Array,  # (T, B, 4H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (4H, I) added to
    dweight_hh: Array,  # (4H, P) added to
    dbias_ih: Array,  # (4H,) added to
    dbias_hh: Array,  # (4H,) added to
    dweight_hr: Array | None,  # (P, H) added to, or None
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter.

    The parameters' gradients are added to what the caller put there: zeros, or those of the steps that follow these.
    """
    da[...] = 0
    for t in reversed(range(x.shape[0])):
        b = running(lengths, t)
        da[t][b], dc[t + 1][b], dh_prev, dc_prev = step_backward(
            dh[t + 1][b], dc[t + 1][b], gates[t][b], c[t][b], c[t + 1][b], weight_hh, weight_hr, clip
        )
        dh[t][b] += dh_prev if detach_h is None else np.where(detach_h[t][b][:, None], 0, dh_prev)
        dc[t][b] += dc_prev

    affine.backward(da, x, h, weight_ih, lengths, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh)  # undoes (1)
    if dweight_hr is not None:
        for block in reversed(affine.time_blocks(*x.shape[:2])):
            m = gates[block][..., -c.shape[2] :] * np.tanh(c[1:][block])  # (4) once more
            dweight_hr += affine.flat(dh[1:][block]).T @ affine.flat(m)  # undoes (5), in W_hr
