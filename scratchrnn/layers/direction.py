"""One direction of one layer: allocates what a backend's kernels write into, and calls them.

Here the cells differ; above this module (stacking, directions, lengths, dropout) they do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import BoolArray, FloatArray, IntArray
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


def between_cuts(segment: slice, cut: BoolArray) -> list[slice]:  # cut (T, B)
    """Pieces of a segment: one begins at each step where a sample is cut, and one at the block of sums after it.

    So a block without a cut inside is summed as if there were none anywhere.
    """
    block = backends.block_steps(cut.shape[1])
    at = segment.start + np.flatnonzero(cut[segment].any(axis=1))
    inside = (int(t) for t in (*at, *(-(-at // block) * block)) if segment.start < t < segment.stop)
    edges = sorted({segment.start, *inside, segment.stop})
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


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
    *,
    clip: float = math.inf,  # bound of each |dL/da_t|; inf: none
    cut: BoolArray | None = None,  # (T, B) in the input's order of time; None: nowhere
    detach_h: BoolArray | None = None,  # (T, B) likewise, of an LSTM
) -> tuple[FloatArray, LayerGradients, Weights]:  # dx (T, B, I) in the input's order; per step; per parameter
    """The gradient of everything that `forward` computed or read."""
    (steps, batch, _), lengths, read = trace.input.shape, trace.lengths, _read(trace)
    if d_output is not None and trace.reverse:
        d_output = reverse_time(d_output, lengths)
    cut, detach_h = in_order_of_work(trace, cut), in_order_of_work(trace, detach_h)
    if cut is not None:
        cut = cut & (np.arange(steps)[:, None] < lengths)  # what is on padding begins no piece
    dh, dc = cotangents(trace, d_output, d_h_n, d_c_n, lengths)
    dx, dw = memory.empty(trace.input.shape, trace.input.dtype), w.zeros()
    parts = segments(steps, batch) if trace.minimal else [slice(0, steps)]
    da = memory.empty((parts[0].stop, batch, w.weight_ih.shape[0]), dh.dtype)  # of the longest segment
    gates = memory.empty(da.shape, da.dtype) if cell.has_c and trace.minimal else trace._gates
    for part in reversed(parts):
        if gates is not None and trace.minimal:
            Recompute(kernels.name, cell, w).gates_in(part, trace, read, gates[: part.stop - part.start])
        for piece in [part] if cut is None else reversed(between_cuts(part, cut)):
            here = slice(piece.start - part.start, piece.stop - part.start)
            c, dc_in = (None, None) if dc is None else (trace.c[slots(piece)], dc[slots(piece)])
            with _held((dh, dc), piece.start, None if cut is None else cut[piece.start]):
                backward_kernel(
                    kernels, cell, w, read[piece], lengths_in(lengths, piece), trace.h[slots(piece)], c,
                    None if gates is None else gates[here], dh[slots(piece)], dc_in, da[here], dx[piece], dw, clip,
                    None if detach_h is None else detach_h[piece],
                )  # fmt: skip
    per_step = LayerGradients(dh, None if trace.minimal else da, dc)
    return (reverse_time(dx, lengths) if trace.reverse else dx), per_step, dw


def in_order_of_work(trace: LayerTrace, mask: BoolArray | None) -> BoolArray | None:
    """A mask (T, B) of steps, from the input's order of time to the direction's."""
    return mask if mask is None or not trace.reverse else reverse_time(mask[:, :, None], trace.lengths)[:, :, 0]


@contextmanager
def _held(states: tuple[FloatArray | None, ...], slot: int, samples: BoolArray | None) -> Iterator[None]:
    """Keep what these samples have in a slot of (T+1, B, ·) as it was before the block."""
    if samples is None or not samples.any():
        yield
        return
    before = [None if d is None else d[slot, samples] for d in states]
    yield
    for d, kept in zip(states, before, strict=True):
        if d is not None:
            d[slot, samples] = kept


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
    clip: float = math.inf,  # bound of each |dL/da_t|; inf: none
    detach_h: BoolArray | None = None,  # (S, B) of an LSTM: where the gates send nothing to h_{t-1}; None: nowhere
) -> None:
    """A backend's backward over the S steps of one segment."""
    d_parameters = (dw.weight_ih, dw.weight_hh, dw.bias_ih, dw.bias_hh)
    if cell.has_c:
        kernels.lstm.backward(
            x, w.weight_ih, w.weight_hh, w.weight_hr, lengths, h, c, gates, clip, detach_h, dh, dc, da, dx,
            *d_parameters, dw.weight_hr,
        )  # fmt: skip
    else:
        kernels.rnn.backward(
            x, w.weight_ih, w.weight_hh, cell.nonlinearity, lengths, h, clip, dh, da, dx, *d_parameters
        )
