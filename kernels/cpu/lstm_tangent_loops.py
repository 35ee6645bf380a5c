"""The time loops of the LSTM's tangents, compiled: equations and names of `kernels/numpy/lstm_tangent.py`.

    B batch   T time   H hidden   P projection (P = H without one);   gate rows i, f, g, o

`z_dot` is the tangent of z; among gates, a_i, a_f, a_g, a_o are those of the pre-activations. Arrays are flat, and cut
into samples or hidden units, as in `lstm_loops.py`. A comment in `step_backward` is the line whose tangent its line is.
"""

from __future__ import annotations

import numpy as np

from ..blocks import SUM_ROWS
from .activations import tanh
from .barrier import meet
from .gemm import PACKED, pack_columns, pack_left, product
from .jit import Kernel, inner
from .lengths import any_runs, next_run
from .lstm_loops import zero


@inner
def step_forward(a_dot, gates, hidden, c_prev, c, c_dot_prev, c_dot, m_dot):
    """The tangents of (2) to (4) in one row; the gates of a unit stand `hidden` apart."""
    n = c.size
    a_i, a_f, a_g = a_dot[:n], a_dot[hidden : hidden + n], a_dot[2 * hidden : 2 * hidden + n]
    i, f, g = gates[:n], gates[hidden : hidden + n], gates[2 * hidden : 2 * hidden + n]
    one = c.dtype.type(1)  # an integer's 1 would turn float32 into float64
    for j in range(n):
        i_dot = i[j] * (one - i[j]) * a_i[j]  # (2')
        f_dot = f[j] * (one - f[j]) * a_f[j]
        g_dot = (one - g[j] * g[j]) * a_g[j]
        c_dot[j] = f_dot * c_prev[j] + f[j] * c_dot_prev[j] + i_dot * g[j] + i[j] * g_dot  # (3')
    output_tangent(gates[3 * hidden :], a_dot[3 * hidden :], c, c_dot, m_dot)


@inner
def output_tangent(o, a_o, c, c_dot, m_dot):
    """The tangent of (4) in one row, from that of o's pre-activation."""
    one = c.dtype.type(1)
    for j in range(m_dot.size):
        tanh_c = tanh(c[j])
        o_dot = o[j] * (one - o[j]) * a_o[j]  # (2')
        m_dot[j] = o_dot * tanh_c + o[j] * (one - tanh_c * tanh_c) * c_dot[j]  # (4')


@inner
def output_again(o, c, m):
    """Equation (4) once more in one row."""
    for j in range(m.size):
        m[j] = o[j] * tanh(c[j])


@inner
def step_backward(
    dm, dm_dot, dc, dc_dot, da, gates, a_dot, hidden, c_prev, c, c_dot_prev, c_dot, da_dot, dc_dot_prev
):  # fmt: skip
    """The tangents of the lines that undo (4) to (2) in one row; dc_dot becomes that of the total."""
    n = c.size
    a_i, a_f = a_dot[:n], a_dot[hidden : hidden + n]
    a_g, a_o = a_dot[2 * hidden : 2 * hidden + n], a_dot[3 * hidden : 3 * hidden + n]
    i, f = gates[:n], gates[hidden : hidden + n]
    g, o = gates[2 * hidden : 2 * hidden + n], gates[3 * hidden : 3 * hidden + n]
    da_i, da_f = da[:n], da[hidden : hidden + n]
    da_g, da_o = da[2 * hidden : 2 * hidden + n], da[3 * hidden : 3 * hidden + n]
    da_i_dot, da_f_dot = da_dot[:n], da_dot[hidden : hidden + n]
    da_g_dot, da_o_dot = da_dot[2 * hidden : 2 * hidden + n], da_dot[3 * hidden : 3 * hidden + n]
    one = c.dtype.type(1)
    for j in range(n):
        tanh_c = tanh(c[j])
        slope_c, slope_o = one - tanh_c * tanh_c, o[j] * (one - o[j])
        tanh_c_dot, o_dot = slope_c * c_dot[j], slope_o * a_o[j]
        do_dot = dm_dot[j] * tanh_c + dm[j] * tanh_c_dot  # do = dm tanh(c)
        bend = (tanh_c + tanh_c) * tanh_c_dot
        dc_dot[j] += (dm_dot[j] * o[j] + dm[j] * o_dot) * slope_c - dm[j] * o[j] * bend  # dc += dm o (1-tanh²(c))
        da_o_dot[j] = do_dot * slope_o + da_o[j] * (one - o[j] - o[j]) * a_o[j]  # da = dz φ'(a), φ'' = (1-2σ) σ'
    for j in range(n):  # more loops than one: fewer arrays in each, so fewer checks for an overlap before it
        slope_i, slope_g = i[j] * (one - i[j]), one - g[j] * g[j]
        di_dot = dc_dot[j] * g[j] + dc[j] * slope_g * a_g[j]  # di = dc g
        dg_dot = dc_dot[j] * i[j] + dc[j] * slope_i * a_i[j]  # dg = dc i
        da_i_dot[j] = di_dot * slope_i + da_i[j] * (one - i[j] - i[j]) * a_i[j]
        da_g_dot[j] = dg_dot * slope_g - da_g[j] * (g[j] + g[j]) * a_g[j]  # tanh'' = -2 tanh tanh'
    for j in range(n):
        slope_f = f[j] * (one - f[j])
        df_dot = dc_dot[j] * c_prev[j] + dc[j] * c_dot_prev[j]  # df = dc c_prev
        da_f_dot[j] = df_dot * slope_f + da_f[j] * (one - f[j] - f[j]) * a_f[j]
        dc_dot_prev[j] += dc_dot[j] * f[j] + dc[j] * slope_f * a_f[j]  # dc_prev = dc f


@Kernel
def forward_part(
    batch, steps, p_hh, p_hr, p_hr_dot, lengths, c, gates, a_dot, h_dot, c_dot, hidden, size, lanes, edge, m, m_dot,
    meeting, parties, first, last, unit, units,
):  # fmt: skip
    """Samples first..last, units unit..unit+units: h_dot and c_dot from slot 0 on; a_dot holds the rest of (1')."""
    rows, projected = 4 * hidden, p_hr.size > 0
    groups, columns = (1, rows) if units == hidden else (4, units)  # all gates side by side, or some units of each
    each = p_hh.size // groups
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for t in range(steps):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            n, count = t * batch + b_0, b_1 - b_0
            for group in range(groups):
                at, p = n * rows + group * hidden + unit, p_hh[group * each : (group + 1) * each]
                product(a_dot, at, rows, h_dot, n * size, size, p, columns, size, lanes, count, edge)  # (1')
            for b in range(b_0, b_1):
                at = (t * batch + b) * hidden + unit
                c_prev, c_dot_prev = c[at : at + units], c_dot[at : at + units]
                at += batch * hidden
                c_b, c_dot_b = c[at : at + units], c_dot[at : at + units]
                own = (b - first) * hidden
                m_dot_b = m_dot[own : own + hidden] if projected else h_dot[at : at + units]
                at = (t * batch + b) * rows
                a_dot_b, gates_b = a_dot[at + unit : at + rows], gates[at + unit : at + rows]
                step_forward(a_dot_b, gates_b, hidden, c_prev, c_b, c_dot_prev, c_dot_b, m_dot_b)
                if projected:
                    output_again(gates_b[3 * hidden :], c_b, m[own : own + hidden])
            if projected:  # (5')
                n, at = (n + batch) * size, (b_0 - first) * hidden
                zero(h_dot, n, n + count * size)
                product(h_dot, n, size, m_dot, at, hidden, p_hr, size, hidden, lanes, count, edge)
                product(h_dot, n, size, m, at, hidden, p_hr_dot, size, hidden, lanes, count, edge)
            b_0, b_1 = next_run(lengths, t, b_1, last)
        if parties > 1 and not meet(meeting, (t + 2) * parties):
            return


@Kernel
def backward_part(
    batch, steps, p_hh, p_hr, p_hr_dot, lengths, c, c_dot, gates, a_dot, dh, dc, da, dh_dot, dc_dot, da_dot, hidden,
    size, lanes, edge, dm, dm_dot, meeting, parties, first, last, unit, units,
):  # fmt: skip
    """Samples first..last, units unit..unit+units: dh_dot, dc_dot to those of totals, and da_dot, last step first."""
    rows, projected = 4 * hidden, p_hr.size > 0
    width = size if projected else units
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for t in range(steps - 1, -1, -1):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            if projected:  # dm = W_hrᵀ dh
                n, at, count = ((t + 1) * batch + b_0) * size, (b_0 - first) * hidden, b_1 - b_0
                zero(dm, at, at + count * hidden)
                zero(dm_dot, at, at + count * hidden)
                product(dm, at, hidden, dh, n, size, p_hr, hidden, size, lanes, count, edge)
                product(dm_dot, at, hidden, dh_dot, n, size, p_hr, hidden, size, lanes, count, edge)
                product(dm_dot, at, hidden, dh, n, size, p_hr_dot, hidden, size, lanes, count, edge)
            for b in range(b_0, b_1):
                at = (t * batch + b) * hidden + unit
                c_prev, c_dot_prev, dc_dot_prev = c[at : at + units], c_dot[at : at + units], dc_dot[at : at + units]
                at += batch * hidden
                c_b, c_dot_b = c[at : at + units], c_dot[at : at + units]
                dc_b, dc_dot_b = dc[at : at + units], dc_dot[at : at + units]
                own = (b - first) * hidden
                dm_b = dm[own : own + hidden] if projected else dh[at : at + units]
                dm_dot_b = dm_dot[own : own + hidden] if projected else dh_dot[at : at + units]
                at = (t * batch + b) * rows
                gates_b, a_dot_b = gates[at + unit : at + rows], a_dot[at + unit : at + rows]
                da_b, da_dot_b = da[at + unit : at + rows], da_dot[at + unit : at + rows]
                step_backward(
                    dm_b, dm_dot_b, dc_b, dc_dot_b, da_b, gates_b, a_dot_b, hidden, c_prev, c_b, c_dot_prev, c_dot_b,
                    da_dot_b, dc_dot_prev,
                )  # fmt: skip
            b_0, b_1 = next_run(lengths, t, b_1, last)
        if parties > 1 and not meet(meeting, (steps - t + 1) * parties):
            return
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            n = t * batch + b_0
            at = n * size + unit  # of dh_{t-1} = W_hhᵀ da; the other half was there before
            product(dh_dot, at, size, da_dot, n * rows, rows, p_hh, width, rows, lanes, b_1 - b_0, edge)
            b_0, b_1 = next_run(lengths, t, b_1, last)


@Kernel
def projection_gradient(
    dh, dh_dot, size, gates, a_dot, c, c_dot, hidden, batch, steps, block, lengths, dweight_hr_dot, lanes, edge, m,
    m_dot, left, right, unit, last,
):  # fmt: skip
    """The tangent of dW_hr, Σ dh_dot_t m_tᵀ + dh_t m_dot_tᵀ, in columns unit..last, added to what is there."""
    units = last - unit
    for start in range((steps - 1) // block * block, -1, -block):
        if any_runs(lengths, start, batch):
            end = min(start + block, steps) * batch
            for n_0 in range(start * batch, end, SUM_ROWS):
                k = min(SUM_ROWS, end - n_0)
                for n in range(n_0, n_0 + k):
                    at = (4 * n + 3) * hidden + unit
                    o, a_o = gates[at : at + units], a_dot[at : at + units]
                    at = (n + batch) * hidden + unit
                    c_n, c_dot_n = c[at : at + units], c_dot[at : at + units]
                    at = (n - n_0) * units
                    output_again(o, c_n, m[at : at + units])
                    output_tangent(o, a_o, c_n, c_dot_n, m_dot[at : at + units])
                for d, m_of in ((dh_dot, m), (dh, m_dot)):
                    pack_left(d, (n_0 + batch) * size, size, size, k, left)
                    pack_columns(m_of, 0, units, units, k, lanes, right)
                    product(dweight_hr_dot, unit, hidden, left, np.int64(0), PACKED, right, units, k, lanes, size, edge)
