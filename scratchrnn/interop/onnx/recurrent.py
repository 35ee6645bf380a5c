"""An RNN or LSTM node on a layer of ours.

    X (T, B, I)   W R B P constants   sequence_lens (B,)   initial_h initial_c (D, B, H)
    Y (T, D, B, H), zero on padding   Y_h Y_c (D, B, H), each at its sequence's end in the direction's own order

    B batch   T time   I input   H hidden   D directions;  with layout=1 the batch comes first everywhere

A node of direction "reverse" alone is a layer of one direction, which reads each sequence turned round in its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import FloatArray
from scratchrnn._validate import DTYPES
from scratchrnn.backends import arrays
from scratchrnn.interop.onnx.weights import from_onnx
from scratchrnn.layers import LSTM, RNN, edge
from scratchrnn.trace import Trace

KINDS: dict[str, int] = {"RNN": 1, "LSTM": 4}  # gates of each
CONSTANTS = {"W": 1, "R": 2, "B": 3, "P": 7}  # places among a node's inputs
DIRECTIONS = ("forward", "reverse", "bidirectional")
LSTM_ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"]  # of the gates, of c's candidate, of c on its way to h
Given = NDArray[Any] | None


@dataclass(frozen=True)
class RecurrentNode:
    """What a node computes."""

    layer: RNN | LSTM  # one layer
    reverse: bool  # alone: the layer reads time turned round
    batch_first: bool  # layout=1

    def run(self, given: Sequence[Given], *, keep: bool) -> tuple[list[FloatArray], Trace | None]:
        """Y, Y_h and, of an LSTM, Y_c; and the layer's trace, if it is to be kept.

        Parameters
        ----------
        given : the node's inputs in their order, None where one is absent
        """
        layer = self.layer
        x: NDArray[Any] | None
        x, _, _, _, lengths, *states = [*given, *[None] * 7][:7]
        if x is None or x.ndim != 3:
            raise ValueError(f"X: expected 3 axes; got {'none' if x is None else f'shape {x.shape}'}")
        if self.batch_first:
            x, states = x.swapaxes(0, 1), [None if a is None else a.swapaxes(0, 1) for a in states]
        steps, batch, _ = x.shape
        ns = edge.enter_lengths(lengths, steps=steps, batch=batch, batched=True, name="sequence_lens")
        if self.reverse:
            x = arrays.reverse_time(x, ns)
        state = self._state(states[: 1 + layer.cell.has_c], batch)
        own = None if lengths is None else ns
        if keep:
            trace = layer.forward(x, state, own, training=False)
            output, final = trace.output, trace.state
        else:
            trace, (output, final) = None, layer(x, state, own)
        if self.reverse:
            output = arrays.reverse_time(output, ns)
        y = output.reshape(steps, batch, layer.num_directions, layer.hidden_size)
        ends = list(final) if isinstance(final, tuple) else [final]
        if self.batch_first:
            return [y.swapaxes(0, 1), *(end.swapaxes(0, 1) for end in ends)], trace
        return [y.transpose(0, 2, 1, 3), *ends], trace

    def _state(self, given: list[Given], batch: int) -> Any:
        """initial_h, or the pair of an LSTM, zero where one of the two is absent; None where all are."""
        if all(a is None for a in given):
            return None
        shape = (self.layer.num_directions, batch, self.layer.hidden_size)
        filled = [np.zeros(shape, self.layer.dtype) if a is None else a for a in given]
        return tuple(filled) if self.layer.cell.has_c else filled[0]


def build(
    kind: str, attributes: Mapping[str, Any], constants: Mapping[str, FloatArray], backend: str | None
) -> RecurrentNode:
    """Make the layer of a node.

    Parameters
    ----------
    kind : "RNN" or "LSTM"
    attributes : mapping
        The node's own; ONNX's defaults where one is absent.
    constants : mapping of str to ndarray
        W, R and, where there are, B and P.

    Raises
    ------
    ValueError, TypeError
        Something that our layers do not compute, or shapes that do not fit.
    """
    gates = KINDS[kind]
    direction = attributes.get("direction", "forward")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}; got {direction!r}")
    directions = 2 if direction == "bidirectional" else 1
    if "clip" in attributes:
        raise ValueError(f"clip: expected none, since ours bounds nothing in forward; got {attributes['clip']:g}")
    if attributes.get("input_forget", 0):
        raise ValueError("input_forget: expected 0, since ours has a forget gate of its own; got 1")
    layout = attributes.get("layout", 0)
    if layout not in (0, 1):
        raise ValueError(f"layout: expected 0 or 1; got {layout}")
    _check_shapes(constants, gates, directions, attributes.get("hidden_size"))
    w, r, b, p = (constants.get(name) for name in CONSTANTS)
    if w is None or r is None:
        raise ValueError("W, R: expected both; got none")
    if p is not None and p.any():
        raise ValueError("P: expected zeros, since our LSTM has no peepholes; got others")
    activations = _activations(attributes, gates, directions)
    options: dict[str, Any] = {
        "bias": b is not None, "bidirectional": directions == 2, "dtype": w.dtype, "backend": backend,
    }  # fmt: skip
    sizes = (w.shape[2], r.shape[2])
    layer = LSTM(*sizes, **options) if gates == 4 else RNN(*sizes, nonlinearity=activations[0].lower(), **options)
    layer.load_state_dict(from_onnx(w, r, b))
    return RecurrentNode(layer, direction == "reverse", layout == 1)


def _activations(attributes: Mapping[str, Any], gates: int, directions: int) -> list[str]:
    """The node's activations, checked."""
    got = attributes.get("activations", [])
    if gates == 4:
        wanted = LSTM_ACTIVATIONS * directions
        if got and got != wanted:
            raise ValueError(f"activations: expected {wanted}; got {got}")
        return wanted
    got = got or ["Tanh"] * directions
    if got not in (["Tanh"] * directions, ["Relu"] * directions):
        raise ValueError(f"activations: expected Tanh or Relu, the same in each of {directions} directions; got {got}")
    return got


def _check_shapes(constants: Mapping[str, FloatArray], gates: int, directions: int, hidden: int | None) -> None:
    r = constants["R"]
    if r.ndim != 3 or not r.size:
        raise ValueError(f"R: expected shape (directions, {gates}·H, H); got {r.shape}")
    size = r.shape[2]
    if hidden is not None and hidden != size:
        raise ValueError(f"hidden_size: expected {size}, as R of shape {r.shape} says; got {hidden}")
    w = constants["W"]
    inputs = w.shape[2] if w.ndim == 3 else 0
    wanted = {
        "W": (directions, gates * size, inputs), "R": (directions, gates * size, size),
        "B": (directions, 2 * gates * size), "P": (directions, 3 * size),
    }  # fmt: skip
    for name, array in constants.items():
        if array.dtype not in DTYPES.values():
            raise TypeError(f"{name}: expected dtype float32 or float64; got {array.dtype}")
        if array.dtype != w.dtype:
            raise TypeError(f"{name}: expected dtype {w.dtype}, that of W; got {array.dtype}")
        if array.shape != wanted[name]:
            why = f"for {directions} directions and H={size}"
            raise ValueError(f"{name}: expected shape {wanted[name]} {why}; got {array.shape}")
