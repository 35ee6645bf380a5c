"""The LSTM's time loops, compiled: the equations and names of `kernels/numpy/lstm.py`, for a part of the work.

    B batch   T time   I input   H hidden   P projection (P = H without one);   gate rows i, f, g, o

Arrays are flat: row (t, b) of a (T, B, n) array begins at (t·B + b)·n. Each sample's steps depend on that sample alone,
so a call may be cut into ranges of samples, and no thread waits for another. Or it is cut into ranges of hidden units
unit..unit+units: then the threads meet after every step, since h_t and da_t are read whole.
"""

from __future__ import annotations

import math

import numpy as np

from ..blocks import SUM_ROWS
from .activations import sigmoid, tanh
from .affine import input_part
from .barrier import meet
from .clip import clamp
from .gemm import PACKED, pack_columns, pack_left, product
from .jit import Kernel, inner
from .lengths import any_runs, next_attached, next_run


@inner
def step_forward(a, gates, hidden, c_prev, c, m):
    """Equations (2) to (4) of one row; the gates of a unit stand `hidden` apart."""
    n = c.size
    a_i, a_f, a_g, a_o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n : 4 * n]
    i, f = gates[:n], gates[hidden : hidden + n]
    g, o = gates[2 * hidden : 2 * hidden + n], gates[3 * hidden : 3 * hidden + n]
    for j in range(n):
        i_j, f_j, g_j, o_j = sigmoid(a_i[j]), sigmoid(a_f[j]), tanh(a_g[j]), sigmoid(a_o[j])  # (2)
        i[j], f[j], g[j], o[j] = i_j, f_j, g_j, o_j
        c[j] = f_j * c_prev[j] + i_j * g_j  # (3)
    for j in range(n):  # a loop of its own: nothing in it waits for the lines above
        m[j] = o[j] * tanh(c[j])  # (4)


@inner
def step_backward(dm, dc, gates, hidden, c_prev, c, da, dc_prev):
    """Undo (4) to (2) in one row; dc becomes the total."""
    n = c.size
    i, f = gates[:n], gates[hidden : hidden + n]
    g, o = gates[2 * hidden : 2 * hidden + n], gates[3 * hidden : 3 * hidden + n]
    da_i, da_f = da[:n], da[hidden : hidden + n]
    da_g, da_o = da[2 * hidden : 2 * hidden + n], da[3 * hidden : 3 * hidden + n]
    one = c.dtype.type(1)  # an integer's 1 would turn float32 into float64
    for j in range(n):
        tanh_c = tanh(c[j])
        dc[j] += dm[j] * o[j] * (one - tanh_c * tanh_c)  # undoes (4), in c
        da_o[j] = dm[j] * tanh_c * o[j] * (one - o[j])  # undoes (4) and (2), in o
    for j in range(n):  # two loops: fewer arrays in each, so fewer checks for an overlap before it
        dc_j = dc[j]
        da_i[j] = dc_j * g[j] * i[j] * (one - i[j])  # undoes (3) and (2), in i
        da_f[j] = dc_j * c_prev[j] * f[j] * (one - f[j])  # in f
        da_g[j] = dc_j * i[j] * (one - g[j] * g[j])  # in g
        dc_prev[j] += dc_j * f[j]  # undoes (3), in c_prev


@inner
def zero(array, start, stop):
    """array[start:stop] = 0."""
    part = array[start:stop]
    for j in range(part.size):
        part[j] = 0


@Kernel
def forward_part(
    x, inputs, batch, steps, bias, p_ih, p_hh, p_hr, lengths, h, c, slots, gates, output, hidden, size, chunk, lanes,
    edge, m, unkept, work, meeting, parties, first, last, unit, units,
):  # fmt: skip
    """Samples first..last, units unit..unit+units: h and c from slot 0 on, and gates and output if they have room.

    State slot t is slot t mod `slots` of h and c: all of T+1 are kept, or the last two.
    """
    rows, samples, projected = 4 * units, last - first, p_hr.size > 0
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        input_part(work, x, batch, inputs, bias, p_ih, lengths, lanes, edge, start, stop, first, last)
        for t in range(start, stop):
            prev, new = t % slots * batch, (t + 1) % slots * batch
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                at, count = ((t - start) * samples + b_0 - first) * rows, b_1 - b_0
                product(work, at, rows, h, (prev + b_0) * size, size, p_hh, rows, size, lanes, count, edge)  # (1)
                for b in range(b_0, b_1):
                    a = work[at + (b - b_0) * rows : at + (b - b_0 + 1) * rows]
                    n = (prev + b) * hidden + unit
                    c_prev = c[n : n + units]
                    n = (new + b) * hidden + unit
                    c_b = c[n : n + units]
                    n = (new + b) * size + unit
                    m_b = m[(b - first) * hidden : (b - first + 1) * hidden] if projected else h[n : n + units]
                    n = (t * batch + b) * 4 * hidden
                    gates_b = gates[n + unit : n + 4 * hidden] if gates.size else unkept
                    step_forward(a, gates_b, hidden if gates.size else units, c_prev, c_b, m_b)
                if projected:  # (5)
                    n, at = (new + b_0) * size, (b_0 - first) * hidden
                    zero(h, n, n + count * size)
                    product(h, n, size, m, at, hidden, p_hr, size, hidden, lanes, count, edge)
                if output.size:
                    width = size if projected else units
                    for b in range(b_0, b_1):
                        at, n = (t * batch + b) * size + unit, (new + b) * size + unit
                        to, h_b = output[at : at + width], h[n : n + width]
                        for j in range(width):
                            to[j] = h_b[j]
                b_0, b_1 = next_run(lengths, t, b_1, last)
            if parties > 1 and not meet(meeting, (t + 2) * parties):
                return


@Kernel
def backward_part(
    batch, steps, p_hh, p_hr, lengths, c, gates, clip, detached, dh, dc, da, hidden, size, lanes, edge, dm, meeting,
    parties, first, last, unit, units,
):  # fmt: skip
    """Samples first..last, units unit..unit+units: dh and dc to their totals, and da, last step first."""
    rows, projected = 4 * hidden, p_hr.size > 0
    width = size if projected else units
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for t in range(steps - 1, -1, -1):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            count = b_1 - b_0
            if projected:  # undoes (5)
                n, at = (t + 1) * batch + b_0, (b_0 - first) * hidden
                zero(dm, at, at + count * hidden)
                product(dm, at, hidden, dh, n * size, size, p_hr, hidden, size, lanes, count, edge)
            for b in range(b_0, b_1):
                n, new = (t * batch + b) * hidden + unit, ((t + 1) * batch + b) * hidden + unit
                dc_b, dc_prev = dc[new : new + units], dc[n : n + units]
                c_b, c_prev = c[new : new + units], c[n : n + units]
                dm_b = dm[(b - first) * hidden : (b - first + 1) * hidden] if projected else dh[new : new + units]
                n = (t * batch + b) * rows
                gates_b, da_b = gates[n + unit : n + rows], da[n + unit : n + rows]
                step_backward(dm_b, dc_b, gates_b, hidden, c_prev, c_b, da_b, dc_prev)
                if clip < math.inf:
                    for gate in range(4):
                        clamp(da_b[gate * hidden : gate * hidden + units], clip)
            b_0, b_1 = next_run(lengths, t, b_1, last)
        if parties > 1 and not meet(meeting, (steps - t + 1) * parties):
            return
        b_0, b_1 = next_attached(lengths, detached, t, batch, first, last)
        while b_0 < last:
            n = t * batch + b_0
            at = n * size + unit
            product(dh, at, size, da, n * rows, rows, p_hh, width, rows, lanes, b_1 - b_0, edge)  # undoes (1), in h
            b_0, b_1 = next_attached(lengths, detached, t, batch, b_1, last)


@Kernel
def activate_rows(a, gates, hidden, batch, lengths, first, last):
    """Equation (2) once more for rows first..last of a, where their sequences run."""
    for n in range(first, last):
        if n // batch < lengths[n % batch]:
            a_n, gates_n = a[4 * n * hidden : 4 * (n + 1) * hidden], gates[4 * n * hidden : 4 * (n + 1) * hidden]
            a_if, a_g, a_o = a_n[: 2 * hidden], a_n[2 * hidden : 3 * hidden], a_n[3 * hidden :]
            i_f, g, o = gates_n[: 2 * hidden], gates_n[2 * hidden : 3 * hidden], gates_n[3 * hidden :]
            for j in range(2 * hidden):
                i_f[j] = sigmoid(a_if[j])
            for j in range(hidden):
                g[j], o[j] = tanh(a_g[j]), sigmoid(a_o[j])


@Kernel
def projection_gradient(
    dh, size, gates, c, hidden, batch, steps, block, lengths, dweight_hr, lanes, edge, m, left, right, unit, last
):
    """dW_hr = Σ dh_t m_tᵀ in columns unit..last, added to what is there; m = o tanh(c), (4) once more."""
    units = last - unit
    for start in range((steps - 1) // block * block, -1, -block):
        if any_runs(lengths, start, batch):
            end = min(start + block, steps) * batch
            for n_0 in range(start * batch, end, SUM_ROWS):
                k = min(SUM_ROWS, end - n_0)
                for n in range(n_0, n_0 + k):
                    at = 4 * n * hidden + 3 * hidden + unit
                    o, m_n = gates[at : at + units], m[(n - n_0) * units : (n - n_0 + 1) * units]
                    at = (n + batch) * hidden + unit
                    c_n = c[at : at + units]
                    for j in range(units):
                        m_n[j] = o[j] * tanh(c_n[j])
                pack_left(dh, (n_0 + batch) * size, size, size, k, left)
                pack_columns(m, 0, units, units, k, lanes, right)
                product(dweight_hr, unit, hidden, left, np.int64(0), PACKED, right, units, k, lanes, size, edge)
