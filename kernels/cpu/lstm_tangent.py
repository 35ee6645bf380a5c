"""The LSTM's tangents on CPU: what `kernels/numpy/lstm_tangent.py` defines, with its signatures.

Cut into parts like the LSTM itself (`lstm.py`), with the same bits for any number of threads. What has to wait for the
step before is in `lstm_tangent_loops.py`, the rest of equation (1) in `affine_tangent.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import SUM_ROWS, block_steps
from . import affine, affine_tangent, threads
from .affine import flat
from .affine_tangent import Recurrent
from .barrier import Meeting
from .gemm import ROWS, packed_size, room, scratch
from .jit import Call
from .lengths import ends_early
from .lstm_tangent_loops import backward_part, forward_part, projection_gradient
from .machine import UNIT
from .plan import Part, ranges_of_units, run, workers

__all__ = ["backward", "forward"]

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]
GATES = 4


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    weight_ih_dot: Array,  # (4H, I)
    weight_hh_dot: Array,  # (4H, P)
    bias_ih_dot: Array,  # (4H,)
    bias_hh_dot: Array,  # (4H,)
    weight_hr_dot: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from forward
    c: Array,  # (T+1, B, H) from forward
    gates: Array,  # (T, B, 4H) from forward
    h_dot: Array,  # (T+1, B, P) slot 0 in: the tangent of h_0; slots 1..T out
    c_dot: Array,  # (T+1, B, H) likewise
    a_dot: Array,  # (T, B, 4H) out
) -> None:
    """The tangent of every pre-activation and state."""
    (steps, batch, _), hidden, size, dtype = x.shape, c.shape[2], h.shape[2], x.dtype
    if ends_early(lengths, steps):
        h_dot[1:], c_dot[1:] = 0, 0
    affine_tangent.forward(
        x, x_dot, weight_ih, weight_ih_dot, weight_hh_dot, bias_ih_dot, bias_hh_dot, lengths, h, a_dot
    )
    lanes, step_work = UNIT.lanes(dtype.itemsize), batch * GATES * hidden * size
    busy = workers(steps * step_work)
    by_units = [] if weight_hr is not None else ranges_of_units(batch, hidden, busy, step_work, lanes, weight_hh.nbytes)
    recurrent = Recurrent(weight_hh, hidden, backward=False)
    p_hr, p_hr_dot = (np.empty(0, dtype) if w is None else affine.packed_rows(w) for w in (weight_hr, weight_hr_dot))

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        p_hh, packing = recurrent.of(part)
        kept = 0 if weight_hr is None else (part.last - part.first) * hidden
        arguments = (
            batch, steps, p_hh, p_hr, p_hr_dot, lengths, flat(c), flat(gates), a_dot.reshape(-1), h_dot.reshape(-1),
            c_dot.reshape(-1), hidden, size, lanes, scratch(dtype), room(kept, dtype), room(kept, dtype),
            meeting.state, meeting.parties, *part,
        )  # fmt: skip
        return (*packing, (forward_part.ready(dtype, *arguments), arguments))

    run(by_units, batch, hidden, busy, calls)


def backward(
    x: Array,  # (T, B, I) as given to forward
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    weight_ih_dot: Array,  # (4H, I)
    weight_hh_dot: Array,  # (4H, P)
    weight_hr_dot: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, P) from forward
    h_dot: Array,  # (T+1, B, P) from the forward pass of tangents
    c: Array,  # (T+1, B, H) from forward
    c_dot: Array,  # (T+1, B, H) from the forward pass of tangents
    gates: Array,  # (T, B, 4H) from forward
    a_dot: Array,  # (T, B, 4H) from the forward pass of tangents
    dh: Array,  # (T+1, B, P) from backward: the total dL/dh_t
    dc: Array,  # (T+1, B, H) likewise
    da: Array,  # (T, B, 4H) from backward
    dh_dot: Array,  # (T+1, B, P) in: the tangent of dL/dh_t from outside the recurrence; out: that of the total
    dc_dot: Array,  # (T+1, B, H) likewise
    da_dot: Array,  # (T, B, 4H) out
    dx_dot: Array,  # (T, B, I) out
    dweight_ih_dot: Array,  # (4H, I) added to
    dweight_hh_dot: Array,  # (4H, P) added to
    dbias_ih_dot: Array,  # (4H,) added to
    dbias_hh_dot: Array,  # (4H,) added to
    dweight_hr_dot: Array | None,  # (P, H) added to, or None
) -> None:
    """The tangent of every line of `lstm.backward`."""
    (steps, batch, _), hidden, size, dtype = x.shape, c.shape[2], h.shape[2], x.dtype
    if ends_early(lengths, steps):
        da_dot[...] = 0
    affine_tangent.carried(da, weight_hh_dot, lengths, dh_dot)
    lanes, step_work = UNIT.lanes(dtype.itemsize), batch * GATES * hidden * size
    busy = workers(steps * step_work)
    by_units = [] if weight_hr is not None else ranges_of_units(batch, hidden, busy, step_work, lanes)
    recurrent = Recurrent(weight_hh, hidden, backward=True)
    p_hr, p_hr_dot = (
        np.empty(0, dtype) if w is None else affine.packed_transposed(w) for w in (weight_hr, weight_hr_dot)
    )

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        p_hh, packing = recurrent.of(part)
        kept = 0 if weight_hr is None else (part.last - part.first) * hidden
        arguments = (
            batch, steps, p_hh, p_hr, p_hr_dot, lengths, flat(c), flat(c_dot), flat(gates), flat(a_dot), flat(dh),
            flat(dc), flat(da), dh_dot.reshape(-1), dc_dot.reshape(-1), da_dot.reshape(-1), hidden, size, lanes,
            scratch(dtype), room(kept, dtype), room(kept, dtype), meeting.state, meeting.parties, *part,
        )  # fmt: skip
        return (*packing, (backward_part.ready(dtype, *arguments), arguments))

    run(by_units, batch, hidden, busy, calls)
    affine_tangent.backward(
        da, da_dot, x, x_dot, h, h_dot, weight_ih, weight_ih_dot, lengths, dx_dot, dweight_ih_dot, dweight_hh_dot,
        dbias_ih_dot, dbias_hh_dot,
    )  # fmt: skip
    if dweight_hr_dot is not None:
        _projection_gradient(dh, dh_dot, gates, a_dot, c, c_dot, lengths, dweight_hr_dot)


def _projection_gradient(
    dh: Array, dh_dot: Array, gates: Array, a_dot: Array, c: Array, c_dot: Array, lengths: Lengths,
    dweight_hr_dot: Array,
) -> None:  # fmt: skip
    (size, hidden), (steps, batch, _), dtype = dweight_hr_dot.shape, gates.shape, dh.dtype
    fixed = (
        flat(dh), dh_dot.reshape(-1), size, flat(gates), flat(a_dot), flat(c), flat(c_dot), hidden, batch, steps,
        block_steps(batch), lengths, dweight_hr_dot.reshape(-1), UNIT.lanes(dtype.itemsize),
    )  # fmt: skip

    def call(unit: int, last: int) -> tuple[Any, ...]:
        units = last - unit
        sizes = SUM_ROWS * units, SUM_ROWS * units, SUM_ROWS * size, packed_size(units, SUM_ROWS, dtype)
        return (*fixed, scratch(dtype), *(room(n, dtype) for n in sizes), unit, last)

    kernel = projection_gradient.ready(dtype, *call(0, 0))
    spans = threads.split(hidden, workers(2 * steps * batch * hidden * size), ROWS)
    threads.run(kernel, [call(*span) for span in spans])
