"""The LSTM on CUDA: what `kernels/numpy/lstm.py` defines, with its signatures.

    B batch   T time   I input   H hidden   P projection (P = H without one)

Arrays are NumPy's, which are moved to the device and back, or CUDA arrays, taken as they are, on their stream.
What needs no h is a few big products (`sums.py`); the recurrence is an engine's.
"""

from __future__ import annotations

from typing import Any

from . import per_step, persistent_backward, persistent_forward, sums
from .call import Call
from .plan import choose_engine
from .pointwise import launch
from .pointwise_lstm import activate as activate_all
from .preactivations import preactivations
from .queue import Queue

__all__ = ["activate", "backward", "forward", "infer", "preactivations"]

Array = Any  # NumPy's or on a device
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
    lengths: Array,  # (B,) each in 0..T
    output: Array,  # (T, B, P) out
    h_n: Array,  # (B, P) out: h at each sequence's own end
    c_n: Array,  # (B, H) out
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    with Call(x, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, lengths, output, h_n, c_n) as call:
        _forward(
            call.queue, call.read(x), call.read(weight_ih), call.read(weight_hh), call.read(bias_ih),
            call.read(bias_hh), call.read(weight_hr), call.read_lengths(lengths), call.read(h_0), call.read(c_0),
            call.write(output), None, None, call.write(h_n), call.write(c_n),
        )  # fmt: skip


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    bias_ih: Array,  # (4H,) zeros where the layer has none
    bias_hh: Array,  # (4H,)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Array,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) slot 0 in: the initial state; slots 1..T out
    c: Array,  # (T+1, B, H) likewise
    gates: Array | None,  # (T, B, 4H) out: i, f, g, o; None: not kept
) -> None:
    """The whole sequence, keeping every state, and every gate where there is room."""
    with Call(x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, lengths, h, c, gates) as call:
        _forward(
            call.queue, call.read(x), call.read(weight_ih), call.read(weight_hh), call.read(bias_ih),
            call.read(bias_hh), call.read(weight_hr), call.read_lengths(lengths), call.read(h[0]), call.read(c[0]),
            call.write(h[1:]), call.write(c[1:]), None if gates is None else call.write(gates), None, None,
        )  # fmt: skip


def _forward(
    queue: Queue,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array,
    bias_hh: Array,
    weight_hr: Array | None,
    lengths: Array,  # (B,) int32
    h_0: Array,  # (B, P)
    c_0: Array,  # (B, H)
    y: Array,  # (T, B, P) out
    c: Array | None,  # (T, B, H) out
    gates: Array | None,  # (T, B, 4H) out
    h_n: Array | None,  # (B, P) out
    c_n: Array | None,  # (B, H) out
) -> None:
    """Arrays on the device."""
    # each step's gates replace what they are made of
    a_x = queue.empty((*x.shape[:2], len(weight_ih)), x.dtype) if gates is None else gates
    sums.input_part(queue, x, weight_ih, a_x)
    bias = sums.bias(queue, bias_ih, bias_hh)
    states = (lengths, h_0, c_0, y, c, gates, h_n, c_n)
    batch, hidden = c_0.shape
    plan = choose_engine("lstm", batch, hidden, weight_hr is not None, x.dtype.name, False, queue.device)
    if plan is None:
        per_step.lstm_forward(queue, a_x, bias, weight_hh, weight_hr, *states)
    else:
        persistent_forward.forward(queue, plan, "lstm", a_x, bias, weight_hh, *states)


def activate(
    a: Array,  # (T, B, 4H) from preactivations
    lengths: Array,  # (B,) each in 0..T
    gates: Array,  # (T, B, 4H) out: i, f, g, o
) -> None:
    """(2) once more: bit for bit the gates that forward computed."""
    with Call(a, lengths, gates) as call:
        a, lengths, gates = call.read(a), call.read_lengths(lengths), call.write(gates)
        launch(activate_all(a.dtype.name), call.queue, a.size, a, lengths, a.shape[2] // GATES, gates)


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (4H, I)
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Array,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from forward
    c: Array,  # (T+1, B, H) from forward
    gates: Array,  # (T, B, 4H) from forward
    clip: float,  # bound of each |dL/da_t|, before it flows on; inf: none
    detach_h: Array | None,  # (T, B) True: the step's gates send nothing to h_{t-1}; None: nowhere
    dh: Array,  # (T+1, B, P) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    dc: Array,  # (T+1, B, H) in: dL/dc_t from outside; out: the total dL/dc_t
    da: Array,  # (T, B, 4H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (4H, I) added to
    dweight_hh: Array,  # (4H, P) added to
    dbias_ih: Array,  # (4H,) added to
    dbias_hh: Array,  # (4H,) added to
    dweight_hr: Array | None,  # (P, H) added to, or None
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter.

    The parameters' gradients are added to what the caller put there: zeros, or those of the steps that follow these.
    """
    outs = (dh, dc, da, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, dweight_hr)
    with Call(x, weight_ih, weight_hh, weight_hr, lengths, h, c, gates, detach_h, *outs) as call:
        queue, lengths = call.queue, call.read_lengths(lengths)
        gates, c, dh, dc, da = call.read(gates), call.read(c), call.update(dh), call.update(dc), call.write(da)
        _recurrent_backward(
            queue, call.read(weight_hh), call.read(weight_hr), lengths, c, gates, clip, call.read(detach_h), dh, dc, da
        )
        sums.backward(
            queue, da, call.read(x), call.read(h[:-1]), call.read(weight_ih), lengths, call.write(dx),
            call.update(dweight_ih), call.update(dweight_hh), call.update(dbias_ih), call.update(dbias_hh),
        )  # fmt: skip
        if dweight_hr is not None:
            sums.projection_backward(queue, dh[1:], gates, c[1:], call.update(dweight_hr))


def _recurrent_backward(
    queue: Queue,
    weight_hh: Array,
    weight_hr: Array | None,
    lengths: Array,  # (B,) int32
    c: Array,
    gates: Array,
    clip: float,
    detach_h: Array | None,  # (T, B) uint8
    dh: Array,
    dc: Array,
    da: Array,
) -> None:
    """Arrays on the device: dh, dc and da."""
    _, batch, hidden = c.shape
    plan = choose_engine("lstm", batch, hidden, weight_hr is not None, c.dtype.name, True, queue.device)
    if plan is None:
        per_step.lstm_backward(queue, weight_hh, weight_hr, lengths, c, gates, clip, detach_h, dh, dc, da)
    else:
        persistent_backward.backward(
            queue, plan, "lstm", weight_hh, lengths, None, c, gates, clip, detach_h, dh, dc, da
        )
