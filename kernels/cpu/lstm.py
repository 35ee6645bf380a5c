"""The LSTM on CPU: what `kernels/numpy/lstm.py` defines, with its signatures.

Weights are packed in every call, so writing into a weight array is always seen. A call is cut into parts, one for each
thread: ranges of samples, which run the whole sequence without waiting for each other, or ranges of hidden units, whose
threads meet after each step (`plan.py`, `lstm_loops.py`). Products over all time steps are cut by rows of the result
(`affine.py`). Results are bitwise the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import SUM_ROWS, block_steps
from . import affine, threads
from .affine import Packing, flat, preactivations
from .barrier import Meeting
from .gemm import ROWS, packed_size, room, scratch
from .jit import Call
from .lengths import ends_early
from .lstm_loops import activate_rows, backward_part, forward_part, projection_gradient
from .machine import UNIT
from .plan import Part, ranges_of_units, run, steps_per_chunk, workers

__all__ = ["activate", "backward", "forward", "infer", "preactivations"]

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
GATES = 4


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
    h, c = np.empty((2, *h_0.shape), x.dtype), np.empty((2, *c_0.shape), x.dtype)
    h[0], c[0] = h_0, c_0
    ragged = ends_early(lengths, len(x))
    if ragged:
        output[...] = 0
    _forward(x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, lengths, h, c, np.empty(0, x.dtype), output)
    ends: Any = (lengths % 2, np.arange(len(lengths))) if ragged else len(x) % 2
    h_n[...], c_n[...] = h[ends], c[ends]


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
    """The whole sequence, keeping every state, and every gate if there is room for them."""
    nothing = np.empty(0, x.dtype)
    gates = nothing if gates is None else gates
    if ends_early(lengths, len(x)):
        for array in (h[1:], c[1:], gates):
            array[...] = 0
    _forward(x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, lengths, h, c, gates, nothing)


def _forward(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array,
    bias_hh: Array,
    weight_hr: Array | None,
    lengths: Lengths,
    h: Array,  # (T+1 or 2, B, P)
    c: Array,  # (T+1 or 2, B, H)
    gates: Array,  # (T, B, 4H) or empty
    output: Array,  # (T, B, P) or empty
) -> None:
    (steps, batch, inputs), (slots, _, hidden), size, dtype = x.shape, c.shape, h.shape[2], x.dtype
    lanes, nothing = UNIT.lanes(x.itemsize), np.empty(0, dtype)
    step_work = batch * GATES * hidden * (inputs + size)
    busy = workers(steps * step_work)
    by_units = [] if weight_hr is not None else ranges_of_units(batch, hidden, busy, step_work, lanes, weight_hh.nbytes)
    p_hr = nothing if weight_hr is None else affine.packed_rows(weight_hr)
    bias = (bias_ih + bias_hh).reshape(GATES, hidden)
    shared = None if by_units else Packing(weight_ih, weight_hh, GATES, 0, hidden).now()

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        nonlocal shared
        if part.units == hidden and shared is None:  # by units was planned, and no threads were free
            shared = Packing(weight_ih, weight_hh, GATES, 0, hidden).now()
        weights = shared or Packing(weight_ih, weight_hh, GATES, part.unit, part.units)
        samples, rows = part.last - part.first, GATES * part.units
        chunk = steps_per_chunk(steps, samples, rows * x.itemsize, weights.p_ih.nbytes)
        arguments = (
            flat(x), inputs, batch, steps, bias[:, part.unit : part.unit + part.units].ravel(),
            weights.p_ih, weights.p_hh, p_hr, lengths, h.reshape(-1), c.reshape(-1), slots, gates.reshape(-1),
            output.reshape(-1), hidden, size, chunk, lanes, scratch(dtype),
            nothing if weight_hr is None else room(samples * hidden, dtype),
            room(0 if gates.size else rows, dtype), room(chunk * samples * rows, dtype),
            meeting.state, meeting.parties, part.first, part.last, part.unit, part.units,
        )  # fmt: skip
        loop = forward_part.ready(dtype, *arguments), arguments
        return (loop,) if shared else (weights.call, loop)

    run(by_units, batch, hidden, busy, calls)


def activate(
    a: Array,  # (T, B, 4H)
    lengths: Lengths,  # (B,)
    gates: Array,  # (T, B, 4H) out
) -> None:
    """Equation (2) again, bit for bit what forward had; zero beyond a sequence's end."""
    steps, batch, rows = a.shape
    if ends_early(lengths, steps):
        gates[...] = 0
    fixed = (a.reshape(-1), gates.reshape(-1), rows // GATES, batch, lengths)
    kernel = activate_rows.ready(a.dtype, *fixed, 0, 0)
    threads.run(kernel, [(*fixed, *span) for span in threads.split(steps * batch, workers(16 * a.size))])


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, P) from forward
    c: Array,  # (T+1, B, H) from forward
    gates: Array,  # (T, B, 4H) from forward
    clip: float,  # bound of each |dL/da_t|, before it flows on; inf: none
    detach_h: Mask | None,  # (T, B) True: the step's gates send nothing to h_{t-1}; None: nowhere
    dh: Array,  # (T+1, B, P) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    dc: Array,  # (T+1, B, H) in: dL/dc_t from outside; out: the total dL/dc_t
    da: Array,  # (T, B, 4H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (4H, I) in: the sum over later steps; out: with these added
    dweight_hh: Array,  # (4H, P) likewise
    dbias_ih: Array,  # (4H,) likewise
    dbias_hh: Array,  # (4H,) likewise
    dweight_hr: Array | None,  # (P, H) likewise, or None
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter."""
    (steps, batch, inputs), hidden, size, dtype = x.shape, c.shape[2], h.shape[2], x.dtype
    lanes, nothing = UNIT.lanes(x.itemsize), np.empty(0, dtype)
    if ends_early(lengths, steps):
        da[...] = 0
    detached = np.zeros(0, np.bool_) if detach_h is None else np.array(detach_h, order="C").reshape(-1)
    step_work = batch * GATES * hidden * (inputs + size)
    busy = workers(steps * step_work)
    by_units = [] if weight_hr is not None else ranges_of_units(batch, hidden, busy, step_work, lanes)
    p_hr = nothing if weight_hr is None else affine.packed_transposed(weight_hr)
    shared = None if by_units else affine.packed_transposed(weight_hh)

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        nonlocal shared
        if part.units == hidden and shared is None:  # by units was planned, and no threads were free
            shared = affine.packed_transposed(weight_hh)
        samples = part.last - part.first
        p_hh, packing = (shared, None) if shared is not None else affine.transposed(weight_hh, part.unit, part.units)
        arguments = (
            batch, steps, p_hh, p_hr, lengths, c.reshape(-1), gates.reshape(-1), clip, detached, dh.reshape(-1),
            dc.reshape(-1), da.reshape(-1), hidden, size, lanes, scratch(dtype),
            nothing if weight_hr is None else room(samples * hidden, dtype),
            meeting.state, meeting.parties, part.first, part.last, part.unit, part.units,
        )  # fmt: skip
        loop = backward_part.ready(dtype, *arguments), arguments
        return (loop,) if packing is None else (packing, loop)

    run(by_units, batch, hidden, busy, calls)
    affine.backward(da, x, h, weight_ih, lengths, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh)  # undoes (1)
    if dweight_hr is not None:
        _projection_gradient(dh, gates, c, lengths, dweight_hr)  # undoes (5), in W_hr


def _projection_gradient(dh: Array, gates: Array, c: Array, lengths: Lengths, dweight_hr: Array) -> None:
    (size, hidden), (steps, batch, _), dtype = dweight_hr.shape, gates.shape, dh.dtype
    fixed = (
        dh.reshape(-1), size, gates.reshape(-1), c.reshape(-1), hidden, batch, steps, block_steps(batch), lengths,
        dweight_hr.reshape(-1), UNIT.lanes(dh.itemsize),
    )  # fmt: skip

    def call(unit: int, last: int) -> tuple[Any, ...]:
        units = last - unit
        m, left, right = (
            room(n, dtype) for n in (SUM_ROWS * units, SUM_ROWS * size, packed_size(units, SUM_ROWS, dtype))
        )
        return (*fixed, scratch(dtype), m, left, right, unit, last)

    kernel = projection_gradient.ready(dtype, *call(0, 0))
    spans = threads.split(hidden, workers(steps * batch * hidden * size), ROWS)
    threads.run(kernel, [call(*span) for span in spans])
