"""The time loops of the RNN's tangents, compiled: equations and names of `kernels/numpy/rnn_tangent.py`.

    B batch   T time   H hidden

`z_dot` is the derivative of z along the direction. Arrays are flat, and cut into samples or hidden units, as in
`rnn_loops.py`.
"""

from __future__ import annotations

from .barrier import meet
from .gemm import product
from .jit import Kernel, inner
from .lengths import next_run


@inner
def step_forward(a_dot, h, h_dot, relu):
    """The tangent of (2) in one row: relu' = 0 at 0 and below, tanh' = 1-tanh²."""
    zero, one = h.dtype.type(0), h.dtype.type(1)  # an integer's 0 would turn float32 into float64
    if relu:
        for j in range(h.size):
            h_dot[j] = zero if h[j] <= zero else a_dot[j]
    else:
        for j in range(h.size):
            h_dot[j] = (one - h[j] * h[j]) * a_dot[j]


@inner
def step_backward(da, dh_dot, h, a_dot, da_dot, relu):
    """The tangent of da = dh ⊙ φ'(a) in one row: tanh'' = -2 tanh tanh', and relu has none."""
    zero, one = h.dtype.type(0), h.dtype.type(1)
    if relu:
        for j in range(h.size):
            da_dot[j] = zero if h[j] <= zero else dh_dot[j]
    else:
        for j in range(h.size):
            da_dot[j] = dh_dot[j] * (one - h[j] * h[j]) - da[j] * (h[j] + h[j]) * a_dot[j]


@Kernel
def forward_part(
    batch, steps, p_hh, relu, lengths, h, a_dot, h_dot, hidden, lanes, edge, meeting, parties, first, last, unit, units
):
    """Samples first..last, units unit..unit+units: h_dot from slot 0 on; a_dot holds the rest of (1')."""
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for t in range(steps):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            n = (t * batch + b_0) * hidden
            product(a_dot, n + unit, hidden, h_dot, n, hidden, p_hh, units, hidden, lanes, b_1 - b_0, edge)  # (1')
            together = b_1 - b_0 if units == hidden else 1  # rows that lie side by side
            size = together * units
            for b in range(b_0, b_1, together):
                n, new = (t * batch + b) * hidden + unit, ((t + 1) * batch + b) * hidden + unit
                step_forward(a_dot[n : n + size], h[new : new + size], h_dot[new : new + size], relu)  # (2')
            b_0, b_1 = next_run(lengths, t, b_1, last)
        if parties > 1 and not meet(meeting, (t + 2) * parties):
            return


@Kernel
def backward_part(
    batch, steps, p_hh, relu, lengths, h, a_dot, da, dh_dot, da_dot, hidden, lanes, edge, meeting, parties, first, last,
    unit, units,
):  # fmt: skip
    """Samples first..last, units unit..unit+units: dh_dot to those of the totals, and da_dot, last step first."""
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for t in range(steps - 1, -1, -1):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            together = b_1 - b_0 if units == hidden else 1
            size = together * units
            for b in range(b_0, b_1, together):
                n, new = (t * batch + b) * hidden + unit, ((t + 1) * batch + b) * hidden + unit
                da_b, a_dot_b, da_dot_b = da[n : n + size], a_dot[n : n + size], da_dot[n : n + size]
                step_backward(da_b, dh_dot[new : new + size], h[new : new + size], a_dot_b, da_dot_b, relu)
            b_0, b_1 = next_run(lengths, t, b_1, last)
        if parties > 1 and not meet(meeting, (steps - t + 1) * parties):
            return
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            n = (t * batch + b_0) * hidden  # of dh_{t-1} = W_hhᵀ da; the other half was there before
            product(dh_dot, n + unit, hidden, da_dot, n, hidden, p_hh, units, hidden, lanes, b_1 - b_0, edge)
            b_0, b_1 = next_run(lengths, t, b_1, last)
