"""Backpropagation through time in memory for about √T steps, with the same gradients, bit for bit.

Only the states at the start of each segment are kept, and each segment is run again, from the last to the first, before
its backward. That costs one more forward pass (Chen et al., arXiv:1604.06174, 2016; for recurrent nets Gruslys et al.,
arXiv:1606.03401, 2016).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_positive_int, take_array
from scratchrnn.backends import Kernels, arrays, memory
from scratchrnn.bptt.full import Cotangent, check_unwrapped
from scratchrnn.layers import direction, edge
from scratchrnn.layers.direction import Cell, Weights
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import Gradients, LayerTrace, State


def checkpointed(
    layer: Recurrent,
    x: FloatArray,
    d_output: Cotangent = None,
    *,
    every: int | None = None,
    state: State | None = None,
    d_state: State | None = None,
    lengths: Any = None,
    clip: float | None = None,
) -> Gradients:
    """The gradients of `full`, bit for bit, in memory for about √T steps beside x and dL/dx.

    One pass for inference keeps the states at each segment's start. Then, from the last segment to the first, all
    layers run forward once more with everything kept, and backward. A layer's backward over a segment waits until the
    gradient that reaches the segment's first state from outside is known, so that it is added in the order of `full`;
    with L layers up to L+1 segments are in memory at a time.

    Parameters
    ----------
    layer : RNN or LSTM
        In one direction, and without dropout between layers.
    x, state, lengths
        As in `layer.forward`. x is never copied whole.
    d_output : ndarray or callable, optional
        dL/d(output), of the output's shape; or a function d_output(output, start) that returns it for one segment. It
        is called once for each segment, from the last to the first, with the segment's output in the layer's own
        layout and the time step that it starts at. So neither has to exist for the whole sequence. Absent: zero.
    every : int, optional
        Steps of a segment, √T when absent; rounded up to a multiple of `backends.block_steps(B, ...)` of the layer's
        backend, since cuts elsewhere would round the sums over time differently.
    d_state : ndarray, or (d_h_n, d_c_n) for the LSTM, optional
        As in `layer.backward`: at each sequence's own end.
    clip : float, optional
        As in `layer.backward`.

    Returns
    -------
    Gradients
        Of the input, the initial state and every parameter. Nothing is kept per time step: `layers` is empty.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or range, or a layer with two directions or dropout between its layers.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, rng=rng)
    >>> x, targets = rng.standard_normal((1000, 2, 3), np.float32), np.zeros((1000, 2, 4), np.float32)
    >>> def half_square(output, start):  # gradient of ½ Σ (output - target)²
    ...     return output - targets[start : start + len(output)]
    >>> grads = srnn.bptt.checkpointed(lstm, x, half_square)
    >>> want = srnn.bptt.full(lstm, x, half_square)
    >>> bool((grads.parameters["weight_hh_l0"] == want.parameters["weight_hh_l0"]).all())
    True
    """
    check_unwrapped(layer)
    if layer.bidirectional:
        raise ValueError(
            "layer: expected one direction, since the reverse one starts from the end and its states at a segment need "
            "all that follows; got bidirectional=True"
        )
    if layer.dropout > 0 and layer.num_layers > 1:
        raise ValueError(
            f"layer: expected no dropout between layers, since the masks would have to be drawn twice and alike; got "
            f"dropout={layer.dropout}"
        )
    xs, h_0, c_0, ns, batched = layer._view(x, state, lengths)
    steps, batch, _ = xs.shape
    kernels = backends.load(layer.backend)
    every = None if every is None else check_positive_int("every", every)
    parts = direction.segments(steps, batch, kernels.name, every)
    d_h_n, d_c_n = (*layer._enter_state("d_state", d_state, batch, batched), None)[:2]
    d_of = _by_segment(layer, d_output, x.shape, batched)

    parameters = layer.state_dict()
    strands = [_Strand(Weights.of(parameters, f"_l{n}")) for n in range(layer.num_layers)]
    for n, strand in enumerate(strands):
        strand.d_h_n = None if d_h_n is None else d_h_n[n]
        strand.d_c_n = None if d_c_n is None else d_c_n[n]
    dx = memory.empty(xs.shape, layer.dtype)
    bound = edge.enter_clip(clip, layer.dtype)
    run = _Run(kernels, layer.cell, xs, ns, strands, dx, bound)

    starts: list[States] = [[(h_0[n], None if c_0 is None else c_0[n]) for n in range(layer.num_layers)]]
    for part in parts[:-1]:
        starts.append(run.infer(part, starts[-1]))
    for part in reversed(parts):
        output = run.forward(part, starts.pop())
        run.receive(len(strands) - 1, d_of(output, part))
    for n in reversed(range(len(strands))):
        run.backward(n, before=None)  # the first segment: nothing reaches its first state from outside

    d_c_0 = np.stack([cast(FloatArray, strand.d_c_0) for strand in strands]) if layer.cell.has_c else None
    d_parameters: dict[str, FloatArray] = {}
    for n, strand in enumerate(strands):
        d_parameters |= layer._named(strand.dw, (n, "forward"))
    return Gradients(
        edge.leave_output(dx, batch_first=layer.batch_first, batched=batched),
        edge.leave_state(np.stack([strand.d_h_0 for strand in strands]), d_c_0, batched=batched),
        {name: d_parameters[name] for name in layer.parameters},
        {},
    )


States = list[tuple[FloatArray, FloatArray | None]]  # h (B, P) and c (B, H) of an LSTM, for each layer


@dataclass
class _Segment:
    """Some steps of one layer, with the gradients of its states as far as they are known."""

    part: slice
    trace: LayerTrace
    dh: FloatArray  # (S+1, B, P)
    dc: FloatArray | None  # (S+1, B, H)


class _Strand:
    """One layer through time."""

    d_h_n: FloatArray | None  # (B, P) from the caller
    d_c_n: FloatArray | None  # (B, H)
    d_h_0: FloatArray  # (B, P) found at the end
    d_c_0: FloatArray | None  # (B, H)

    def __init__(self, w: Weights) -> None:
        self.w = w
        self.dw = w.zeros()
        self.traces: deque[tuple[slice, LayerTrace]] = deque()  # run forward, the gradient of their output not known
        self.waiting: deque[_Segment] = deque()  # that is known, but not yet what reaches their first state


@dataclass
class _Run:
    """One call of `checkpointed`."""

    kernels: Kernels
    cell: Cell
    x: FloatArray  # (T, B, I) the caller's own
    lengths: IntArray  # (B,)
    strands: list[_Strand]
    dx: FloatArray  # (T, B, I) out
    clip: float  # bound of each |dL/da_t|; inf: none

    def read(self, part: slice) -> FloatArray:
        """One segment of x, zero on padding: a copy."""
        x = memory.copy(self.x[part])
        arrays.zero_padding(x, direction.lengths_in(self.lengths, part))
        return x

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def infer(self, part: slice, states: States) -> States:
        """From the states at a segment's start to those at its end; a sequence that has ended keeps its own."""
        below, ns, after = self.read(part), direction.lengths_in(self.lengths, part), []
        for strand, (h, c) in zip(self.strands, states, strict=True):
            h_n, c_n = np.empty_like(h), (None if c is None else np.empty_like(c))
            below = direction.infer(self.kernels, self.cell, below, h, c, strand.w, ns, h_n, c_n)
            after.append((h_n, c_n))
        return after

    @np.errstate(all="ignore")
    def forward(self, part: slice, states: States) -> FloatArray:  # output (S, B, P)
        """Run a segment with everything kept."""
        below, ns = self.read(part), direction.lengths_in(self.lengths, part)
        for strand, (h, c) in zip(self.strands, states, strict=True):
            trace = direction.forward(self.kernels, self.cell, below, h, c, strand.w, ns)
            strand.traces.append((part, trace))
            below = trace.h[1:]
        return below

    @np.errstate(all="ignore")
    def receive(self, n: int, d_output: FloatArray | None) -> None:
        """Layer n's next segment gets dL/d(output) (S, B, P): now the one after it has all it needs to run back."""
        strand = self.strands[n]
        part, trace = strand.traces.popleft()
        ends = self.lengths - part.start
        dh, dc = direction.cotangents(trace, d_output, strand.d_h_n, strand.d_c_n, ends)
        strand.waiting.append(_Segment(part, trace, dh, dc))
        if len(strand.waiting) == 2:
            self.backward(n, before=strand.waiting[1])

    @np.errstate(all="ignore")
    def backward(self, n: int, before: _Segment | None) -> None:
        """Run layer n back over the segment that waits; its first state is the last one of the segment before it.

        What reaches that state from outside must be in place before the kernel adds to it: a + (b + c) is another sum.
        """
        strand = self.strands[n]
        segment = strand.waiting.popleft()
        part, trace, dh, dc = segment.part, segment.trace, segment.dh, segment.dc
        if before is not None:
            dh[0] = before.dh[-1]
            if dc is not None and before.dc is not None:
                dc[0] = before.dc[-1]
        da = memory.empty((part.stop - part.start, len(self.lengths), strand.w.weight_ih.shape[0]), dh.dtype)
        dx = memory.empty(trace.input.shape, trace.input.dtype) if n else self.dx[part]
        direction.backward_kernel(
            self.kernels, self.cell, strand.w, trace.input, trace.lengths, trace.h, trace._c, trace._gates, dh, dc, da,
            dx, strand.dw, self.clip,
        )  # fmt: skip
        if before is None:
            strand.d_h_0, strand.d_c_0 = dh[0], None if dc is None else dc[0]
        else:
            before.dh[-1] = dh[0]
            if dc is not None and before.dc is not None:
                before.dc[-1] = dc[0]
        if n:
            self.receive(n - 1, dx)


def _by_segment(
    layer: Recurrent, d_output: Any, x_shape: tuple[int, ...], batched: bool
) -> Callable[[FloatArray, slice], FloatArray | None]:
    """What gives dL/d(output) (S, B, P) of a segment, from its output (S, B, P) and place in time."""
    layout = {"batch_first": layer.batch_first, "batched": batched}
    if d_output is None:
        return lambda output, part: None
    if not callable(d_output):
        shape = (*x_shape[:-1], layer.output_size)
        d_output = take_array("d_output", d_output, shape=shape, dtype=layer.dtype, why="of the output")
        whole = edge.time_major(d_output, **layout)
        return lambda output, part: whole[part]

    def ask(output: FloatArray, part: slice) -> FloatArray:
        own = edge.leave_output(output.copy(), **layout)  # the caller may write into it
        d = take_array("d_output", d_output(own, part.start), shape=own.shape, dtype=layer.dtype, why="of the output")
        return edge.time_major(d, **layout)

    return ask
