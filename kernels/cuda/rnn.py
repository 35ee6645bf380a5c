"""The vanilla RNN on CUDA: what `kernels/numpy/rnn.py` defines, with its signatures.

    B batch   T time   I input   H hidden

Arrays are NumPy's, which are moved to the device and back, or CUDA arrays, taken as they are, on their stream.
What needs no h is a few big products (`sums.py`); the recurrence is an engine's.
"""

from __future__ import annotations

from typing import Any

from . import per_step, persistent_backward, persistent_forward, sums
from .call import Call
from .plan import choose_engine
from .preactivations import preactivations
from .queue import Queue

__all__ = ["backward", "forward", "infer", "preactivations"]

Array = Any  # NumPy's or on a device


def infer(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    h_0: Array,  # (B, H)
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Array,  # (B,) each in 0..T
    output: Array,  # (T, B, H) out
    h_n: Array,  # (B, H) out: h at each sequence's own end
) -> None:
    """The whole sequence, keeping only the output and the final state."""
    with Call(x, h_0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, output, h_n) as call:
        _forward(
            call.queue, call.read(x), call.read(weight_ih), call.read(weight_hh), call.read(bias_ih),
            call.read(bias_hh), nonlinearity, call.read_lengths(lengths), call.read(h_0), call.write(output),
            call.write(h_n),
        )  # fmt: skip


def forward(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    bias_ih: Array,  # (H,) zeros where the layer has none
    bias_hh: Array,  # (H,)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Array,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) slot 0 in: the initial state; slots 1..T out
) -> None:
    """The whole sequence, keeping every state."""
    with Call(x, weight_ih, weight_hh, bias_ih, bias_hh, lengths, h) as call:
        _forward(
            call.queue, call.read(x), call.read(weight_ih), call.read(weight_hh), call.read(bias_ih),
            call.read(bias_hh), nonlinearity, call.read_lengths(lengths), call.read(h[0]), call.write(h[1:]), None,
        )  # fmt: skip


def _forward(
    queue: Queue,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array,
    bias_hh: Array,
    nonlinearity: str,
    lengths: Array,  # (B,) int32
    h_0: Array,  # (B, H)
    y: Array,  # (T, B, H) out
    h_n: Array | None,  # (B, H) out
) -> None:
    """Arrays on the device."""
    # W_ih x_t has the shape of h_t, and makes room for it
    sums.input_part(queue, x, weight_ih, y)
    bias = sums.bias(queue, bias_ih, bias_hh)
    batch, hidden = h_0.shape
    plan = choose_engine("rnn", batch, hidden, False, h_0.dtype.name, False, queue.device)
    if plan is None:
        per_step.rnn_forward(queue, y, bias, weight_hh, nonlinearity, lengths, h_0, y, h_n)
    else:
        persistent_forward.forward(
            queue, plan, f"rnn_{nonlinearity}", y, bias, weight_hh, lengths, h_0, None, y, None, None, h_n, None
        )


def backward(
    x: Array,  # (T, B, I) as given to forward
    weight_ih: Array,  # (H, I)
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Array,  # (B,) each in 0..T
    h: Array,  # (T+1, B, H) from forward
    clip: float,  # bound of each |dL/da_t|, before it flows on; inf: none
    dh: Array,  # (T+1, B, H) in: dL/dh_t from outside the recurrence, zero where none; out: the total dL/dh_t
    da: Array,  # (T, B, H) out: dL/da_t
    dx: Array,  # (T, B, I) out
    dweight_ih: Array,  # (H, I) added to
    dweight_hh: Array,  # (H, H) added to
    dbias_ih: Array,  # (H,) added to
    dbias_hh: Array,  # (H,) added to
) -> None:
    """Backward through time: the gradient of every state, pre-activation, input and parameter.

    The parameters' gradients are added to what the caller put there: zeros, or those of the steps that follow these.
    """
    outs = (dh, da, dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh)
    with Call(x, weight_ih, weight_hh, lengths, h, *outs) as call:
        queue, lengths, h = call.queue, call.read_lengths(lengths), call.read(h)
        da = call.write(da)
        _recurrent_backward(queue, call.read(weight_hh), nonlinearity, lengths, h[1:], clip, call.update(dh), da)
        sums.backward(
            queue, da, call.read(x), h[:-1], call.read(weight_ih), lengths, call.write(dx),
            call.update(dweight_ih), call.update(dweight_hh), call.update(dbias_ih), call.update(dbias_hh),
        )  # fmt: skip


def _recurrent_backward(
    queue: Queue,
    weight_hh: Array,
    nonlinearity: str,
    lengths: Array,  # (B,) int32
    h: Array,  # (T, B, H) slots 1 to T
    clip: float,
    dh: Array,
    da: Array,
) -> None:
    """Arrays on the device: dh and da."""
    _, batch, hidden = h.shape
    plan = choose_engine("rnn", batch, hidden, False, h.dtype.name, True, queue.device)
    if plan is None:
        per_step.rnn_backward(queue, weight_hh, nonlinearity, lengths, h, clip, dh, da)
    else:
        persistent_backward.backward(
            queue, plan, f"rnn_{nonlinearity}", weight_hh, lengths, h, None, None, clip, None, dh, None, da
        )
