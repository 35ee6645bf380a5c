"""Backpropagation through time over a whole sequence, with everything kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import check_array, check_device_array, describe, on_device
from scratchrnn.layers.stack import Recurrent
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.trace import Gradients, State

Layer = Recurrent | Wrapper
Cotangent = FloatArray | Callable[[FloatArray, int], FloatArray] | None


def full(
    layer: Layer,
    x: FloatArray,
    d_output: Cotangent = None,
    state: State | None = None,
    *,
    d_state: State | None = None,
    lengths: Any = None,
    clip: float | None = None,
    cut: BoolArray | None = None,
    detach_h: BoolArray | None = None,
    per_sample: bool = False,
) -> Gradients:
    """Forward in training mode, then backward, with every step kept: `layer.forward` and `layer.backward`.

    Parameters
    ----------
    layer : RNN or LSTM, or a wrapper of one
    x, state, lengths
        As in `layer.forward`.
    d_output : ndarray or callable, optional
        dL/d(output), or a function of the output that returns it, called as d_output(output, 0).
    d_state : ndarray, or (d_h_n, d_c_n) for the LSTM, optional
    clip : float, optional
    cut, detach_h : ndarray of bool, optional
    per_sample : bool
        As in `layer.backward`.

    Returns
    -------
    Gradients
    """
    check_layer(layer)
    trace = layer.forward(x, state, lengths)
    if callable(d_output):
        d = d_output(trace.output, 0)
        check = check_device_array if on_device(trace.output) else check_array
        d_output = check("d_output", d, shape=trace.output.shape, dtype=layer.dtype, why="of the output")
    return layer.backward(trace, d_output, d_state, clip=clip, cut=cut, detach_h=detach_h, per_sample=per_sample)


def check_layer(layer: Any) -> None:
    """Raise unless it is a recurrent layer, or wraps one."""
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected an RNN or LSTM; got {describe(layer)}")


def check_unwrapped(layer: Any) -> None:
    """Raise unless it is a recurrent layer itself, so that parts of one pass can be run anew."""
    if isinstance(layer, Wrapper):
        raise TypeError(f"layer: expected an RNN or LSTM itself, not what wraps one; got {layer!r}")
    check_layer(layer)
