"""One direction of one layer: allocates what a backend's kernels write into, and calls them.

Here the cells differ; above this module (stacking, directions, lengths, dropout) they do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn.backends import Kernels, arrays
from scratchrnn.layers.factors import PerSample, right_sides, unprojected
from scratchrnn.trace import LayerGradients, LayerTrace

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
    def of(cls, parameters: Mapping[str, FloatArray], suffix: str, arrays: Any = arrays) -> Weights:
        """Pick the parameters whose names end in `suffix`; `arrays` is of where they are."""
        weight_ih, weight_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
        bias_ih, bias_hh = parameters.get("bias_ih" + suffix), parameters.get("bias_hh" + suffix)
        if bias_ih is None or bias_hh is None:
            bias_ih = bias_hh = arrays.zeros((weight_ih.shape[0],), weight_ih.dtype)
        return cls(weight_ih, weight_hh, bias_ih, bias_hh, parameters.get("weight_hr" + suffix))

    def zeros(self, arrays: Any = arrays) -> Weights:
        """Zeros of these shapes: where gradients are summed."""
        return Weights._make(None if w is None else arrays.zeros(w.shape, w.dtype) for w in self)


def segments(steps: int, batch: int, backend: str, every: int | None = None) -> list[slice]:
    """Cut time into segments of `every` steps, √T when absent, rounded up to whole blocks of the backend's sums."""
    block = backends.block_steps(batch, backend)
    wanted = math.isqrt(steps - 1) + 1 if every is None else every
    size = -(-wanted // block) * block
    return [slice(start, min(start + size, steps)) for start in range(0, steps, size)]


def between_cuts(segment: slice, cut: BoolArray, backend: str) -> list[slice]:  # cut (T, B)
    """Pieces of a segment: one begins at each step where a sample is cut, and one at the block of sums after it.

    So a block without a cut inside is summed as if there were none anywhere.
    """
    block = backends.block_steps(cut.shape[1], backend)
    at = segment.start + np.flatnonzero(cut[segment].any(axis=1))
    inside = (int(t) for t in (*at, *(-(-at // block) * block)) if segment.start < t < segment.stop)
    edges = sorted({segment.start, *inside, segment.stop})
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def slots(part: slice) -> slice:
    """Slots of a state array between which the steps of a segment lead."""
    return slice(part.start, part.stop + 1)


def lengths_in(lengths: IntArray, part: slice) -> IntArray:
    """Steps that each sequence has within a segment."""
    steps: IntArray = np.minimum(np.maximum(lengths - part.start, 0), part.stop - part.start)  # np.clip takes longer
    return steps


@dataclass(frozen=True, eq=False)
class Recompute:
    """Computes again, bit for bit, what a trace does not keep; of names and arrays, so that a trace can be pickled."""

    backend: str
    cell: Cell
    weights: Weights

    @np.errstate(all="ignore")
    def a(self, trace: LayerTrace) -> FloatArray:
        """Pre-activations (T, B, G·H)."""
        with self._kernels(trace) as kernels:
            return self._a(kernels, trace, _read(kernels, trace), slice(0, len(trace.input)))

    @np.errstate(all="ignore")
    def gates(self, trace: LayerTrace) -> FloatArray:
        """Activated gates (T, B, 4H)."""
        steps, batch, _ = trace.input.shape
        with self._kernels(trace) as kernels:
            gates = kernels.arrays.empty((steps, batch, self.weights.weight_ih.shape[0]), trace.h.dtype)
            read = _read(kernels, trace)
            for part in segments(steps, batch, self.backend):
                self.gates_in(kernels, part, trace, read, gates[part])
        return cast(FloatArray, gates)

    def gates_in(self, kernels: Kernels, part: slice, trace: LayerTrace, read: FloatArray, gates: FloatArray) -> None:
        """Gates of one segment, into `gates` (S, B, 4H)."""
        a = self._a(kernels, trace, read, part)
        kernels.lstm.activate(a, lengths_in(trace.lengths, part), gates)

    def _kernels(self, trace: LayerTrace) -> AbstractContextManager[Kernels]:
        return backends.placed(backends.load(self.backend), "trace", trace.h)

    def _a(self, kernels: Kernels, trace: LayerTrace, read: FloatArray, part: slice) -> FloatArray:
        w = self.weights
        a = kernels.arrays.empty((part.stop - part.start, read.shape[1], w.weight_ih.shape[0]), read.dtype)
        (kernels.lstm if self.cell.has_c else kernels.rnn).preactivations(
            read[part], w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, lengths_in(trace.lengths, part),
            trace.h[slots(part)], a,
        )  # fmt: skip
        return cast(FloatArray, a)


def _read(kernels: Kernels, trace: LayerTrace) -> FloatArray:
    """The input in the direction's order of work."""
    read: FloatArray = kernels.arrays.reverse_time(trace.input, trace.lengths) if trace.reverse else trace.input
    return read


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
    output: FloatArray = kernels.arrays.empty((x.shape[0], *h_0.shape), x.dtype)
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
    arrays, (steps, batch, _) = kernels.arrays, x.shape
    read = arrays.reverse_time(x, lengths) if reverse else x
    again = Recompute(kernels.name, cell, w)
    h = arrays.empty((steps + 1, *h_0.shape), x.dtype)
    arrays.put(h[0], h_0)
    if c_0 is None:
        kernels.rnn.forward(read, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, cell.nonlinearity, lengths, h)
        return LayerTrace(h, x, lengths, reverse, minimal, None, None, again)
    c = arrays.empty((steps + 1, *c_0.shape), x.dtype)
    arrays.put(c[0], c_0)
    gates = None if minimal else arrays.empty((steps, batch, w.weight_ih.shape[0]), x.dtype)
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
    per_sample: PerSample | None = None,  # added to
) -> tuple[FloatArray, LayerGradients, Weights]:  # dx (T, B, I) in the input's order; per step; per parameter
    """The gradient of everything that `forward` computed or read."""
    arrays, (steps, batch, _), lengths = kernels.arrays, trace.input.shape, trace.lengths
    read = _read(kernels, trace)
    if d_output is not None and trace.reverse:
        d_output = arrays.reverse_time(d_output, lengths)
    cut, detach_h = in_order_of_work(trace, cut), in_order_of_work(trace, detach_h)
    if cut is not None:
        cut = cut & (np.arange(steps)[:, None] < lengths)  # what is on padding begins no piece
    dh, dc = cotangents(trace, d_output, d_h_n, d_c_n, lengths, arrays)
    dx, dw = arrays.empty(trace.input.shape, trace.input.dtype), w.zeros(arrays)
    parts = segments(steps, batch, kernels.name) if trace.minimal else [slice(0, steps)]
    da = arrays.empty((parts[0].stop, batch, w.weight_ih.shape[0]), dh.dtype)  # of the longest segment
    gates = arrays.empty(da.shape, da.dtype) if cell.has_c and trace.minimal else trace._gates
    for part in reversed(parts):
        if gates is not None and trace.minimal:
            Recompute(kernels.name, cell, w).gates_in(kernels, part, trace, read, gates[: part.stop - part.start])
        for piece in [part] if cut is None else reversed(between_cuts(part, cut, kernels.name)):
            here = slice(piece.start - part.start, piece.stop - part.start)
            c, dc_in = (None, None) if dc is None else (trace.c[slots(piece)], dc[slots(piece)])
            with _held(arrays, (dh, dc), piece.start, None if cut is None else cut[piece.start]):
                backward_kernel(
                    kernels, cell, w, read[piece], lengths_in(lengths, piece), trace.h[slots(piece)], c,
                    None if gates is None else gates[here], dh[slots(piece)], dc_in, da[here], dx[piece], dw, clip,
                    None if detach_h is None else detach_h[piece],
                )  # fmt: skip
        if per_sample is not None:
            here, m = slice(0, part.stop - part.start), None
            if gates is not None and w.weight_hr is not None:
                m = unprojected(gates[here][..., -trace.c.shape[2] :], trace.c[slots(part)])
            right = right_sides(read[part], trace.h[slots(part)], m)
            per_sample.add(right, da[here], dh[slots(part)][1:], lengths_in(lengths, part))
    per_step = LayerGradients(dh, None if trace.minimal else da, dc)
    return (arrays.reverse_time(dx, lengths) if trace.reverse else dx), per_step, dw


def in_order_of_work(trace: LayerTrace, mask: BoolArray | None) -> BoolArray | None:
    """A mask (T, B) of steps, from the input's order of time to the direction's."""
    return mask if mask is None or not trace.reverse else arrays.reverse_time(mask[:, :, None], trace.lengths)[:, :, 0]


@contextmanager
def _held(arrays: Any, states: tuple[FloatArray | None, ...], slot: int, samples: BoolArray | None) -> Iterator[None]:
    """Keep what these samples have in a slot of (T+1, B, ·) as it was before the block."""
    if samples is None or not samples.any():
        yield
        return
    before = [None if d is None else arrays.copy(d[slot]) for d in states]
    yield
    for d, kept in zip(states, before, strict=True):
        if d is not None:
            arrays.keep(d[slot], kept, samples)


def cotangents(
    trace: LayerTrace,
    d_output: FloatArray | None,  # (T, B, P) in the direction's order of work; None: zero
    d_h_n: FloatArray | None,  # (B, P)
    d_c_n: FloatArray | None,  # (B, H)
    lengths: IntArray,  # (B,) where each sequence ends; beyond the trace, or before it, where it is a segment
    arrays: Any = arrays,  # of where these are
) -> tuple[FloatArray, FloatArray | None]:  # dh (T+1, B, P), dc (T+1, B, H) of an LSTM
    """What each state receives from outside the recurrence, slot by slot; zero in slot 0."""
    ends = None if d_h_n is None and d_c_n is None else arrays.ends(lengths, len(trace.input))
    dh = arrays.empty(trace.h.shape, trace.h.dtype)
    if d_output is None:
        arrays.clear(dh)
    else:
        arrays.clear(dh[0])
        arrays.put(dh[1:], d_output)
        arrays.zero_padding(dh[1:], trace.lengths)  # the output there is constantly zero
    if d_h_n is not None:
        arrays.add_at(dh, ends, d_h_n)
    if trace._c is None:
        return dh, None
    dc = arrays.zeros(trace._c.shape, trace._c.dtype)
    if d_c_n is not None:
        arrays.add_at(dc, ends, d_c_n)
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
