"""The RNN's time loops, compiled: the equations and names of `kernels/numpy/rnn.py`, for a part of the work.

    B batch   T time   I input   H hidden

Arrays are flat: row (t, b) of a (T, B, n) array begins at (t·B + b)·n. Each sample's steps depend on that sample alone,
so a call may be cut into ranges of samples, and no thread waits for another. Or it is cut into ranges of hidden units
unit..unit+units: then the threads meet after every step, since h_t and da_t are read whole.
"""

from __future__ import annotations

import math

from .activations import tanh
from .affine import input_part
from .barrier import meet
from .clip import clamp
from .gemm import product
from .jit import Kernel, inner
from .lengths import next_run


@inner
def step_forward(a, h, relu):
    """Equation (2) of one row."""
    if relu:
        zero = h.dtype.type(0)  # an integer's 0 would turn float32 into float64
        for j in range(h.size):
            h[j] = a[j] if not a[j] < zero else zero  # a nan stays
    else:
        for j in range(h.size):
            h[j] = tanh(a[j])


@inner
def step_backward(dh, h, da, relu):
    """Undo (2) in one row: relu' = 0 at 0 and below, tanh' = 1-tanh²."""
    zero, one = h.dtype.type(0), h.dtype.type(1)
    if relu:
        for j in range(h.size):
            da[j] = zero if h[j] <= zero else dh[j]
    else:
        for j in range(h.size):
            da[j] = dh[j] * (one - h[j] * h[j])


@Kernel
def forward_part(
    x, inputs, batch, steps, bias, p_ih, p_hh, relu, lengths, h, slots, output, hidden, chunk, lanes, edge, work,
    meeting, parties, first, last, unit, units,
):  # fmt: skip
    """Samples first..last, units unit..unit+units: h from slot 0 on, and the output if there is room.

    State slot t is slot t mod `slots` of h: all of T+1 are kept, or the last two.
    """
    samples = last - first
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        input_part(work, x, batch, inputs, bias, p_ih, lengths, lanes, edge, start, stop, first, last)
        for t in range(start, stop):
            prev, new = t % slots * batch, (t + 1) % slots * batch
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                at, n = ((t - start) * samples + b_0 - first) * units, (prev + b_0) * hidden
                product(work, at, units, h, n, hidden, p_hh, units, hidden, lanes, b_1 - b_0, edge)  # (1)
                together = b_1 - b_0 if units == hidden else 1  # rows that lie side by side
                for b in range(b_0, b_1, together):
                    a = work[at + (b - b_0) * units : at + (b - b_0 + together) * units]
                    n = (new + b) * hidden + unit
                    h_b = h[n : n + together * units]
                    step_forward(a, h_b, relu)  # (2)
                    if output.size:
                        n = (t * batch + b) * hidden + unit
                        to = output[n : n + together * units]
                        for j in range(to.size):
                            to[j] = h_b[j]
                b_0, b_1 = next_run(lengths, t, b_1, last)
            if parties > 1 and not meet(meeting, (t + 2) * parties):
                return


@Kernel
def backward_part(
    batch, steps, p_hh, relu, lengths, h, clip, dh, da, hidden, lanes, edge, meeting, parties, first, last, unit, units
):
    """Samples first..last, units unit..unit+units: dh to its totals, and da, from the last step to the first."""
    if parties > 1 and not meet(meeting, parties):  # nobody writes before all are there
        return
    for t in range(steps - 1, -1, -1):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            together = b_1 - b_0 if units == hidden else 1  # rows that lie side by side
            size = together * units
            for b in range(b_0, b_1, together):
                n, new = (t * batch + b) * hidden + unit, ((t + 1) * batch + b) * hidden + unit
                da_b = da[n : n + size]
                step_backward(dh[new : new + size], h[new : new + size], da_b, relu)  # undoes (2)
                if clip < math.inf:
                    clamp(da_b, clip)
            b_0, b_1 = next_run(lengths, t, b_1, last)
        if parties > 1 and not meet(meeting, (steps - t + 1) * parties):
            return
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            n = (t * batch + b_0) * hidden
            product(dh, n + unit, hidden, da, n, hidden, p_hh, units, hidden, lanes, b_1 - b_0, edge)  # undoes (1)
            b_0, b_1 = next_run(lengths, t, b_1, last)
