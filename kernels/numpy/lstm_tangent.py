"""Tangents of the LSTM, by definition: how everything in `lstm.py` changes along a direction.

    B batch   T time   I input   H hidden   P projection (P = H without one)
    z' = dz/dε at ε = 0, as x, the weights and the initial state move by ε times their own tangents; in code z_dot

    a_t' = W_ih x_t' + W_ih' x_t + b_ih' + b_hh' + W_hh' h_{t-1} + W_hh h_{t-1}'        (1')   (B, 4H)
    i' = i(1-i) ⊙ a_i'   f' = f(1-f) ⊙ a_f'   g' = (1-g²) ⊙ a_g'   o' = o(1-o) ⊙ a_o'      (2')   (B, H) each
    c_t' = f' ⊙ c_{t-1} + f ⊙ c_{t-1}' + i' ⊙ g + i ⊙ g'                               (3')   (B, H)
    m_t' = o' ⊙ tanh(c_t) + o ⊙ (1 - tanh²(c_t)) ⊙ c_t'                                (4')   (B, H)
    h_t' = W_hr m_t' + W_hr' m_t   with a projection, else m_t'                        (5')   (B, P)

`forward` is these lines. `backward` is the same done to every line of `lstm.backward`, that is, to a gradient: with the
loss's own second derivatives in its cotangents it gives the Hessian times the direction (Pearlmutter, Fast exact
multiplication by the Hessian, 1994: the operator R). Slots, lengths and order are those of `lstm.py`; what is beyond a
sequence's end is exactly zero. Derivation: kernels/README.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine, affine_tangent
from .lengths import running

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


def slopes(gates: Array) -> Array:  # (..., 4H) to (..., 4H)
    """σ' = σ(1-σ) of i, f and o, tanh' = 1-tanh² of g."""
    i, f, g, o = np.split(gates, 4, axis=-1)
    return np.concatenate([i * (1 - i), f * (1 - f), 1 - g**2, o * (1 - o)], axis=-1)


def bends(gates: Array) -> Array:  # (..., 4H) to (..., 4H)
    """σ''/σ' = 1-2σ of i, f and o, tanh''/tanh' = -2 tanh of g."""
    i, f, g, o = np.split(gates, 4, axis=-1)
    return np.concatenate([1 - 2 * i, 1 - 2 * f, -2 * g, 1 - 2 * o], axis=-1)


def output_dot(
    a_dot: Array,  # (..., 4H)
    gates: Array,  # (..., 4H)
    c: Array,  # (..., H) after the step
    c_dot: Array,  # (..., H)
) -> Array:  # m_dot (..., H)
    """(2') of o, and (4')."""
    o, a_o_dot = gates[..., -c.shape[-1] :], a_dot[..., -c.shape[-1] :]
    o_dot, tanh_c = o * (1 - o) * a_o_dot, np.tanh(c)  # (2')
    return o_dot * tanh_c + o * (1 - tanh_c**2) * c_dot  # (4')


def step_forward(
    a_dot: Array,  # (B, 4H)
    gates: Array,  # (B, 4H) activated
    c_prev: Array,  # (B, H)
    c: Array,  # (B, H)
    c_prev_dot: Array,  # (B, H)
    weight_hr: Array | None,  # (P, H)
    weight_hr_dot: Array | None,  # (P, H)
) -> tuple[Array, Array]:  # c_dot (B, H), h_dot (B, P)
    """One time step: equations (2') to (5')."""
    i, f, g, o = np.split(gates, 4, axis=1)
    i_dot, f_dot, g_dot, _ = np.split(slopes(gates) * a_dot, 4, axis=1)  # (2')
    c_dot = f_dot * c_prev + f * c_prev_dot + i_dot * g + i * g_dot  # (3')
    m_dot = output_dot(a_dot, gates, c, c_dot)  # (4')
    if weight_hr is None or weight_hr_dot is None:
        return c_dot, m_dot
    m = o * np.tanh(c)  # (4) once more
    return c_dot, m_dot @ weight_hr.T + m @ weight_hr_dot.T  # (5')


def step_backward(
    dh: Array,  # (B, P) total dL/dh_t
    dc: Array,  # (B, H) total dL/dc_t
    da: Array,  # (B, 4H) dL/da_t
    dh_dot: Array,  # (B, P) of the total dL/dh_t
    dc_dot: Array,  # (B, H) of dL/dc_t through c_{t+1} and from outside
    gates: Array,  # (B, 4H) activated
    a_dot: Array,  # (B, 4H)
    c_prev: Array,  # (B, H)
    c: Array,  # (B, H)
    c_prev_dot: Array,  # (B, H)
    c_dot: Array,  # (B, H)
    weight_hr: Array | None,  # (P, H)
    weight_hr_dot: Array | None,  # (P, H)
) -> tuple[Array, Array, Array]:  # da_dot (B, 4H), of the total dc (B, H), dc_prev_dot (B, H)
    """One time step back: each line is the tangent of the line of `lstm.step_backward` that it names."""
    i, f, g, o = np.split(gates, 4, axis=1)
    i_dot, f_dot, g_dot, o_dot = np.split(slopes(gates) * a_dot, 4, axis=1)  # (2')
    tanh_c = np.tanh(c)
    slope_c = 1 - tanh_c**2
    tanh_c_dot = slope_c * c_dot
    if weight_hr is None or weight_hr_dot is None:
        dm, dm_dot = dh, dh_dot
    else:
        dm, dm_dot = dh @ weight_hr, dh_dot @ weight_hr + dh @ weight_hr_dot  # dm = W_hrᵀ dh
    do_dot = dm_dot * tanh_c + dm * tanh_c_dot  # do = dm tanh(c)
    dc_dot = dc_dot + (dm_dot * o + dm * o_dot) * slope_c - 2 * dm * o * tanh_c * tanh_c_dot  # dc += dm o (1-tanh²(c))
    di_dot = dc_dot * g + dc * g_dot  # di = dc g
    df_dot = dc_dot * c_prev + dc * c_prev_dot  # df = dc c_prev
    dg_dot = dc_dot * i + dc * i_dot  # dg = dc i
    dc_prev_dot = dc_dot * f + dc * f_dot  # dc_prev = dc f
    d_gates_dot = np.concatenate([di_dot, df_dot, dg_dot, do_dot], axis=1)
    da_dot = d_gates_dot * slopes(gates) + da * bends(gates) * a_dot  # da = dz φ'(a): dz' φ' + dz φ'' a', da = dz φ'
    return da_dot, dc_dot, dc_prev_dot


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    weight_ih_dot: Array,  # (4H, I)
    weight_hh_dot: Array,  # (4H, P)
    bias_ih_dot: Array,  # (4H,) zeros where the layer has none
    bias_hh_dot: Array,  # (4H,)
    weight_hr_dot: Array | None,  # (P, H), None together with weight_hr
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from lstm.forward
    c: Array,  # (T+1, B, H) likewise
    gates: Array,  # (T, B, 4H) likewise
    h_dot: Array,  # (T+1, B, P) slot 0 in: tangent of the initial state; slots 1..T out
    c_dot: Array,  # (T+1, B, H) likewise
    a_dot: Array,  # (T, B, 4H) out
) -> None:
    """The tangent of every state and pre-activation."""
    affine_tangent.forward(
        x, x_dot, weight_ih, weight_ih_dot, weight_hh_dot, bias_ih_dot, bias_hh_dot, lengths, h, a_dot
    )
    h_dot[1:], c_dot[1:] = 0, 0
    for t in range(x.shape[0]):
        b = running(lengths, t)
        a_dot[t][b] += h_dot[t][b] @ weight_hh.T  # (1')
        c_dot[t + 1][b], h_dot[t + 1][b] = step_forward(
            a_dot[t][b], gates[t][b], c[t][b], c[t + 1][b], c_dot[t][b], weight_hr, weight_hr_dot
        )


def backward(
    x: Array,  # (T, B, I) as given to forward
    x_dot: Array,  # (T, B, I)
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    weight_ih_dot: Array,  # (4H, I)
    weight_hh_dot: Array,  # (4H, P)
    weight_hr_dot: Array | None,  # (P, H), None together with weight_hr
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from lstm.forward
    h_dot: Array,  # (T+1, B, P) from forward
    c: Array,  # (T+1, B, H) from lstm.forward
    c_dot: Array,  # (T+1, B, H) from forward
    gates: Array,  # (T, B, 4H) from lstm.forward
    a_dot: Array,  # (T, B, 4H) from forward
    dh: Array,  # (T+1, B, P) total dL/dh_t, from lstm.backward without clip and detach_h
    dc: Array,  # (T+1, B, H) total dL/dc_t, likewise
    da: Array,  # (T, B, 4H) dL/da_t, likewise
    dh_dot: Array,  # (T+1, B, P) in: of dL/dh_t from outside, zero where none; out: of the total dL/dh_t
    dc_dot: Array,  # (T+1, B, H) likewise, of dL/dc_t
    da_dot: Array,  # (T, B, 4H) out
    dx_dot: Array,  # (T, B, I) out
    dweight_ih_dot: Array,  # (4H, I) added to
    dweight_hh_dot: Array,  # (4H, P) added to
    dbias_ih_dot: Array,  # (4H,) added to
    dbias_hh_dot: Array,  # (4H,) added to
    dweight_hr_dot: Array | None,  # (P, H) added to, or None
) -> None:
    """The tangent of every gradient: line by line that of `lstm.backward`, last step first."""
    da_dot[...] = 0
    affine_tangent.carried(da, weight_hh_dot, lengths, dh_dot)
    for t in reversed(range(x.shape[0])):
        b = running(lengths, t)
        da_dot[t][b], dc_dot[t + 1][b], dc_prev_dot = step_backward(
            dh[t + 1][b], dc[t + 1][b], da[t][b], dh_dot[t + 1][b], dc_dot[t + 1][b], gates[t][b], a_dot[t][b],
            c[t][b], c[t + 1][b], c_dot[t][b], c_dot[t + 1][b], weight_hr, weight_hr_dot,
        )  # fmt: skip
        dh_dot[t][b] += da_dot[t][b] @ weight_hh  # of dh_{t-1} = W_hhᵀ da; the other half is in `carried`
        dc_dot[t][b] += dc_prev_dot

    affine_tangent.backward(
        da, da_dot, x, x_dot, h, h_dot, weight_ih, weight_ih_dot, lengths,
        dx_dot, dweight_ih_dot, dweight_hh_dot, dbias_ih_dot, dbias_hh_dot,
    )  # fmt: skip
    if dweight_hr_dot is not None:
        for block in reversed(affine.time_blocks(*x.shape[:2])):
            m = gates[block][..., -c.shape[2] :] * np.tanh(c[1:][block])  # (4) once more
            m_dot = output_dot(a_dot[block], gates[block], c[1:][block], c_dot[1:][block])  # (4')
            dweight_hr_dot += affine.flat(dh_dot[1:][block]).T @ affine.flat(m)  # dW_hr = Σ dh mᵀ
            dweight_hr_dot += affine.flat(dh[1:][block]).T @ affine.flat(m_dot)
