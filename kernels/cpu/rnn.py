"""The vanilla RNN on CPU: what `kernels/numpy/rnn.py` defines, with its signatures.

Weights are packed in every call, so writing into a weight array is always seen. A call is cut into parts, one for each
thread: ranges of samples, which run the whole sequence without waiting for each other, or ranges of hidden units, whose
threads meet after each step (`plan.py`, `rnn_loops.py`). Products over all time steps are cut by rows of the result
(`affine.py`). Results are bitwise the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine
from .affine import Packing, flat, preactivations
from .barrier import Meeting
from .gemm import room, scratch
from .jit import Call
from .lengths import ends_early
from .machine import UNIT
from .plan import Part, ranges_of_units, run, steps_per_chunk, workers
from .rnn_loops import backward_part, forward_part

__all__ = ["backward", "forward", "infer", "preactivations"]

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


def infer(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    h_0: Array,  # (B, H)
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    output: Array,  # (T, B, H) out
    h_n: Array,  # (B, H) out: h at each sequence's own end
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    h = np.empty((2, *h_0.shape), x.dtype)
    h[0] = h_0
    ragged = ends_early(lengths, len(x))
    if ragged:
        output[...] = 0
    _forward(x, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, lengths, h, output)
    h_n[...] = h[lengths % 2, np.arange(len(lengths))] if ragged else h[len(x) % 2]


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) slot 0 in: the initial state; slots 1..T out
) -> None:
    """The whole sequence, keeping every state."""
    if ends_early(lengths, len(x)):
        h[1:] = 0
    _forward(x, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, lengths, h, np.empty(0, x.dtype))


def _forward(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array,
    bias_hh: Array,
    nonlinearity: str,
    lengths: Lengths,
    h: Array,  # (T+1 or 2, B, H)
    output: Array,  # (T, B, H) or empty
) -> None:
    (steps, batch, inputs), (slots, _, hidden), dtype = x.shape, h.shape, x.dtype
    lanes = UNIT.lanes(x.itemsize)
    step_work = batch * hidden * (inputs + hidden)
    busy = workers(steps * step_work)
    by_units = ranges_of_units(batch, hidden, busy, step_work, lanes, weight_hh.nbytes)
    bias = bias_ih + bias_hh
    shared = None if by_units else Packing(weight_ih, weight_hh, 1, 0, hidden).now()

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        nonlocal shared
        if part.units == hidden and shared is None:  # by units was planned, and no threads were free
            shared = Packing(weight_ih, weight_hh, 1, 0, hidden).now()
        weights = shared or Packing(weight_ih, weight_hh, 1, part.unit, part.units)
        samples = part.last - part.first
        chunk = steps_per_chunk(steps, samples, part.units * x.itemsize, weights.p_ih.nbytes)
        arguments = (
            flat(x), inputs, batch, steps, bias[part.unit : part.unit + part.units], weights.p_ih, weights.p_hh,
            nonlinearity == "relu", lengths, h.reshape(-1), slots, output.reshape(-1), hidden, chunk, lanes,
            scratch(dtype), room(chunk * samples * part.units, dtype),
            meeting.state, meeting.parties, part.first, part.last, part.unit, part.units,
        )  # fmt: skip
        loop = forward_part.ready(dtype, *arguments), arguments
        return (loop,) if shared else (weights.call, loop)

    run(by_units, batch, hidden, busy, calls)


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, H) from forward
    clip: float,  # bound of each |dL/da_t|, before it flows on; inf: none
    dh: Array,  # (T+1, B, H) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    da: Array,  # (T, B, H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (H, I) in: the sum over later steps; out: with these added
    dweight_hh: Array,  # (H, H) likewise
    dbias_ih: Array,  # (H,) likewise
    dbias_hh: Array,  # (H,) likewise
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter."""
    (steps, batch, inputs), hidden, dtype = x.shape, h.shape[2], x.dtype
    lanes = UNIT.lanes(x.itemsize)
    if ends_early(lengths, steps):
        da[...] = 0
    step_work = batch * hidden * (inputs + hidden)
    busy = workers(steps * step_work)
    by_units = ranges_of_units(batch, hidden, busy, step_work, lanes)
    shared = None if by_units else affine.packed_transposed(weight_hh)

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        nonlocal shared
        if part.units == hidden and shared is None:  # by units was planned, and no threads were free
            shared = affine.packed_transposed(weight_hh)
        p_hh, packing = (shared, None) if shared is not None else affine.transposed(weight_hh, part.unit, part.units)
        arguments = (
            batch, steps, p_hh, nonlinearity == "relu", lengths, h.reshape(-1), clip, dh.reshape(-1), da.reshape(-1),
            hidden, lanes, scratch(dtype), meeting.state, meeting.parties, part.first, part.last, part.unit, part.units,
        )  # fmt: skip
        loop = backward_part.ready(dtype, *arguments), arguments
        return (loop,) if packing is None else (packing, loop)

    run(by_units, batch, hidden, busy, calls)
    affine.backward(da, x, h, weight_ih, lengths, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh)  # undoes (1)
