"""Truncated backpropagation through time, window by window, so that a caller may update between two.

For each window of `schedule`:

    h_start                      a constant: the state there as the window before computed it
    h_t = layer(x_t, h_{t-1})    start ≤ t < stop, with the weights of now
    L = Σ L_t                    first ≤ t < stop: the steps that are new
    gradients of L               back to start, and no further

k1 = k2 is what detaching the state between two calls gives. k2 > k1 is not: the steps before `first` are run again,
with weights that have been updated since, from a state that is k2 - k1 steps older.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import check_positive_int, describe, see, take_array
from scratchrnn.backends import memory
from scratchrnn.bptt import stream
from scratchrnn.bptt.full import Cotangent, Layer
from scratchrnn.bptt.schedule import Span, schedule
from scratchrnn.bptt.stream import StreamGradients, StreamTrace
from scratchrnn.trace import State

Inputs = FloatArray | Callable[[int, int], FloatArray]
Steps = BoolArray | Callable[[int, int], BoolArray]


@dataclass(frozen=True, eq=False)
class Window:
    """One window of truncated backpropagation through time, run forward and back.

    Attributes
    ----------
    start, first, stop : int
        The gradient flows through steps [start, stop); the losses are those of [first, stop).
    trace : StreamTrace
        Of steps [start, stop).
    gradients : StreamGradients
        Of the window's losses: of `input` on [start, stop), of every parameter, of every state.
    carry : ndarray or (h, c), or None
        State where the next window starts: with `begin=stop` and `state=carry`, `windows` goes on exactly. None where
        that is still the initial state.
    """

    start: int
    first: int
    stop: int
    trace: StreamTrace
    gradients: StreamGradients
    carry: State | None

    @property
    def state(self) -> State:
        """State after the last step."""
        return self.trace.state


def windows(
    layer: Layer,
    x: Inputs,
    d_output: Cotangent = None,
    *,
    k1: int,
    k2: int,
    state: State | None = None,
    initial: State | None = None,
    steps: int | None = None,
    begin: int = 0,
    reset: BoolArray | None = None,
    clip: float | None = None,
    detach_h: Steps | None = None,
) -> Iterator[Window]:
    """Truncated backpropagation through time: a window every k1 steps, its gradient over the last k2.

    The layer's live weights, x and d_output are read when a window is reached: update them between two.

    Parameters
    ----------
    layer : RNN or LSTM, or a wrapper of one
        In one direction.
    x : ndarray (T, B, I), or (B, T, I) with batch_first, or (T, I); or callable
        The whole input; or x(start, stop), which returns that of steps [start, stop) in the same layout.
    d_output : ndarray or callable, optional
        dL/d(output) of the whole; or d_output(output, first), which returns it for the new steps of a window, called
        once for each window with the output of steps [first, stop). The last x(start, stop) asked for before that is
        this window's. Absent: zero.
    k1, k2 : int
        Steps between two windows' ends; steps that the gradient of each reaches back. See `scratchrnn.bptt.schedule`.
        With k2 < k1 the steps between two windows are read as in inference: nothing is dropped there.
    state : ndarray (L, B, P), or (h, c) for an LSTM, optional
        State before step 0, or with `begin` the `carry` of the window that ended there. Absent: the initial state.
    initial : ndarray (L, P), or (h_0 (L, P), c_0 (L, H)) for an LSTM, optional
        State of a sample at its beginning and after a reset; zeros when absent.
    steps : int, optional
        T, where x is callable.
    begin : int
        Step to go on from: the `stop` of the last window that was made.
    reset : ndarray of bool (T, B), or (B, T) with batch_first, or (T,), optional
        True where the state before that step is the initial one, whatever came before.
    clip : float, optional
        As in the layer's backward.
    detach_h : ndarray of bool, of the shape of `reset`, or callable, optional
        As in the layer's backward; or detach_h(start, stop), called once for each window, which returns it for steps
        [start, stop).

    Yields
    ------
    Window

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or range, or a layer with two directions.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> rnn = srnn.RNN(3, 4, rng=rng)
    >>> optimizer = srnn.optim.SGD(rnn.parameters, lr=0.1)
    >>> x = rng.standard_normal((100, 2, 3), np.float32)
    >>> for window in srnn.bptt.windows(rnn, x, lambda output, first: output, k1=25, k2=40):
    ...     optimizer.step(window.gradients.parameters)
    ...     print(window.start, window.first, window.stop)
    0 0 25
    10 25 50
    35 50 75
    60 75 100
    """
    stream.check_stream_layer(layer)
    x, d_output = see("x", x), see("d_output", d_output)
    reset, detach_h = see("reset", reset), see("detach_h", detach_h)
    if callable(x):
        if steps is None:
            raise ValueError("steps: expected the number of time steps, since x is a function; got None")
        total = check_positive_int("steps", steps)
    else:
        total = _time(layer, "x", x)
        if steps is not None and check_positive_int("steps", steps) != total:
            raise ValueError(f"steps: expected None or the {total} of x; got {steps}")
    arrays: dict[str, Any] = {"d_output": d_output, "detach_h": detach_h}
    arrays = {name: array for name, array in arrays.items() if not callable(array)} | {"reset": reset}
    for name, array in arrays.items():
        if array is not None and _time(layer, name, array) != total:
            raise ValueError(f"{name}: expected {total} time steps; got shape {array.shape}")
    stream._initial(layer, initial)
    spans = schedule(total, k1, k2, begin)
    return _run(_Source(layer, x, d_output, reset, initial, clip, detach_h), spans, state, begin)


@dataclass
class _Source:
    """What the windows of one call are made from."""

    layer: Layer
    x: Any
    d_output: Any
    reset: Any
    initial: State | None
    clip: float | None
    detach_h: Any

    def part(self, array: Any, start: int, stop: int) -> Any:
        """Steps [start, stop) of an array in the layer's layout."""
        return None if array is None else array[_steps(self.layer, array, start, stop)]

    def read(self, start: int, stop: int) -> FloatArray:
        """The input of steps [start, stop)."""
        if not callable(self.x):
            return self.part(self.x, start, stop)
        x = see("x", self.x(start, stop))
        if (got := _time(self.layer, "x", x)) != stop - start:
            wanted = f"{stop - start} time steps of x({start}, {stop})"
            raise ValueError(f"x: expected {wanted}; got {got} in shape {x.shape}")
        return x

    def skip(self, start: int, stop: int, state: State | None) -> State:
        """State after reading steps [start, stop) only."""
        mask = self.part(self.reset, start, stop)
        return stream.infer(self.layer, self.read(start, stop), state, mask, self.initial)[1]

    def forward(self, span: Span, state: State | None) -> StreamTrace:
        """Run a window, everything kept."""
        mask = self.part(self.reset, span.start, span.stop)
        return stream.forward(self.layer, self.read(span.start, span.stop), state, mask, self.initial)

    def backward(self, span: Span, trace: StreamTrace) -> StreamGradients:
        """The gradients of the window's new losses."""
        d_output = self._cotangent(span, trace.output)
        given = self.detach_h
        mask = given(span.start, span.stop) if callable(given) else self.part(given, span.start, span.stop)
        return stream.backward(self.layer, trace, d_output, None, clip=self.clip, detach_h=mask)

    def _cotangent(self, span: Span, output: FloatArray) -> FloatArray | None:
        """dL/d(output) of the whole window: zero on steps whose losses other windows have."""
        if self.d_output is None:
            return None
        new = _steps(self.layer, output, span.first - span.start, span.stop - span.start)
        if callable(self.d_output):
            given = self.d_output(memory.copy(output[new]), span.first)  # the caller may write into it
        else:
            given = self.part(self.d_output, span.first, span.stop)
        given = take_array(
            "d_output", given, shape=output[new].shape, dtype=self.layer.dtype, why="of the output of the new steps"
        )
        if span.first == span.start:  # k1 = k2: all steps are new
            return given
        whole = np.zeros_like(output)
        whole[new] = given
        return whole


def _run(source: _Source, spans: Iterator[Span], state: State | None, begin: int) -> Iterator[Window]:
    span = next(spans, None)
    at = begin if span is None else min(begin, span.start)  # the step before which `state` stands
    while span is not None:
        if at < span.start:
            state = source.skip(at, span.start, state)
        trace = source.forward(span, state)
        gradients = source.backward(span, trace)
        following = next(spans, None)
        at = span.stop if following is None else min(following.start, span.stop)
        if state is not None or at > span.start:
            state = trace.state_after(at - span.start)
        window = Window(*span, trace, gradients, state)
        del trace, gradients  # while the next window is made, this one need not be there
        yield window
        del window
        span = following


def _time(layer: Layer, name: str, array: Any) -> int:
    """T of an array in the layer's layout."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array; got {describe(array)}")
    axes = (2, 1) if name in ("reset", "detach_h") else (3, 2)
    if array.ndim not in axes:
        raise ValueError(f"{name}: expected {axes[0]} axes, or {axes[1]} without a batch; got shape {array.shape}")
    return array.shape[1 if array.ndim == axes[0] and layer.batch_first else 0]


def _steps(layer: Layer, array: Any, start: int, stop: int) -> tuple[slice, ...]:
    """The index of steps [start, stop) of an array in the layer's layout."""
    axes = 2 if array.dtype == bool else 3
    part = slice(start, stop)
    return (slice(None), part) if layer.batch_first and array.ndim == axes else (part,)
