"""The RNN's time loops, compiled: the equations and names of `kernels/numpy/rnn.py`, for a range of samples.

    B batch   T time   I input   H hidden

Arrays are flat: row (t, b) of a (T, B, n) array begins at (t·B + b)·n. Each sample's steps depend on that sample alone,
so a call may be cut into ranges of samples, and no thread waits for another.
"""

from __future__ import annotations

from .activations import tanh
from .affine import input_part
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
def infer_rows(
    x, inputs, batch, steps, bias, p_ih, p_hh, relu, lengths, h, output, hidden, chunk, lanes, edge, work, first, last
):
    """Samples first..last: the output, and h (B, H) from the initial state to the final one."""
    samples = last - first
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        for b in range(first, last):
            end = max(start, min(stop, lengths[b]))
            at = (b - first) * hidden
            input_part(work, samples * hidden, at, x, batch, inputs, bias, p_ih, lanes, edge, b, start, end)
        for t in range(start, stop):
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                at = ((t - start) * samples + b_0 - first) * hidden
                product(work, at, hidden, h, b_0 * hidden, hidden, 1, p_hh, hidden, hidden, lanes, b_1 - b_0, edge)
                new = h[b_0 * hidden : b_1 * hidden]
                step_forward(work[at : at + new.size], new, relu)
                to = output[(t * batch + b_0) * hidden : (t * batch + b_1) * hidden]
                for j in range(new.size):
                    to[j] = new[j]
                b_0, b_1 = next_run(lengths, t, b_1, last)


@Kernel
def forward_rows(
    x, inputs, batch, steps, bias, p_ih, p_hh, relu, lengths, h, a, hidden, chunk, lanes, edge, first, last
):
    """Samples first..last: every h and pre-activation, from slot 0 of h."""
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        for b in range(first, last):
            end = max(start, min(stop, lengths[b]))
            at = (start * batch + b) * hidden
            input_part(a, batch * hidden, at, x, batch, inputs, bias, p_ih, lanes, edge, b, start, end)
        for t in range(start, stop):
            b_0, b_1 = next_run(lengths, t, first, last)
            while b_0 < last:
                n = (t * batch + b_0) * hidden
                product(a, n, hidden, h, n, hidden, 1, p_hh, hidden, hidden, lanes, b_1 - b_0, edge)  # (1)
                count, new = (b_1 - b_0) * hidden, n + batch * hidden
                step_forward(a[n : n + count], h[new : new + count], relu)  # (2)
                b_0, b_1 = next_run(lengths, t, b_1, last)


@Kernel
def backward_rows(batch, steps, p_hh, relu, lengths, h, dh, da, hidden, lanes, edge, first, last):
    """Samples first..last: dh to its totals, and da, from the last step to the first."""
    for t in range(steps - 1, -1, -1):
        b_0, b_1 = next_run(lengths, t, first, last)
        while b_0 < last:
            n, count = (t * batch + b_0) * hidden, (b_1 - b_0) * hidden
            new = n + batch * hidden
            step_backward(dh[new : new + count], h[new : new + count], da[n : n + count], relu)  # undoes (2)
            product(dh, n, hidden, da, n, hidden, 1, p_hh, hidden, hidden, lanes, b_1 - b_0, edge)  # undoes (1), in h
            b_0, b_1 = next_run(lengths, t, b_1, last)
