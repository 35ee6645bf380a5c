"""The RNN's tangents on CPU: what `kernels/numpy/rnn_tangent.py` defines, with its signatures.

Cut into parts like the RNN itself (`rnn.py`), with the same bits for any number of threads. What has to wait for the
step before is in `rnn_tangent_loops.py`, the rest of equation (1) in `affine_tangent.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine_tangent
from .affine import flat
from .affine_tangent import Recurrent
from .barrier import Meeting
from .gemm import scratch
from .jit import Call
from .lengths import ends_early
from .machine import UNIT
from .plan import Part, ranges_of_units, run, workers
from .rnn_tangent_loops import backward_part, forward_part

__all__ = ["backward", "forward"]

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    weight_ih_dot: Array,  # (H, I)
    weight_hh_dot: Array,  # (H, H)
    bias_ih_dot: Array,  # (H,)
    bias_hh_dot: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) from forward
    h_dot: Array,  # (T+1, B, H) slot 0 in: the tangent of h_0; slots 1..T out
    a_dot: Array,  # (T, B, H) out
) -> None:
    """The tangent of every pre-activation and state."""
    (steps, batch, _), hidden, dtype = x.shape, h.shape[2], x.dtype
    if ends_early(lengths, steps):
        h_dot[1:] = 0
    affine_tangent.forward(
        x, x_dot, weight_ih, weight_ih_dot, weight_hh_dot, bias_ih_dot, bias_hh_dot, lengths, h, a_dot
    )
    lanes, step_work = UNIT.lanes(dtype.itemsize), batch * hidden * hidden
    busy = workers(steps * step_work)
    by_units = ranges_of_units(batch, hidden, busy, step_work, lanes, weight_hh.nbytes)
    recurrent = Recurrent(weight_hh, hidden, backward=False)

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        p_hh, packing = recurrent.of(part)
        arguments = (
            batch, steps, p_hh, nonlinearity == "relu", lengths, flat(h), a_dot.reshape(-1), h_dot.reshape(-1), hidden,
            lanes, scratch(dtype), meeting.state, meeting.parties, *part,
        )  # fmt: skip
        return (*packing, (forward_part.ready(dtype, *arguments), arguments))

    run(by_units, batch, hidden, busy, calls)


def backward(
    x: Array,  # (T, B, I) as given to forward
    x_dot: Array,  # (T, B, I) likewise
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    weight_ih_dot: Array,  # (H, I)
    weight_hh_dot: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, H) from forward
    h_dot: Array,  # (T+1, B, H) from the forward pass of tangents
    a_dot: Array,  # (T, B, H) likewise
    dh: Array,  # (T+1, B, H) from backward: the total dL/dh_t
    da: Array,  # (T, B, H) from backward
    dh_dot: Array,  # (T+1, B, H) in: the tangent of dL/dh_t from outside the recurrence; out: that of the total
    da_dot: Array,  # (T, B, H) out
    dx_dot: Array,  # (T, B, I) out
    dweight_ih_dot: Array,  # (H, I) added to
    dweight_hh_dot: Array,  # (H, H) added to
    dbias_ih_dot: Array,  # (H,) added to
    dbias_hh_dot: Array,  # (H,) added to
) -> None:
    """The tangent of every line of `rnn.backward`."""
    (steps, batch, _), hidden, dtype = x.shape, h.shape[2], x.dtype
    if ends_early(lengths, steps):
        da_dot[...] = 0
    affine_tangent.carried(da, weight_hh_dot, lengths, dh_dot)
    lanes, step_work = UNIT.lanes(dtype.itemsize), batch * hidden * hidden
    busy = workers(steps * step_work)
    by_units = ranges_of_units(batch, hidden, busy, step_work, lanes)
    recurrent = Recurrent(weight_hh, hidden, backward=True)

    def calls(part: Part, meeting: Meeting) -> tuple[Call, ...]:
        p_hh, packing = recurrent.of(part)
        arguments = (
            batch, steps, p_hh, nonlinearity == "relu", lengths, flat(h), flat(a_dot), flat(da), dh_dot.reshape(-1),
            da_dot.reshape(-1), hidden, lanes, scratch(dtype), meeting.state, meeting.parties, *part,
        )  # fmt: skip
        return (*packing, (backward_part.ready(dtype, *arguments), arguments))

    run(by_units, batch, hidden, busy, calls)
    affine_tangent.backward(
        da, da_dot, x, x_dot, h, h_dot, weight_ih, weight_ih_dot, lengths, dx_dot, dweight_ih_dot, dweight_hh_dot,
        dbias_ih_dot, dbias_hh_dot,
    )  # fmt: skip
