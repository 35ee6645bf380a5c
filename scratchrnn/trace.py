"""What a recurrent layer hands out: `Trace` from forward, `Gradients` from backward, and `Tangent` from how a trace
moves. Plain records of arrays.

    B batch   T time   I input   H hidden   P projection (P = H without one)   G gates (4 for the LSTM, 1 for the RNN)
    L layers   D directions

Arrays per layer and direction are time-major and keep the batch axis, whatever the layer's `batch_first` and whether
or not the input had a batch. They stand in the direction's own order of work: slot 0 of a state is the initial state
and slot t+1 the state after its step t. The reverse direction starts at each sequence's true end, so its step 0 reads
the last input; `LayerTrace.by_time` turns its arrays round to the input's order. Beyond a sequence's end, everything
is exactly zero.

Where the layer read an array on a CUDA device, all of these are arrays there, in the order of the stream that the
layer's call was on; only `lengths` is on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from scratchrnn import backends
from scratchrnn._typing import FloatArray, IntArray

State = FloatArray | tuple[FloatArray, FloatArray]
Key = tuple[int, str]  # layer from 0, "forward" or "reverse"
Part = TypeVar("Part")

DIRECTIONS = ("forward", "reverse")
PER_STEP = ("h", "c", "i", "f", "g", "o", "a", "gates")
NO_LAYERS = "nothing per time step was kept; forward and backward of a recurrent layer keep it, checkpointed does not"


class Recomputes(Protocol):
    """Computes again, bit for bit, what a trace does not keep."""

    def a(self, trace: LayerTrace) -> FloatArray:
        """Pre-activations (T, B, G·H)."""

    def gates(self, trace: LayerTrace) -> FloatArray:
        """Activated gates (T, B, 4H) of an LSTM."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerTrace:
    """Everything that one direction of one layer computed.

    What backward does not need is not stored: `a` is computed from `input`, `h` and the trace's own weights at the
    first access, and kept from then on. A minimal trace (`forward(..., trace="minimal")`) stores no gates either, and
    computes gates and `a` at each access, without keeping them. Either way they have the bits that forward computed.

    Attributes
    ----------
    h : ndarray (T+1, B, P)
        Hidden states; slot 0 is the initial state. With a projection, the projected ones.
    c : ndarray (T+1, B, H)
        Cell states of an LSTM; an RNN has none.
    gates : ndarray (T, B, 4H)
        Activated gates of an LSTM in the order i, f, g, o; `i`, `f`, `g`, `o` are views of it, (T, B, H) each.
    a : ndarray (T, B, G·H)
        Pre-activations, computed on access.
    input : ndarray (T, B, ·)
        What this layer read, in the input's order of time: x, or the output of the layer below, after dropout.
    lengths : ndarray (B,) of int
        Steps of each sequence.
    reverse : bool
        Whether this is the reverse direction.
    minimal : bool
        Whether only `input`, `h` and `c` are kept.
    """

    h: FloatArray
    input: FloatArray
    lengths: IntArray
    reverse: bool
    minimal: bool
    _c: FloatArray | None
    _gates: FloatArray | None
    _recompute: Recomputes
    _kept: dict[str, FloatArray] = field(default_factory=dict, init=False)  # a, once somebody asked for it

    def __repr__(self) -> str:
        steps, batch, _ = self.input.shape
        minimal = ", minimal=True" if self.minimal else ""
        return f"LayerTrace(T={steps}, B={batch}, h={self.h.shape}, reverse={self.reverse}{minimal})"

    @property
    def a(self) -> FloatArray:
        """Pre-activations (T, B, G·H)."""
        if "a" in self._kept:
            return self._kept["a"]
        a = self._recompute.a(self)
        if not self.minimal:
            self._kept["a"] = a
        return a

    def _lstm_only(self, name: str, array: FloatArray | None) -> FloatArray:
        if array is None:
            raise AttributeError(f"{name}: a vanilla RNN has no cell state and no gates, only h and a")
        return array

    @property
    def c(self) -> FloatArray:
        """Cell states (T+1, B, H)."""
        return self._lstm_only("c", self._c)

    @property
    def gates(self) -> FloatArray:
        """Activated gates (T, B, 4H) in the order i, f, g, o."""
        return self._all_gates("gates")

    def _all_gates(self, name: str) -> FloatArray:
        self._lstm_only(name, self._c)
        return self._recompute.gates(self) if self._gates is None else self._gates

    def _gate(self, name: str) -> FloatArray:
        gates = self._all_gates(name)
        hidden = gates.shape[2] // 4
        start = "ifgo".index(name) * hidden
        return gates[:, :, start : start + hidden]

    @property
    def i(self) -> FloatArray:
        """Input gate (T, B, H)."""
        return self._gate("i")

    @property
    def f(self) -> FloatArray:
        """Forget gate (T, B, H)."""
        return self._gate("f")

    @property
    def g(self) -> FloatArray:
        """Cell candidate (T, B, H)."""
        return self._gate("g")

    @property
    def o(self) -> FloatArray:
        """Output gate (T, B, H)."""
        return self._gate("o")

    def at_end(self, array: FloatArray) -> FloatArray:
        """Slot of each sequence's own end of a state array (T+1, B, ·): (B, ·), a copy."""
        with backends.arrays_at(array) as arrays:
            return arrays.states_at(arrays.take(array), self.lengths)

    def by_time(self, array: FloatArray) -> FloatArray:
        """Put an array (T, B, ·) of this direction's steps into the input's order of time.

        `layer.by_time(layer.h[1:])[t]` is the state after reading `layer.input[t]`, in either direction. A copy for the
        reverse direction, `array` itself for the forward one.
        """
        if array.shape[0] != len(self.input):
            raise ValueError(
                f"array: expected {len(self.input)} steps along axis 0 (for a state array leave out slot 0, "
                f"as in h[1:]); got {array.shape[0]}"
            )
        if not self.reverse:
            return array
        with backends.arrays_at(array) as arrays:
            return arrays.reverse_time(arrays.take(array), self.lengths)


@dataclass(frozen=True, eq=False)
class LayerGradients:
    """The gradient of everything that `LayerTrace` holds, slot by slot.

    Attributes
    ----------
    h : ndarray (T+1, B, P)
        Total dL/dh_t of each state, through every path; slot 0 is that of the initial state.
    c : ndarray (T+1, B, H)
        Total dL/dc_t of an LSTM; an RNN has none.
    a : ndarray (T, B, G·H)
        dL/da_t of each pre-activation, as clipped if it was; not kept where the trace was minimal.
    """

    h: FloatArray
    _a: FloatArray | None
    _c: FloatArray | None

    @property
    def a(self) -> FloatArray:
        """dL/da_t (T, B, G·H)."""
        if self._a is None:
            raise AttributeError(
                "a: dL/da_t was computed segment by segment and not kept, since the trace is minimal; forward with "
                'trace="full" keeps what it takes'
            )
        return self._a

    @property
    def c(self) -> FloatArray:
        """Total dL/dc_t (T+1, B, H)."""
        if self._c is None:
            raise AttributeError("c: a vanilla RNN has no cell state, only h and a")
        return self._c


class ByLayer(Generic[Part]):
    """Access per layer and direction: `x[1]`, `x[1, "reverse"]`; with a single part, its fields directly."""

    layers: Mapping[Key, Part]

    def __getitem__(self, key: int | Key) -> Part:
        if not self.layers:
            raise IndexError(NO_LAYERS)
        layer, direction = key if isinstance(key, tuple) else (key, "forward")
        if (layer, direction) not in self.layers:
            known = ", ".join(f"[{n}]" if d == "forward" else f'[{n}, "{d}"]' for n, d in self.layers)
            raise IndexError(f"no layer {layer} in direction {direction!r}; there is {known}")
        return self.layers[layer, direction]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.layers)) or 'no layers'})"

    def __iter__(self) -> Iterator[Key]:
        raise TypeError("not a sequence; iterate over .layers.items()")

    def _single(self) -> Part:
        if len(self.layers) != 1:
            raise AttributeError(
                f"there are {len(self.layers)} layers and directions; say which, as in [0] or [0, 'reverse']"
            )
        return next(iter(self.layers.values()))

    def __getattr__(self, name: str) -> Any:
        # reached only for names that the record itself has not
        if name in PER_STEP and self.layers:
            return getattr(self._single(), name)
        if name in PER_STEP:
            raise AttributeError(f"{name}: {NO_LAYERS}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


@dataclass(frozen=True, eq=False, repr=False)
class Trace(ByLayer[LayerTrace]):
    """A forward pass: the result as torch returns it, and everything on the way. It owns all that backward needs.

    Attributes
    ----------
    output : ndarray
        (T, B, D·P), or (B, T, D·P) with `batch_first`, or (T, D·P) without a batch.
    state : ndarray or tuple of two
        h_n (D·L, B, P), for the LSTM (h_n, c_n) with c_n (D·L, B, H); without a batch, the axis B is missing.
    layers : mapping (layer, direction) -> LayerTrace
        Also `trace[1]`, `trace[1, "reverse"]`; with one layer and direction `trace.h`, `trace.c` and so on.
    lengths : ndarray (B,) of int
        Steps of each sequence.
    parameters : dict of ndarray
        The weights as they were: a later update does not make this trace stale.
    dropout_masks : tuple
        Per layer boundary the mask (T, B, D·P) that its output was multiplied by, zeros and 1/(1-p), or None.
    batched : bool
        Whether the input had a batch axis.
    batch_first : bool
        Whether that axis stood before time.
    backend : str
        Name of the backend that computed it.
    cell : str
        "lstm", "rnn_tanh" or "rnn_relu".
    gradients : Gradients or None
        Where a torch module handed this trace out (`interop.torch`), those of the latest backward pass through its
        call. Else None: `backward` of a layer returns them.
    """

    output: FloatArray
    state: State
    layers: Mapping[Key, LayerTrace]
    lengths: IntArray
    parameters: dict[str, FloatArray]
    dropout_masks: tuple[FloatArray | None, ...]
    batched: bool
    batch_first: bool
    backend: str
    cell: str
    gradients: Gradients | None = field(default=None, init=False)


@dataclass(frozen=True, eq=False, repr=False)
class Gradients(ByLayer[LayerGradients]):
    """A backward pass: the gradient of everything.

    Attributes
    ----------
    input : ndarray or None
        dL/dx, of the input's shape; exactly zero on padding. None where the input is not differentiable (Embedding).
    state : ndarray or tuple of two, or None
        dL/dh_0, for the LSTM (dL/dh_0, dL/dc_0), per sample, in the shapes of the state. None without a state.
    parameters : dict of ndarray
        The gradient of every parameter, by its name.
    layers : mapping (layer, direction) -> LayerGradients
        Also `grads[1]`, `grads[1, "reverse"]`; with one layer and direction `grads.h`, `grads.c`, `grads.a`. Empty
        where no gradient of a time step was kept.
    per_sample : dict of ndarray (B, ...) or None
        What each sample alone adds to `parameters`, by the same names; where `backward` was asked for it.
    """

    input: FloatArray | None
    state: State | None
    parameters: dict[str, FloatArray]
    layers: Mapping[Key, LayerGradients]
    per_sample: dict[str, FloatArray] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class LayerTangent:
    """The tangent of everything that `LayerTrace` holds, slot by slot: its derivative along one direction.

    Attributes
    ----------
    h : ndarray (T+1, B, P)
        Of each hidden state; slot 0 is that of the initial state.
    c : ndarray (T+1, B, H)
        Of each cell state of an LSTM; an RNN has none.
    a : ndarray (T, B, G·H)
        Of each pre-activation.
    input : ndarray (T, B, ·)
        Of what this layer read, in the input's order of time.
    """

    h: FloatArray
    a: FloatArray
    input: FloatArray
    _c: FloatArray | None

    @property
    def c(self) -> FloatArray:
        """Of each cell state (T+1, B, H)."""
        if self._c is None:
            raise AttributeError("c: a vanilla RNN has no cell state, only h and a")
        return self._c


@dataclass(frozen=True, eq=False, repr=False)
class Tangent(ByLayer[LayerTangent]):
    """How a `Trace` moves as x, the initial state and the weights move along one direction.

    Attributes
    ----------
    output : ndarray
        Of the output, in its shape: the Jacobian times the direction. Exactly zero on padding.
    state : ndarray or tuple of two
        Of the final state, in its shapes.
    parameters : dict of ndarray
        The direction's part in the weights, by name; zeros where none was given.
    layers : mapping (layer, direction) -> LayerTangent
        Also `tangent[1]`, `tangent[1, "reverse"]`; with one layer and direction `tangent.h`, `tangent.c`, `tangent.a`.
    """

    output: FloatArray
    state: State
    parameters: dict[str, FloatArray]
    layers: Mapping[Key, LayerTangent]
