"""The vanilla RNN on CPU: what `kernels/numpy/rnn.py` defines, with its signatures.

Weights are packed once per call, so writing into a weight array is always seen. The batch is cut into ranges of
samples, one for each thread, which run the whole sequence without waiting for each other (`rnn_loops.py`); the products
over all time steps are cut by rows of the result (`affine.py`). Results are bitwise the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine, threads
from .gemm import packed, scratch
from .machine import UNIT
from .plan import steps_per_chunk, workers
from .rnn_loops import backward_rows, forward_rows, infer_rows

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
    lengths: Lengths,  # (B,) each in 1..T
    output: Array,  # (T, B, H) out
    h_n: Array,  # (B, H) out: h at each sequence's own end
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    (steps, batch, inputs), hidden = x.shape, h_0.shape[1]
    h_n[...] = h_0
    if (lengths < steps).any():
        output[...] = 0
    parts = threads.split(batch, workers(steps * batch * hidden * (inputs + hidden)))
    most = max((last - first for first, last in parts), default=0)
    chunk = steps_per_chunk(steps, most, hidden * x.itemsize)
    fixed = (
        x.reshape(-1), inputs, batch, steps, bias_ih + bias_hh, packed(weight_ih, inputs, 1, hidden, inputs),
        packed(weight_hh, hidden, 1, hidden, hidden), nonlinearity == "relu", lengths, h_n.reshape(-1),
        output.reshape(-1), hidden, chunk, UNIT.lanes(x.itemsize),
    )  # fmt: skip
    kernel = infer_rows.ready(x.dtype, *fixed, *(scratch(x.dtype),) * 2, 0, 0)

    def task(_: int, first: int, last: int) -> None:
        work = np.empty(chunk * (last - first) * hidden, x.dtype)
        kernel(*fixed, scratch(x.dtype), work, first, last)

    threads.run(task, parts)


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,) each in 1..T
    h: Array,  # (T+1, B, H) slot 0 in: the initial state; slots 1..T out
    a: Array,  # (T, B, H) out: pre-activations
) -> None:
    """The whole sequence, keeping everything."""
    (steps, batch, inputs), hidden = x.shape, h.shape[2]
    if (lengths < steps).any():
        for array in (h[1:], a):
            array[...] = 0
    parts = threads.split(batch, workers(steps * batch * hidden * (inputs + hidden)))
    most = max((last - first for first, last in parts), default=0)
    chunk = steps_per_chunk(steps, most, hidden * x.itemsize)
    fixed = (
        x.reshape(-1), inputs, batch, steps, bias_ih + bias_hh, packed(weight_ih, inputs, 1, hidden, inputs),
        packed(weight_hh, hidden, 1, hidden, hidden), nonlinearity == "relu", lengths, h.reshape(-1), a.reshape(-1),
        hidden, chunk, UNIT.lanes(x.itemsize),
    )  # fmt: skip
    kernel = forward_rows.ready(x.dtype, *fixed, scratch(x.dtype), 0, 0)
    threads.run(lambda _, first, last: kernel(*fixed, scratch(x.dtype), first, last), parts)


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, H) from forward
    dh: Array,  # (T+1, B, H) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    da: Array,  # (T, B, H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (H, I) out
    dweight_hh: Array,  # (H, H) out
    dbias_ih: Array,  # (H,) out
    dbias_hh: Array,  # (H,) out
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter."""
    (steps, batch, inputs), hidden = x.shape, h.shape[2]
    if (lengths < steps).any():
        da[...] = 0
    fixed = (
        batch, steps, packed(weight_hh, 1, hidden, hidden, hidden), nonlinearity == "relu", lengths, h.reshape(-1),
        dh.reshape(-1), da.reshape(-1), hidden, UNIT.lanes(x.itemsize),
    )  # fmt: skip
    kernel = backward_rows.ready(x.dtype, *fixed, scratch(x.dtype), 0, 0)
    busy = workers(steps * batch * hidden * (inputs + hidden))
    task = lambda _, first, last: kernel(*fixed, scratch(x.dtype), first, last)  # noqa: E731
    threads.run(task, threads.split(batch, busy))
    affine.backward(da, x, h, weight_ih, lengths, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, busy)  # undoes (1)
