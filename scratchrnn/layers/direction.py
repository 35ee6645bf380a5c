"""One direction of one layer: allocates what a backend's kernels write into, and calls them.

Here the cells differ; above this module (stacking, directions, lengths, dropout) they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.backends import Kernels
from scratchrnn.trace import LayerGradients, LayerTrace, reverse_time, zero_padding

GATES = {"rnn": 1, "lstm": 4}
NONLINEARITIES = ("tanh", "relu")


def check_nonlinearity(value: Any) -> str:
    """Return `value` if it names a nonlinearity of the vanilla RNN."""
    if not isinstance(value, str) or value not in NONLINEARITIES:
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu'; got {value!r}")
    return value


@dataclass(frozen=True)
class Cell:
    """Which recurrence."""

    kind: str  # "rnn" or "lstm"
    nonlinearity: str = "tanh"  # of the rnn: "tanh" or "relu"

    @property
    def name(self) -> str:
        """ "lstm", "rnn_tanh" or "rnn_relu"."""
        return self.kind if self.has_c else f"{self.kind}_{self.nonlinearity}"

    @property
    def has_c(self) -> bool:
        """Whether there is a cell state."""
        return self.kind == "lstm"


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters of one direction of one layer, as kernels take them."""

    weight_ih: FloatArray  # (G·H, I)
    weight_hh: FloatArray  # (G·H, P)
    bias_ih: FloatArray  # (G·H,) zeros where the layer has none
    bias_hh: FloatArray  # (G·H,)
    weight_hr: FloatArray | None  # (P, H)

    @classmethod
    def of(cls, parameters: Mapping[str, FloatArray], suffix: str) -> Weights:
        """Pick the parameters whose names end in `suffix`."""
        weight_ih = parameters[f"weight_ih{suffix}"]
        zeros = np.zeros(weight_ih.shape[0], weight_ih.dtype) if f"bias_ih{suffix}" not in parameters else None
        return cls(
            weight_ih,
            parameters[f"weight_hh{suffix}"],
            parameters[f"bias_ih{suffix}"] if zeros is None else zeros,
            parameters[f"bias_hh{suffix}"] if zeros is None else zeros,
            parameters.get(f"weight_hr{suffix}"),
        )


def infer(
    kernels: Kernels,
    cell: Cell,
    x: FloatArray,  # (T, B, I) in the direction's order
    h_0: FloatArray,  # (B, P)
    c_0: FloatArray | None,  # (B, H) of an LSTM
    w: Weights,
    lengths: IntArray,  # (B,)
) -> tuple[FloatArray, FloatArray, FloatArray | None]:  # output (T, B, P), h_n (B, P), c_n (B, H)
    """Output and final state, nothing kept."""
    output = np.empty((x.shape[0], *h_0.shape), x.dtype)
    h_n = np.empty(h_0.shape, x.dtype)
    if c_0 is None:
        kernels.rnn.infer(
            x, h_0, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, cell.nonlinearity, lengths, output, h_n
        )
        return output, h_n, None
    c_n = np.empty(c_0.shape, x.dtype)
    kernels.lstm.infer(
        x, h_0, c_0, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, w.weight_hr, lengths, output, h_n, c_n
    )
    return output, h_n, c_n


def forward(
    kernels: Kernels,
    cell: Cell,
    x: FloatArray,  # (T, B, I) in the input's order of time
    h_0: FloatArray,  # (B, P)
    c_0: FloatArray | None,  # (B, H) of an LSTM
    w: Weights,
    lengths: IntArray,  # (B,)
    reverse: bool,
) -> LayerTrace:
    """Everything kept."""
    steps, batch, _ = x.shape
    read = reverse_time(x, lengths) if reverse else x
    h = np.empty((steps + 1, *h_0.shape), x.dtype)
    h[0] = h_0
    a = np.empty((steps, batch, w.weight_ih.shape[0]), x.dtype)
    if c_0 is None:
        kernels.rnn.forward(read, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, cell.nonlinearity, lengths, h, a)
        return LayerTrace(h, a, x, lengths, reverse)
    c = np.empty((steps + 1, *c_0.shape), x.dtype)
    c[0] = c_0
    gates = np.empty_like(a)
    kernels.lstm.forward(read, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, w.weight_hr, lengths, h, c, gates, a)
    return LayerTrace(h, a, x, lengths, reverse, c, gates)


def backward(
    kernels: Kernels,
    cell: Cell,
    trace: LayerTrace,
    w: Weights,
    d_output: FloatArray,  # (T, B, P) in the input's order of time
    d_h_n: FloatArray | None,  # (B, P)
    d_c_n: FloatArray | None,  # (B, H)
) -> tuple[FloatArray, LayerGradients, Weights]:  # dx (T, B, I) in the input's order; per step; per parameter
    """The gradient of everything that `forward` computed or read."""
    lengths, x = trace.lengths, trace.input
    read = reverse_time(x, lengths) if trace.reverse else x
    ends = (lengths, np.arange(len(lengths)))

    dh = np.zeros_like(trace.h)
    dh[1:] = reverse_time(d_output, lengths) if trace.reverse else d_output
    zero_padding(dh[1:], lengths)  # the output there is constantly zero
    if d_h_n is not None:
        dh[ends] += d_h_n

    da, dx = np.empty_like(trace.a), np.empty_like(x)
    dw = Weights(
        np.empty_like(w.weight_ih),
        np.empty_like(w.weight_hh),
        np.empty_like(w.bias_ih),
        np.empty_like(w.bias_hh),
        None if w.weight_hr is None else np.empty_like(w.weight_hr),
    )
    d_parameters = (dw.weight_ih, dw.weight_hh, dw.bias_ih, dw.bias_hh)
    if not cell.has_c:
        kernels.rnn.backward(
            read, w.weight_ih, w.weight_hh, cell.nonlinearity, lengths, trace.h, dh, da, dx, *d_parameters
        )
        dc = None
    else:
        dc = np.zeros_like(trace.c)
        if d_c_n is not None:
            dc[ends] += d_c_n
        kernels.lstm.backward(
            read, w.weight_ih, w.weight_hh, w.weight_hr, lengths, trace.h, trace.c, trace.gates,
            dh, dc, da, dx, *d_parameters, dw.weight_hr,
        )  # fmt: skip
    return (reverse_time(dx, lengths) if trace.reverse else dx), LayerGradients(dh, da, dc), dw
