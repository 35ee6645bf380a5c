"""A stream: a layer whose state goes on from call to call, and is set anew where a sample begins something new.

    state_{t-1} = initial     where reset[t, b]           h and c, of every layer
                  state_{t-1} elsewhere
    state_t     = layer(x_t, state_{t-1})

The state that a call starts from is a constant: no gradient flows into the call before, and no call before is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import check_array, check_int, check_mask, describe, see, take_array
from scratchrnn.bptt.full import Layer, check_layer
from scratchrnn.bptt.pieces import Pieces
from scratchrnn.layers import edge
from scratchrnn.layers.initial_state import sum_over_batch
from scratchrnn.trace import Gradients, State, Trace

Arrays = tuple[FloatArray, ...]  # (h,), for an LSTM (h, c)


@dataclass(frozen=True, eq=False, repr=False)
class StreamTrace:
    """One stretch of a stream with everything kept.

    Attributes
    ----------
    output : ndarray
        In the layer's layout.
    state : ndarray or (h, c)
        After the last step, (L, B, ·).
    trace : Trace
        What the layer did, piece by piece: its batch axis counts pieces, not rows, where there were resets.
    pieces : Pieces
        `pieces.fold(trace[0].h[1:])` puts an array of steps (T', N, ·) back into rows (T, B, ·).
    """

    output: FloatArray
    state: State
    trace: Trace
    pieces: Pieces
    batched: bool

    def state_after(self, steps: int) -> State:
        """State of each row after that many steps of this stretch, 0 to T: h, or (h, c), a copy."""
        if check_int("steps", steps, least=0) > self.pieces.steps:
            raise ValueError(f"steps: expected at most {self.pieces.steps}, those of this stretch; got {steps}")
        piece, slot = np.arange(self.pieces.batch), np.zeros(self.pieces.batch, np.intp)
        if steps:
            piece, before = self.pieces.at(steps - 1)
            slot = before + 1
        layers = list(self.trace.layers.values())
        names = ("h",) if layers[0]._c is None else ("h", "c")
        return _leave(
            tuple(np.stack([getattr(one, name)[slot, piece] for one in layers]) for name in names), self.batched
        )


@dataclass(frozen=True, eq=False, repr=False)
class StreamGradients(Gradients):
    """The gradients of one stretch.

    Attributes
    ----------
    input, parameters
        As in `Gradients`.
    state : ndarray or (dh, dc)
        Of the state that the stretch started from, per sample; zero for samples that began with a reset.
    initial : ndarray or (dh, dc)
        Of the initial state, (L, ·), summed over all pieces that began with it: the gradient of a learned one.
    layers
        As in `Gradients`, piece by piece like `StreamTrace.trace`.
    """

    initial: State


class Stream:
    """Carries a layer's state, h and c, from call to call.

    Parameters
    ----------
    layer : RNN or LSTM, or a wrapper of one
        In one direction. Its weights are read at each call.
    initial : ndarray (L, P), or (h_0 (L, P), c_0 (L, H)) for an LSTM, optional
        State of a sample at its beginning, at the first call and after a reset; read at each call, zeros when absent.

    Attributes
    ----------
    state : ndarray (L, B, P), or (h, c) for an LSTM, or None
        After the last call; None before the first. The stream holds this and nothing else.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, rng=rng)
    >>> x = rng.standard_normal((100, 2, 3), np.float32)
    >>> stream = srnn.bptt.Stream(lstm)
    >>> parts = [stream(x[:60]), stream(x[60:])]  # (time, batch, input), 60 steps, then the 40 that follow
    >>> bool(np.allclose(np.concatenate(parts), lstm(x)[0], atol=1e-6))
    True
    >>> reset = np.zeros((100, 2), bool)
    >>> reset[25, 1] = True  # sample 1 begins a new document at step 25
    >>> trace = stream.forward(x, reset)
    >>> grads = stream.backward(trace, d_output=trace.output)
    >>> grads.input.shape, stream.state[1].shape
    ((100, 2, 3), (1, 2, 4))
    """

    def __init__(self, layer: Layer, initial: State | None = None) -> None:
        check_stream_layer(layer)
        _initial(layer, initial)
        self.layer, self.initial = layer, initial
        self.state: State | None = None

    def __repr__(self) -> str:
        return f"Stream({self.layer!r}, {'no state yet' if self.state is None else f'batch of {self._batch()}'})"

    def _batch(self) -> int | None:
        """B of the state that is carried; None if it has no batch axis, or there is none."""
        if self.state is None:
            return None
        h = _arrays(self.state)[0]
        return h.shape[1] if h.ndim == 3 else None

    def __call__(self, x: FloatArray, reset: BoolArray | None = None) -> FloatArray:
        """Inference: read on, return the output, keep the state.

        Parameters
        ----------
        x, reset
            As in `forward`.
        """
        x = see("x", x)
        self._check_batch(x)
        output, self.state = infer(self.layer, x, self.state, reset, self.initial)
        return output

    def forward(self, x: FloatArray, reset: BoolArray | None = None) -> StreamTrace:
        """Read on with everything kept for `backward`, and keep the state.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first, or (T, I) without a batch
            The steps that follow those of the call before, row by row.
        reset : ndarray of bool (T, B), or (B, T) with batch_first, or (T,), optional
            True where the state before that step is the initial one.

        Raises
        ------
        ValueError
            Another batch size than the call before: the rows would not continue. `reset()` forgets the state.
        """
        x = see("x", x)
        self._check_batch(x)
        trace = forward(self.layer, x, self.state, reset, self.initial)
        self.state = _copied(trace.state)  # what the trace hands out is the caller's
        return trace

    def backward(
        self,
        trace: StreamTrace,
        d_output: FloatArray | None = None,
        d_state: State | None = None,
        *,
        clip: float | None = None,
        detach_h: BoolArray | None = None,
    ) -> StreamGradients:
        """Backpropagate through the steps of one `forward` call, and no further.

        Parameters
        ----------
        trace : StreamTrace
        d_output : ndarray, optional
            dL/d(output), of the output's shape.
        d_state : ndarray, or (dh, dc) for an LSTM, optional
            dL/d(state after the last step).
        clip : float, optional
        detach_h : ndarray of bool, of the shape of `reset`, optional
            As in the layer's backward.
        """
        return backward(self.layer, trace, d_output, d_state, clip=clip, detach_h=detach_h)

    def reset(self) -> None:
        """Forget the state: the next call begins anew, with any batch size."""
        self.state = None

    def state_dict(self) -> dict[str, FloatArray]:
        """Copies of h, and c of an LSTM; empty before the first call."""
        return {} if self.state is None else {k: a.copy() for k, a in zip("hc", _arrays(self.state), strict=False)}

    def load_state_dict(self, state: Mapping[str, FloatArray]) -> None:
        """Go on from a state that `state_dict` gave."""
        names = ["h", "c"][: 1 + self.layer.cell.has_c]
        if not isinstance(state, Mapping) or sorted(state) not in ([], sorted(names)):
            raise ValueError(f"state: expected the keys {names}, or none; got {describe(state)}")
        if not state:
            self.state = None
            return
        arrays = tuple(check_array(name, state[name], dtype=self.layer.dtype) for name in names)
        batched = arrays[0].ndim == 3
        entered = enter_state(self.layer, _leave(arrays, True), arrays[0].shape[1] if batched else 1, batched)
        self.state = _copied(_leave(cast(Arrays, entered), batched))

    def _check_batch(self, x: Any) -> None:
        """Raise if x does not continue the rows whose state is carried."""
        if self.state is None or not isinstance(x, np.ndarray) or x.ndim not in (2, 3):
            return  # the layer says what it expects
        batch, carried = (x.shape[0 if self.layer.batch_first else 1] if x.ndim == 3 else None), self._batch()
        if batch != carried:
            raise ValueError(
                f"x: expected {_rows(carried)}, whose state is carried; got {_rows(batch)} in shape {x.shape} "
                f"(call reset() before other rows begin)"
            )


def _rows(batch: int | None) -> str:
    return "no batch axis" if batch is None else f"a batch of {batch}"


def check_stream_layer(layer: Any) -> None:
    """Raise unless a state can be carried through it."""
    check_layer(layer)
    if layer.bidirectional:
        raise ValueError(
            "layer: expected one direction, since the reverse one reads from the end and has nothing to go on from; "
            "got bidirectional=True"
        )


def forward(layer: Layer, x: FloatArray, state: State | None, reset: Any, initial: State | None) -> StreamTrace:
    """Run a stretch with everything kept; every row begins anew where there is no state."""
    xs, arrays, pieces, batched = _enter(layer, x, state, reset, initial)
    trace = layer.forward(_own(layer, pieces.unfold(xs)), _leave(arrays, True), _lengths(pieces))
    output = pieces.fold(edge.time_major(trace.output, batch_first=layer.batch_first, batched=True))
    ends = _ends(trace.state, pieces)
    return StreamTrace(_theirs(layer, output, batched), _leave(ends, batched), trace, pieces, batched)


def infer(
    layer: Layer, x: FloatArray, state: State | None, reset: Any, initial: State | None
) -> tuple[FloatArray, State]:
    """The same with nothing kept: the output and the state after the last step."""
    xs, arrays, pieces, batched = _enter(layer, x, state, reset, initial)
    out, ends = layer(_own(layer, pieces.unfold(xs)), _leave(arrays, True), _lengths(pieces))
    output = pieces.fold(edge.time_major(out, batch_first=layer.batch_first, batched=True))
    return _theirs(layer, output, batched), _leave(_ends(ends, pieces), batched)


@np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
def backward(
    layer: Layer,
    trace: StreamTrace,
    d_output: FloatArray | None,
    d_state: State | None,
    *,
    clip: float | None = None,
    detach_h: Any = None,
) -> StreamGradients:
    """Undo `forward`: pieces get their gradients apart, rows get them back."""
    if not isinstance(trace, StreamTrace):
        raise TypeError(f"trace: expected what forward of this stream returned; got {describe(trace)}")
    pieces, batched = trace.pieces, trace.batched
    if d_output is not None:
        d_output = take_array(
            "d_output", d_output, shape=trace.output.shape, dtype=layer.dtype, why="of the trace's output"
        )
        rows = edge.time_major(d_output, batch_first=layer.batch_first, batched=batched)
        d_output = _own(layer, pieces.unfold(rows))  # undoes fold
    ends = enter_state(layer, d_state, pieces.batch, batched, name="d_state")
    d_ends = tuple(None if d is None else _spread(d, pieces) for d in ends)  # undoes the choice of rows' last pieces
    d_last = None if d_state is None else cast(State, d_ends if layer.cell.has_c else d_ends[0])
    if detach_h is not None:
        mask = pieces.unfold(enter_steps(layer, "detach_h", detach_h, pieces.steps, pieces.batch, batched))
        detach_h = mask.T if layer.batch_first else mask
    grads = layer.backward(trace.trace, d_output, d_last, clip=clip, detach_h=detach_h)
    dx = pieces.fold(edge.time_major(cast(FloatArray, grads.input), batch_first=layer.batch_first, batched=True))
    starts = _arrays(cast(State, grads.state))  # (L, N, ·)
    begins = pieces.begins
    carried = tuple(np.where(begins[: pieces.batch, None], d.dtype.type(0), d[:, : pieces.batch]) for d in starts)
    return StreamGradients(
        _theirs(layer, dx, batched),
        _leave(carried, batched),
        grads.parameters,
        grads.layers,
        _leave(tuple(sum_over_batch(d[:, begins]) for d in starts), True),
    )


def _ends(state: State, pieces: Pieces) -> Arrays:
    """(L, N, ·) at pieces' ends to (L, B, ·) at rows' ends."""
    arrays = _arrays(state)
    return arrays if pieces.whole else tuple(a[:, pieces.last] for a in arrays)


def _spread(d: FloatArray, pieces: Pieces) -> FloatArray:
    """(L, B, ·) of rows' ends to (L, N, ·) of pieces' ends: zero but for the last of each row."""
    wide = np.zeros((d.shape[0], len(pieces.row), d.shape[2]), d.dtype)
    wide[:, pieces.last] = d
    return wide


def _enter(
    layer: Layer, x: FloatArray, state: State | None, reset: Any, initial: State | None
) -> tuple[FloatArray, Arrays, Pieces, bool]:
    """x (T, B, I), the state at the start of each piece (L, N, ·), the pieces, whether there is a batch axis."""
    xs, batched = edge.view_input(x, input_size=layer.input_size, batch_first=layer.batch_first, dtype=layer.dtype)
    steps, batch, _ = xs.shape
    mask = enter_steps(layer, "reset", reset, steps, batch, batched)
    carried = enter_state(layer, state, batch, batched)
    if carried[0] is None:
        mask[0] = True
    pieces = Pieces(mask)
    if not pieces.begins.any():  # then there is no reset either
        return xs, cast(Arrays, carried), pieces, batched
    starts = []
    for given, begin in zip(carried, _initial(layer, initial), strict=True):
        start = np.empty((layer.num_layers, len(pieces.row), begin.shape[1]), layer.dtype)
        start[...] = begin[:, None]
        if given is not None:
            goes_on = np.flatnonzero(~pieces.begins)  # first pieces: their numbers are those of the rows
            start[:, goes_on] = given[:, goes_on]
        starts.append(start)
    return xs, tuple(starts), pieces, batched


def enter_steps(layer: Layer, name: str, mask: Any, steps: int, batch: int, batched: bool) -> BoolArray:
    """The mask as (T, B), a copy; all False when absent."""
    if mask is None:
        return np.zeros((steps, batch), bool)
    shape = (steps,) if not batched else (batch, steps) if layer.batch_first else (steps, batch)
    mask = check_mask(name, mask, shape=shape, why="with a value for each step and sample")
    return (mask[:, None] if not batched else mask.T if layer.batch_first else mask).copy()


def enter_state(
    layer: Layer, state: Any, batch: int, batched: bool, name: str = "state"
) -> tuple[FloatArray | None, ...]:
    """Its arrays as (L, B, ·); None for each that is absent."""
    return layer._enter_state(name, state, batch, batched)


def _initial(layer: Layer, initial: Any) -> Arrays:
    """Initial state of one sample, (L, ·) each."""
    shapes = layer._state_shapes(0, False)
    if initial is None:
        return tuple(np.zeros(shape, layer.dtype) for shape in shapes)
    why = f"of one sample for num_layers={layer.num_layers}, hidden={layer.hidden_size}"
    arrays = edge.enter_state("initial", initial, shapes=shapes, dtype=layer.dtype, why=why)
    return cast(Arrays, arrays)


def _lengths(pieces: Pieces) -> Any:
    return None if pieces.whole else pieces.length


def _own(layer: Layer, array: FloatArray) -> FloatArray:
    """From (T, B, ·) to the layout that the layer takes with a batch."""
    return edge.leave_output(array, batch_first=layer.batch_first, batched=True)


def _theirs(layer: Layer, array: FloatArray, batched: bool) -> FloatArray:
    return edge.leave_output(array, batch_first=layer.batch_first, batched=batched)


def _arrays(state: State) -> Arrays:
    return state if isinstance(state, tuple) else (state,)


def _copied(state: State) -> State:
    return _leave(tuple(a.copy() for a in _arrays(state)), True)


def _leave(arrays: Arrays, batched: bool) -> State:
    return edge.leave_state(arrays[0], arrays[1] if len(arrays) > 1 else None, batched=batched)
