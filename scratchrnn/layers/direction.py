"""One direction of one layer: allocates what a backend's kernels write into, and calls them.

Here the cells differ; above this module (stacking, directions, lengths, dropout) they do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.backends import Kernels, memory
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


class Weights(NamedTuple):
    """The parameters of one direction of one layer, as kernels take them."""

    weight_ih: FloatArray  # (G·H, I)
    weight_hh: FloatArray  # (G·H, P)
    bias_ih: FloatArray  # (G·H,) zeros where the layer has none
    bias_hh: FloatArray  # (G·H,)
    weight_hr: FloatArray | None  # (P, H)

    @classmethod
    def of(cls, parameters: Mapping[str, FloatArray], suffix: str) -> Weights:
        """Pick the parameters whose names end in `suffix`."""
        weight_ih, weight_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
        bias_ih, bias_hh = parameters.get("bias_ih" + suffix), parameters.get("bias_hh" + suffix)
        if bias_ih is None or bias_hh is None:
            bias_ih = bias_hh = np.zeros(weight_ih.shape[0], weight_ih.dtype)
        return cls(weight_ih, weight_hh, bias_ih, bias_hh, parameters.get("weight_hr" + suffix))

    def zeros(self) -> Weights:
        """Zeros of these shapes: where gradients are summed."""
        return Weights._make(None if w is None else memory.zeros(w.shape, w.dtype) for w in self)


def segments(steps: int, batch: int, every: int | None = None) -> list[slice]:
    """Cut time into segments of `every` steps, √T when absent, rounded up to whole blocks of the kernels' sums."""
    block = backends.block_steps(batch)
    wanted = math.isqrt(steps - 1) + 1 if every is None else every
    size = -(-wanted // block) * block
    return [slice(start, min(start + size, steps)) for start in range(0, steps, size)]


def slots(part: slice) -> slice:
    """Slots of a state array between which the steps of a segment lead."""
    return slice(part.start, part.stop + 1)


def lengths_in(lengths: IntArray, part: slice) -> IntArray:
    """Steps that each sequence has within a segment."""
    return np.clip(lengths - part.start, 0, part.stop - part.start)


@dataclass(frozen=True, eq=False)
class Recompute:
    """Computes again, bit for bit, what a trace does not keep; of names and arrays, so that a trace can be pickled."""

    backend: str
    cell: Cell
    weights: Weights

    @np.errstate(all="ignore")
    def a(self, trace: LayerTrace) -> FloatArray:
        """Pre-activations (T, B, G·H)."""
        return self._a(trace, _read(trace), slice(0, len(trace.input)))

    @np.errstate(all="ignore")
    def gates(self, trace: LayerTrace) -> FloatArray:
        """Activated gates (T, B, 4H)."""
        steps, batch, _ = trace.input.shape
        gates = memory.empty((steps, batch, self.weights.weight_ih.shape[0]), trace.h.dtype)
        read = _read(trace)
        for part in segments(steps, batch):
            self.gates_in(part, trace, read, gates[part])
        return gates

    def gates_in(self, part: slice, trace: LayerTrace, read: FloatArray, gates: FloatArray) -> None:
        """Gates of one segment, into `gates` (S, B, 4H)."""
        a = self._a(trace, read, part)
        backends.load(self.backend).lstm.activate(a, lengths_in(trace.lengths, part), gates)

    def _a(self, trace: LayerTrace, read: FloatArray, part: slice) -> FloatArray:
        w, kernels = self.weights, backends.load(self.backend)
        a = memory.empty((part.stop - part.start, read.shape[1], w.weight_ih.shape[0]), read.dtype)
        (kernels.lstm if self.cell.has_c else kernels.rnn).preactivations(
            read[part], w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, lengths_in(trace.lengths, part),
            trace.h[slots(part)], a,
        )  # fmt: skip
        return a


def _read(trace: LayerTrace) -> FloatArray:
    """The input in the direction's order of work."""
    return reverse_time(trace.input, trace.lengths) if trace.reverse else trace.input


def infer(
    kernels: Kernels,
    cell: Cell,
    x: FloatArray,  # (T, B, I) in the direction's order
    h_0: FloatArray,  # (B, P)
    c_0: FloatArray | None,  # (B, H) of an LSTM
    w: Weights,
    lengths: IntArray,  # (B,)
    h_n: FloatArray,  # (B, P) out
    c_n: FloatArray | None,  # (B, H) out, of an LSTM
) -> FloatArray:  # (T, B, P)
    """Output and final state, nothing kept."""
    output = memory.empty((x.shape[0], *h_0.shape), x.dtype)
    if c_0 is None:
        kernels.rnn.infer(
            x, h_0, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, cell.nonlinearity, lengths, output, h_n
        )
        return output
    kernels.lstm.infer(
        x, h_0, c_0, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, w.weight_hr, lengths, output, h_n, c_n
    )
    return output


def forward(
    kernels: Kernels,
    cell: Cell,
    x: FloatArray,  # (T, B, I) in the input's order of time
    h_0: FloatArray,  # (B, P)
    c_0: FloatArray | None,  # (B, H) of an LSTM
    w: Weights,
    lengths: IntArray,  # (B,) each in 0..T
    *,
    reverse: bool = False,
    minimal: bool = False,
) -> LayerTrace:
    """Every state kept, and every gate unless `minimal`."""
    steps, batch, _ = x.shape
    read = reverse_time(x, lengths) if reverse else x
    again = Recompute(kernels.name, cell, w)
    h = memory.empty((steps + 1, *h_0.shape), x.dtype)
    h[0] = h_0
    if c_0 is None:
        kernels.rnn.forward(read, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, cell.nonlinearity, lengths, h)
        return LayerTrace(h, x, lengths, reverse, minimal, None, None, again)
    c = memory.empty((steps + 1, *c_0.shape), x.dtype)
    c[0] = c_0
    gates = None if minimal else memory.empty((steps, batch, w.weight_ih.shape[0]), x.dtype)
    kernels.lstm.forward(read, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, w.weight_hr, lengths, h, c, gates)
    return LayerTrace(h, x, lengths, reverse, minimal, c, gates, again)


def backward(
    kernels: Kernels,
    cell: Cell,
    trace: LayerTrace,
    w: Weights,
    d_output: FloatArray | None,  # (T, B, P) in the input's order of time; None: zero
    d_h_n: FloatArray | None,  # (B, P)
    d_c_n: FloatArray | None,  # (B, H)
) -> tuple[FloatArray, LayerGradients, Weights]:  # dx (T, B, I) in the input's order; per step; per parameter
    """The gradient of everything that `forward` computed or read."""
    (steps, batch, _), lengths, read = trace.input.shape, trace.lengths, _read(trace)
    if d_output is not None and trace.reverse:
        d_output = reverse_time(d_output, lengths)
    dh, dc = cotangents(trace, d_output, d_h_n, d_c_n, lengths)
    dx, dw = memory.empty(trace.input.shape, trace.input.dtype), w.zeros()
    parts = segments(steps, batch) if trace.minimal else [slice(0, steps)]
    da = memory.empty((parts[0].stop, batch, w.weight_ih.shape[0]), dh.dtype)  # of the longest segment
    gates = memory.empty(da.shape, da.dtype) if cell.has_c and trace.minimal else trace._gates
    for part in reversed(parts):
        count = part.stop - part.start
        gates_in = None if gates is None else gates[:count]
        if gates_in is not None and trace.minimal:
            Recompute(kernels.name, cell, w).gates_in(part, trace, read, gates_in)
        c, dc_in = (None, None) if dc is None else (trace.c[slots(part)], dc[slots(part)])
        backward_kernel(
            kernels, cell, w, read[part], lengths_in(lengths, part), trace.h[slots(part)], c, gates_in,
            dh[slots(part)], dc_in, da[:count], dx[part], dw,
        )  # fmt: skip
    per_step = LayerGradients(dh, None if trace.minimal else da, dc)
    return (reverse_time(dx, lengths) if trace.reverse else dx), per_step, dw


def cotangents(
    trace: LayerTrace,
    d_output: FloatArray | None,  # (T, B, P) in the direction's order of work; None: zero
    d_h_n: FloatArray | None,  # (B, P)
    d_c_n: FloatArray | None,  # (B, H)
    lengths: IntArray,  # (B,) where each sequence ends; beyond the trace, or before it, where it is a segment
) -> tuple[FloatArray, FloatArray | None]:  # dh (T+1, B, P), dc (T+1, B, H) of an LSTM
    """What each state receives from outside the recurrence, slot by slot; zero in slot 0."""
    steps = len(trace.input)
    ending = np.flatnonzero((lengths > 0) & (lengths <= steps))
    ends = (lengths[ending], ending)

    dh = memory.empty(trace.h.shape, trace.h.dtype)
    dh[0] = 0
    dh[1:] = 0 if d_output is None else d_output
    zero_padding(dh[1:], trace.lengths)  # the output there is constantly zero
    if d_h_n is not None:
        dh[ends] += d_h_n[ending]
    if trace._c is None:
        return dh, None
    dc = memory.zeros(trace._c.shape, trace._c.dtype)
    if d_c_n is not None:
        dc[ends] += d_c_n[ending]
    return dh, dc


def backward_kernel(
    kernels: Kernels,
    cell: Cell,
    w: Weights,
    x: FloatArray,  # (S, B, I) in the direction's order of work
    lengths: IntArray,  # (B,) each in 0..S
    h: FloatArray,  # (S+1, B, P)
    c: FloatArray | None,  # (S+1, B, H) of an LSTM
    gates: FloatArray | None,  # (S, B, 4H) of an LSTM
    dh: FloatArray,  # (S+1, B, P) in: from outside; out: total
    dc: FloatArray | None,  # (S+1, B, H) likewise
    da: FloatArray,  # (S, B, G·H) out
    dx: FloatArray,  # (S, B, I) out
    dw: Weights,  # added to
) -> None:
    """A backend's backward over the S steps of one segment."""
    d_parameters = (dw.weight_ih, dw.weight_hh, dw.bias_ih, dw.bias_hh)
    if cell.has_c:
        kernels.lstm.backward(
            x, w.weight_ih, w.weight_hh, w.weight_hr, lengths, h, c, gates, dh, dc, da, dx, *d_parameters, dw.weight_hr
        )
    else:
        kernels.rnn.backward(x, w.weight_ih, w.weight_hh, cell.nonlinearity, lengths, h, dh, da, dx, *d_parameters)
