"""The gradient that truncated backpropagation through time takes, and how far it is from the true one.

With the weights held still, all windows of `schedule` share one forward pass, and their gradients add up:

    g(k1, k2) = Σ_j  ∂( Σ_{first_j ≤ t < stop_j} L_t ) / ∂θ     the state at start_j a constant

Windows that start at the same step are run back together: gradients are linear in what enters at each step. Where
k2 ≥ T all of them start at step 0, and that is one full backward pass, with its bits.

    cosine = g · ĝ / (|g| |ĝ|)        norm ratio = |ĝ| / |g|        g the full gradient, ĝ the truncated one

References
----------
Williams, Peng, 1990 (BPTT(h; h')). Tallec, Ollivier, "Unbiasing truncated backpropagation through time",
arXiv:1705.08209, 2017 (that the truncated gradient is biased, and what that costs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_positive_int, describe, take_array
from scratchrnn.bptt.full import Cotangent, check_unwrapped
from scratchrnn.bptt.schedule import Span, schedule
from scratchrnn.bptt.stream import check_stream_layer
from scratchrnn.layers import direction, edge
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import Gradients, Key, LayerGradients, LayerTrace, State, Trace


def truncated(
    layer: Recurrent,
    x: FloatArray,
    d_output: Cotangent = None,
    *,
    k1: int,
    k2: int,
    state: State | None = None,
    d_state: State | None = None,
    lengths: Any = None,
) -> Gradients:
    """The sum of the gradients of all windows of truncated backpropagation through time, at the weights of now.

    `windows` hands them out one by one, for updates in between.

    Parameters
    ----------
    layer : RNN or LSTM
        In one direction.
    x, state, lengths
        As in `layer.forward`.
    d_output : ndarray or callable, optional
        dL/d(output); or d_output(output, first), called once for each window with the output of its new steps
        [first, stop), which returns it for them. Absent: zero.
    k1, k2 : int
        Steps between two windows' ends; steps that the gradient of each reaches back. See `scratchrnn.bptt.schedule`.
    d_state : ndarray, or (d_h_n, d_c_n) for an LSTM, optional
        As in `layer.backward`, at each sequence's own end; part of the loss of the window in which that lies.

    Returns
    -------
    Gradients
        Of the input, the initial state, every parameter, and every h_t, c_t and a_t: sums over windows, so that
        dL/dW is still the sum over time of dL/da_t ⊗ (what W multiplied). With k2 ≥ T the bits of `full`.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or range, or a layer with two directions.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, rng=rng)
    >>> x, d_output = rng.standard_normal((100, 2, 3), np.float32), rng.standard_normal((100, 2, 4), np.float32)
    >>> grads = srnn.bptt.truncated(lstm, x, d_output, k1=10, k2=20)
    >>> grads.parameters["weight_hh_l0"].shape, grads.h.shape
    ((16, 4), (101, 2, 4))
    """
    check_unwrapped(layer)
    check_stream_layer(layer)
    check_positive_int("k1", k1), check_positive_int("k2", k2)
    trace = layer.forward(take_array("x", x, dtype=layer.dtype), state, lengths)
    d = _whole_cotangent(layer, trace, d_output, k1, k2)
    return _truncated(layer, trace, d, d_state, k1, k2)


@dataclass(frozen=True, eq=False)
class TruncationBias:
    """How far truncated gradients are from the full one, by the steps k2 that they reach back.

    Attributes
    ----------
    k1, k2 : ndarray (K,) of int
    cosine : ndarray (K,)
        Of the angle between the truncated and the full gradient, all parameters as one vector; 1 where k2 ≥ T, NaN
        where a gradient is zero.
    norm_ratio : ndarray (K,)
        Norm of the truncated gradient over that of the full one.
    cosine_of, norm_ratio_of : dict of ndarray (K,)
        The same for each parameter alone.
    """

    k1: IntArray
    k2: IntArray
    cosine: FloatArray
    norm_ratio: FloatArray
    cosine_of: dict[str, FloatArray]
    norm_ratio_of: dict[str, FloatArray]

    @property
    def angle(self) -> FloatArray:
        """Angle between the truncated and the full gradient, in degrees (K,)."""
        return np.degrees(np.arccos(np.clip(self.cosine, -1, 1)))  # rounding may leave [-1, 1]

    def __repr__(self) -> str:
        rows = ", ".join(f"k2={k}: {c:.3f}" for k, c in zip(self.k2, self.cosine, strict=True))
        return f"TruncationBias(cosine at {rows})"


def truncation_bias(
    layer: Recurrent,
    x: FloatArray,
    d_output: Cotangent,
    *,
    k2: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    k1: int | None = None,
    state: State | None = None,
    lengths: Any = None,
) -> TruncationBias:
    """What truncation costs on your own data: truncated gradients beside the full one, for several k2.

    Parameters
    ----------
    layer, x, d_output, state, lengths
        As in `truncated`. One forward pass serves all; a callable d_output is asked once, with the whole output.
    k2 : sequence of int
        Each at least 1; those beyond T equal T.
    k1 : int, optional
        Steps between two windows' ends. Absent: k1 = k2, the usual practice, in which the loss at a window's first step
        flows back 1 step and that at its last one k2 steps. With k1=1 every loss flows back exactly k2 steps, in T
        backward passes over k2 steps.

    Returns
    -------
    TruncationBias
        `scratchrnn.plots.truncation_bias` draws it.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, rng=rng, dtype=np.float64)
    >>> x, d_output = rng.standard_normal((50, 2, 3)), rng.standard_normal((50, 2, 4))
    >>> srnn.bptt.truncation_bias(lstm, x, d_output, k2=(1, 5, 50))
    TruncationBias(cosine at k2=1: 0.810, k2=5: 0.984, k2=50: 1.000)
    """
    check_unwrapped(layer)
    check_stream_layer(layer)
    if not isinstance(k2, Sequence) or isinstance(k2, str) or not k2:
        raise TypeError(f"k2: expected a sequence of at least one integer; got {describe(k2)}")
    reach = [check_positive_int(f"k2[{n}]", k) for n, k in enumerate(k2)]
    stride = [k if k1 is None else check_positive_int("k1", k1) for k in reach]
    trace = layer.forward(take_array("x", x, dtype=layer.dtype), state, lengths)
    steps = len(trace[0].input)
    d = _whole_cotangent(layer, trace, d_output, steps, steps)
    full = _vectors(layer.backward(trace, d))
    found = [_vectors(_truncated(layer, trace, d, None, a, b)) for a, b in zip(stride, reach, strict=True)]

    def measure(names: list[str]) -> tuple[FloatArray, FloatArray]:
        g = np.concatenate([full[name] for name in names])
        pairs = [_compare(g, np.concatenate([one[name] for name in names])) for one in found]
        cosines, ratios = zip(*pairs, strict=True)
        return np.array(cosines), np.array(ratios)

    each = {name: measure([name]) for name in full}
    cosine_of, norm_ratio_of = ({name: pair[n] for name, pair in each.items()} for n in (0, 1))
    return TruncationBias(np.array(stride), np.array(reach), *measure(list(full)), cosine_of, norm_ratio_of)


def _vectors(gradients: Gradients) -> dict[str, FloatArray]:
    """Each parameter's gradient as a vector in float64, in which sums over it are taken."""
    return {name: g.ravel().astype(np.float64) for name, g in gradients.parameters.items()}


@np.errstate(all="ignore")
def _compare(g: FloatArray, t: FloatArray) -> tuple[float, float]:
    """Cosine of the angle between two vectors, and |t| / |g|; NaN where they are not defined."""
    scales = np.array([np.abs(v).max() for v in (g, t)])  # a gradient of 1e-200 must not vanish in its own square
    u, v = g / scales[0], t / scales[1]
    a, b = np.linalg.norm(u), np.linalg.norm(v)
    ratio = scales[1] / scales[0] * (b / a if scales[1] else 1)
    return float(u @ v / (a * b)), float(ratio)


def _whole_cotangent(layer: Recurrent, trace: Trace, d_output: Any, k1: int, k2: int) -> FloatArray | None:
    """dL/d(output) as (T, B, P) laid out like the output, asked for window by window if it is a function."""
    steps = len(trace[0].input)
    if not callable(d_output):
        return d_output  # backward checks it
    layout = {"batch_first": layer.batch_first, "batched": trace.batched}
    output, whole = edge.time_major(trace.output, **layout), np.zeros_like(trace.output)
    into = edge.time_major(whole, **layout)
    for _, first, stop in schedule(steps, k1, k2):
        own = edge.leave_output(output[first:stop].copy(), **layout)  # the caller may write into it
        d = take_array("d_output", d_output(own, first), shape=own.shape, dtype=layer.dtype, why="of the output")
        into[first:stop] = edge.time_major(d, **layout)
    return whole


def _truncated(
    layer: Recurrent,
    trace: Trace,
    d_output: FloatArray | None,
    d_state: State | None,
    k1: int,
    k2: int,
) -> Gradients:
    """Sum the gradients of all groups of windows that start together."""
    steps, total = len(trace[0].input), None
    d = layer._enter_d_output(d_output, trace)
    d_ends = layer._enter_state("d_state", d_state, len(trace.lengths), trace.batched)
    for span in _groups(schedule(steps, k1, k2)):
        part = slice(span.start, span.stop)
        within = None
        if d is not None:
            within = d[part].copy()
            within[: span.first - span.start] = 0  # those losses are other windows'
            within = edge.leave_output(within, batch_first=layer.batch_first, batched=trace.batched)
        grads = layer.backward(_slice(layer, trace, part), within, _ending_in(trace, d_ends, span))
        if part == slice(0, steps):
            return grads  # nothing was cut
        total = total or _Sum(layer, trace)
        total.add(part, grads)
    return (total or _Sum(layer, trace)).gradients()  # zero where k1 - k2 ≥ T, and no window has a loss


def _groups(spans: Iterator[Span]) -> Iterator[Span]:
    """Join windows that start at one step; the losses of a group are those of all its windows."""
    for _, together in groupby(spans, key=lambda span: span.start):
        first, *rest = together
        yield Span(first.start, first.first, (rest or [first])[-1].stop)


def _slice(layer: Recurrent, trace: Trace, part: slice) -> Trace:
    """The steps of a window alone: views, as if forward had started from the state there."""
    lengths = direction.lengths_in(trace.lengths, part)
    layers = {}
    for key, one in trace.layers.items():
        c, gates = (None if a is None else a[s] for a, s in ((one._c, direction.slots(part)), (one._gates, part)))
        h, read = one.h[direction.slots(part)], one.input[part]
        layers[key] = LayerTrace(h, read, lengths, one.reverse, one.minimal, c, gates, one._recompute)
    layout = {"batch_first": layer.batch_first, "batched": trace.batched}
    output = edge.leave_output(edge.time_major(trace.output, **layout)[part], **layout)
    masks = tuple(None if mask is None else mask[part] for mask in trace.dropout_masks)
    return replace(trace, output=output, layers=layers, lengths=lengths, dropout_masks=masks)


def _ending_in(trace: Trace, d_state: tuple[FloatArray | None, ...], span: Span) -> State | None:
    """dL/d(final state) of the sequences whose last step is one of the window's new ones; zero for the others."""
    if all(d is None for d in d_state):
        return None
    ends = (span.first < trace.lengths) & (trace.lengths <= span.stop)
    within = [None if d is None else np.where(ends[:, None], d, d.dtype.type(0)) for d in d_state]
    within = [d if d is None or trace.batched else d[:, 0] for d in within]
    return cast(State, within[0] if len(within) == 1 else tuple(within))


class _Sum:
    """Gradients of windows added up, each at its own steps."""

    def __init__(self, layer: Recurrent, trace: Trace) -> None:
        self.layout = {"batch_first": layer.batch_first, "batched": trace.batched}
        self.dx = np.zeros_like(trace[0].input)
        self.parameters = {name: np.zeros_like(w) for name, w in trace.parameters.items()}
        self.h = {key: np.zeros_like(one.h) for key, one in trace.layers.items()}
        self.c = {key: np.zeros_like(one._c) for key, one in trace.layers.items() if one._c is not None}
        rows = {key: trace.parameters[f"weight_ih{layer._suffix(key)}"].shape[0] for key in trace.layers}
        self.a = {key: np.zeros((*self.dx.shape[:2], rows[key]), self.dx.dtype) for key in trace.layers}

    @np.errstate(all="ignore")
    def add(self, part: slice, grads: Gradients) -> None:
        """Add the gradients of one window; its starting state is a constant, but for step 0's."""
        self.dx[part] += edge.time_major(cast(FloatArray, grads.input), **self.layout)
        for name, g in grads.parameters.items():
            self.parameters[name] += g
        new = slice(int(part.start > 0), None)
        into = slice(part.start + int(part.start > 0), part.stop + 1)
        for key, one in grads.layers.items():
            self.h[key][into] += one.h[new]
            self.a[key][part] += one.a
            if key in self.c:
                self.c[key][into] += one.c[new]

    def gradients(self) -> Gradients:
        """What was added up."""
        d_h_0 = np.stack([h[0] for h in self.h.values()])
        d_c_0 = np.stack([c[0] for c in self.c.values()]) if self.c else None
        layers: dict[Key, LayerGradients] = {
            key: LayerGradients(self.h[key], self.a[key], self.c.get(key)) for key in self.h
        }
        return Gradients(
            edge.leave_output(self.dx, **self.layout),
            edge.leave_state(d_h_0, d_c_0, batched=self.layout["batched"]),
            self.parameters,
            layers,
        )
