"""Equation (1) of both cells once more, on CUDA: what `kernels/numpy/affine.py` defines as `preactivations`."""

from __future__ import annotations

from typing import Any

from . import per_step, persistent_preactivations, sums
from .call import Call
from .plan import choose_engine

Array = Any  # NumPy's or on a device


def preactivations(
    x: Array,  # (T, B, I) zero beyond a sequence's end
    weight_ih: Array,  # (R, I)
    weight_hh: Array,  # (R, P)
    bias_ih: Array,  # (R,) zeros where the layer has none
    bias_hh: Array,  # (R,)
    lengths: Array,  # (B,) each in 0..T
    h: Array,  # (T+1, B, P) from forward
    a: Array,  # (T, B, R) out: pre-activations
) -> None:
    """(1) once more, now that every h is known: bit for bit what forward computed on the way."""
    with Call(x, weight_ih, weight_hh, bias_ih, bias_hh, lengths, h, a) as call:
        queue, a = call.queue, call.write(a)
        sums.input_part(queue, call.read(x), call.read(weight_ih), a)
        bias = sums.bias(queue, call.read(bias_ih), call.read(bias_hh))
        weight_hh, lengths, h = call.read(weight_hh), call.read_lengths(lengths), call.read(h)
        rows, size = weight_hh.shape
        cell, hidden = ("rnn", rows) if rows == size else ("lstm", rows // 4)  # a projection is smaller than H
        plan = choose_engine(cell, h.shape[1], hidden, hidden != size, a.dtype.name, False, queue.device)
        if plan is None:
            per_step.preactivations(queue, a, bias, weight_hh, lengths, h)
        else:
            persistent_preactivations.preactivations(queue, plan, cell, a, bias, weight_hh, lengths, h[:-1])
