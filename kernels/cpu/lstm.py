"""The LSTM on CPU: what `kernels/numpy/lstm.py` defines, with its signatures.

Weights are packed once per call, so writing into a weight array is always seen. The batch is cut into ranges of
samples, one for each thread, which run the whole sequence without waiting for each other (`lstm_loops.py`); products
over all time steps are cut by rows of the result (`affine.py`). Results are bitwise the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine, threads
from .gemm import packed, scratch
from .lstm_loops import backward_rows, exposed, forward_rows, infer_rows
from .machine import UNIT
from .plan import steps_per_chunk, workers

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


def _packed_weights(
    weight_ih: Array, weight_hh: Array, weight_hr: Array | None, inputs: int, hidden: int, size: int
) -> tuple[Array, Array, Array]:
    rows = 4 * hidden
    p_hr = np.empty(0, weight_ih.dtype) if weight_hr is None else packed(weight_hr, hidden, 1, size, hidden)
    return packed(weight_ih, inputs, 1, rows, inputs), packed(weight_hh, size, 1, rows, size), p_hr


def infer(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    h_0: Array,  # (B, P)
    c_0: Array,  # (B, H)
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    bias_ih: Array,  # (4H,) zeros where the layer has none
    bias_hh: Array,  # (4H,)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,) each in 1..T
    output: Array,  # (T, B, P) out
    h_n: Array,  # (B, P) out: h at each sequence's own end
    c_n: Array,  # (B, H) out
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    (steps, batch, inputs), hidden, size = x.shape, c_0.shape[1], h_0.shape[1]
    h_n[...], c_n[...] = h_0, c_0
    if (lengths < steps).any():
        output[...] = 0
    weights = _packed_weights(weight_ih, weight_hh, weight_hr, inputs, hidden, size)
    parts = threads.split(batch, workers(steps * batch * 4 * hidden * (inputs + size)))
    most = max((last - first for first, last in parts), default=0)
    chunk = steps_per_chunk(steps, most, 4 * hidden * x.itemsize)
    fixed = (
        x.reshape(-1), inputs, batch, steps, bias_ih + bias_hh, *weights, lengths,
        h_n.reshape(-1), c_n.reshape(-1), output.reshape(-1), hidden, size, chunk, UNIT.lanes(x.itemsize),
    )  # fmt: skip
    kernel = infer_rows.ready(x.dtype, *fixed, *(scratch(x.dtype),) * 3, 0, 0)

    def task(_: int, first: int, last: int) -> None:
        m = np.empty(0 if weight_hr is None else (last - first) * hidden, x.dtype)
        work = np.empty(chunk * (last - first) * 4 * hidden, x.dtype)
        kernel(*fixed, scratch(x.dtype), m, work, first, last)

    threads.run(task, parts)


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    bias_ih: Array,  # (4H,) zeros where the layer has none
    bias_hh: Array,  # (4H,)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,) each in 1..T
    h: Array,  # (T+1, B, P) slot 0 in: the initial state; slots 1..T out
    c: Array,  # (T+1, B, H) likewise
    gates: Array,  # (T, B, 4H) out: i, f, g, o
    a: Array,  # (T, B, 4H) out: pre-activations
) -> None:
    """The whole sequence, keeping everything."""
    (steps, batch, inputs), hidden, size = x.shape, c.shape[2], h.shape[2]
    if (lengths < steps).any():
        for array in (h[1:], c[1:], gates, a):
            array[...] = 0
    weights = _packed_weights(weight_ih, weight_hh, weight_hr, inputs, hidden, size)
    parts = threads.split(batch, workers(steps * batch * 4 * hidden * (inputs + size)))
    most = max((last - first for first, last in parts), default=0)
    chunk = steps_per_chunk(steps, most, 4 * hidden * x.itemsize)
    fixed = (
        x.reshape(-1), inputs, batch, steps, bias_ih + bias_hh, *weights, lengths,
        h.reshape(-1), c.reshape(-1), gates.reshape(-1), a.reshape(-1), hidden, size, chunk, UNIT.lanes(x.itemsize),
    )  # fmt: skip
    kernel = forward_rows.ready(x.dtype, *fixed, *(scratch(x.dtype),) * 2, 0, 0)

    def task(_: int, first: int, last: int) -> None:
        m = np.empty(0 if weight_hr is None else (last - first) * hidden, x.dtype)
        kernel(*fixed, scratch(x.dtype), m, first, last)

    threads.run(task, parts)


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, P) from forward
    c: Array,  # (T+1, B, H) from forward
    gates: Array,  # (T, B, 4H) from forward
    dh: Array,  # (T+1, B, P) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    dc: Array,  # (T+1, B, H) in: dL/dc_t from outside; out: the total dL/dc_t
    da: Array,  # (T, B, 4H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (4H, I) out
    dweight_hh: Array,  # (4H, P) out
    dbias_ih: Array,  # (4H,) out
    dbias_hh: Array,  # (4H,) out
    dweight_hr: Array | None,  # (P, H) out, or None
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter."""
    (steps, batch, inputs), hidden, size = x.shape, c.shape[2], h.shape[2]
    if (lengths < steps).any():
        da[...] = 0
    p_hh = packed(weight_hh, 1, size, size, 4 * hidden)
    p_hr = np.empty(0, x.dtype) if weight_hr is None else packed(weight_hr, 1, hidden, hidden, size)
    fixed = (
        batch, steps, p_hh, p_hr, lengths, c.reshape(-1), gates.reshape(-1), dh.reshape(-1), dc.reshape(-1),
        da.reshape(-1), hidden, size, UNIT.lanes(x.itemsize),
    )  # fmt: skip
    kernel = backward_rows.ready(x.dtype, *fixed, *(scratch(x.dtype),) * 2, 0, 0)

    def task(_: int, first: int, last: int) -> None:
        dm = np.empty(0 if weight_hr is None else (last - first) * hidden, x.dtype)
        kernel(*fixed, scratch(x.dtype), dm, first, last)

    busy = workers(steps * batch * 4 * hidden * (inputs + size))
    threads.run(task, threads.split(batch, busy))
    affine.backward(da, x, h, weight_ih, lengths, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, busy)  # undoes (1)
    if dweight_hr is not None:
        m = np.empty((steps * batch, hidden), x.dtype)
        rows = (gates.reshape(-1), c[1:].reshape(-1), hidden, m.reshape(-1))
        all_rows = exposed.ready(x.dtype, *rows, 0, 0)
        threads.run(lambda _, first, last: all_rows(*rows, first, last), threads.split(steps * batch, busy))
        affine.products_in_parallel(dweight_hr, dh[1:], m, busy)  # undoes (5), in W_hr
