"""The LSTM's time loops, compiled: the equations and names of `kernels/numpy/lstm.py`, for a range of samples.

    B batch   T time   I input   H hidden   P projection (P = H without one);   gate rows i, f, g, o

Arrays are flat: row (t, b) of a (T, B, n) array begins at (t·B + b)·n. Each sample's steps depend on that sample alone,
so a call may be cut into ranges of samples, and no thread waits for another.
"""

from __future__ import annotations

from .activations import sigmoid, tanh
from .affine import input_part
from .gemm import product
from .jit import Kernel, inner
from .lengths import next_run


@inner
def step_infer(a, c, m):
    """Equations (2) to (4) of one row, c in place."""
    n = c.size
    a_i, a_f, a_g, a_o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n : 4 * n]
    for j in range(n):
        c[j] = sigmoid(a_f[j]) * c[j] + sigmoid(a_i[j]) * tanh(a_g[j])  # (2), (3)
    for j in range(n):  # a loop of its own: nothing in it waits for the line above
        m[j] = sigmoid(a_o[j]) * tanh(c[j])  # (4)


@inner
def step_forward(a, gates, c_prev, c, m):
    """Equations (2) to (4) of one row, everything kept."""
    n = c.size
    a_i, a_f, a_g, a_o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n : 4 * n]
    i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    for j in range(n):
        i_j, f_j, g_j, o_j = sigmoid(a_i[j]), sigmoid(a_f[j]), tanh(a_g[j]), sigmoid(a_o[j])  # (2)
        i[j], f[j], g[j], o[j] = i_j, f_j, g_j, o_j
        c[j] = f_j * c_prev[j] + i_j * g_j  # (3)
    for j in range(n):  # a loop of its own: nothing in it waits for the lines above
        m[j] = o[j] * tanh(c[j])  # (4)


@inner
def step_backward(dm, dc, gates, c_prev, c, da, dc_prev):
    """Undo (4) to (2) in one row; dc becomes the total."""
    n = c.size
    i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    da_i, da_f, da_g, da_o = da[:n], da[n : 2 * n], da[2 * n : 3 * n], da[3 * n : 4 * n]
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
def infer_rows(
    x, inputs, batch, steps, bias, p_ih, p_hh, p_hr, lengths, h, c, output, hidden, size, chunk, lanes, edge, m, work,
    first, last,
):  # fmt: skip
    """Samples first..last: the output, and h and c (B, ·) from the initial state to the final one."""
    rows, samples, projected = 4 * hidden, last - first, p_hr.size > 0
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        for b in range(first, last):
            end = max(start, min(stop, lengths[b]))
            at = (b - first) * rows
            input_part(work, samples * rows, at, x, batch, inputs, bias, p_ih, lanes, edge, b, start, end)
        for t in range(start, stop):
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                at = ((t - start) * samples + b_0 - first) * rows
                product(work, at, rows, h, b_0 * size, size, 1, p_hh, rows, size, lanes, b_1 - b_0, edge)  # (1)
                for b in range(b_0, b_1):
                    a = work[at + (b - b_0) * rows : at + (b - b_0 + 1) * rows]
                    c_b = c[b * hidden : (b + 1) * hidden]
                    if projected:
                        step_infer(a, c_b, m[(b - first) * hidden : (b - first + 1) * hidden])
                    else:
                        step_infer(a, c_b, h[b * size : (b + 1) * size])
                if projected:  # (5)
                    zero(h, b_0 * size, b_1 * size)
                    at = (b_0 - first) * hidden
                    product(h, b_0 * size, size, m, at, hidden, 1, p_hr, size, hidden, lanes, b_1 - b_0, edge)
                to, new = output[(t * batch + b_0) * size : (t * batch + b_1) * size], h[b_0 * size : b_1 * size]
                for j in range(new.size):
                    to[j] = new[j]
                b_0, b_1 = next_run(lengths, t, b_1, last)


@Kernel
def forward_rows(
    x, inputs, batch, steps, bias, p_ih, p_hh, p_hr, lengths, h, c, gates, a, hidden, size, chunk, lanes, edge, m,
    first, last,
):  # fmt: skip
    """Samples first..last: every h, c, gate and pre-activation, from slot 0 of h and c."""
    rows, projected = 4 * hidden, p_hr.size > 0
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        for b in range(first, last):
            end = max(start, min(stop, lengths[b]))
            at = (start * batch + b) * rows
            input_part(a, batch * rows, at, x, batch, inputs, bias, p_ih, lanes, edge, b, start, end)
        for t in range(start, stop):
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                n = t * batch + b_0
                product(a, n * rows, rows, h, n * size, size, 1, p_hh, rows, size, lanes, b_1 - b_0, edge)  # (1)
                for b in range(b_0, b_1):
                    n, new = t * batch + b, (t + 1) * batch + b
                    a_b, gates_b = a[n * rows : (n + 1) * rows], gates[n * rows : (n + 1) * rows]
                    c_prev, c_b = c[n * hidden : (n + 1) * hidden], c[new * hidden : (new + 1) * hidden]
                    if projected:
                        step_forward(a_b, gates_b, c_prev, c_b, m[(b - first) * hidden : (b - first + 1) * hidden])
                    else:
                        step_forward(a_b, gates_b, c_prev, c_b, h[new * size : (new + 1) * size])
                if projected:  # (5)
                    n, at = (t + 1) * batch + b_0, (b_0 - first) * hidden
                    zero(h, n * size, (n + b_1 - b_0) * size)
                    product(h, n * size, size, m, at, hidden, 1, p_hr, size, hidden, lanes, b_1 - b_0, edge)
                b_0, b_1 = next_run(lengths, t, b_1, last)


@Kernel
def backward_rows(batch, steps, p_hh, p_hr, lengths, c, gates, dh, dc, da, hidden, size, lanes, edge, dm, first, last):
    """Samples first..last: dh and dc to their totals, and da, from the last step to the first."""
    rows, projected = 4 * hidden, p_hr.size > 0
    for t in range(steps - 1, -1, -1):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            count = b_1 - b_0
            if projected:  # undoes (5)
                n, at = (t + 1) * batch + b_0, (b_0 - first) * hidden
                zero(dm, at, at + count * hidden)
                product(dm, at, hidden, dh, n * size, size, 1, p_hr, hidden, size, lanes, count, edge)
            for b in range(b_0, b_1):
                n, new = t * batch + b, (t + 1) * batch + b
                dc_b, dc_prev = dc[new * hidden : (new + 1) * hidden], dc[n * hidden : (n + 1) * hidden]
                c_b, c_prev = c[new * hidden : (new + 1) * hidden], c[n * hidden : (n + 1) * hidden]
                gates_b, da_b = gates[n * rows : (n + 1) * rows], da[n * rows : (n + 1) * rows]
                if projected:
                    dm_b = dm[(b - first) * hidden : (b - first + 1) * hidden]
                else:
                    dm_b = dh[new * size : (new + 1) * size]
                step_backward(dm_b, dc_b, gates_b, c_prev, c_b, da_b, dc_prev)
            n = t * batch + b_0
            product(dh, n * size, size, da, n * rows, rows, 1, p_hh, size, rows, lanes, count, edge)  # undoes (1), in h
            b_0, b_1 = next_run(lengths, t, b_1, last)


@Kernel
def exposed(gates, c, hidden, m, first, last):
    """m = o tanh(c), (4) once more, for rows first..last of gates (N, 4H), c (N, H), m (N, H)."""
    for n in range(first, last):
        o, c_n = gates[(4 * n + 3) * hidden : (4 * n + 4) * hidden], c[n * hidden : (n + 1) * hidden]
        m_n = m[n * hidden : (n + 1) * hidden]
        for j in range(hidden):
            m_n[j] = o[j] * tanh(c_n[j])
