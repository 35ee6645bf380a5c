"""Which number was the first that is not finite: NaN and infinity spread, and only the first one tells where from.

The order is that of the computation, so that nothing later can have caused what is found:

    forward     step 0 first; within a step layer 0 first; within a layer
                h_0, c_0 (at step 0), input, pre-activations (i, f, g, o of an LSTM; a of an RNN), c, h
    backward    last step first; within a step the top layer first; within a layer
                dh, dc, da (di, df, dg, do of an LSTM), and after its step 0 dh_0, dc_0

With two directions a layer reads what both directions of the one below made of all steps. Then the layer comes before
the step, and steps are counted in each direction's own order of work: step 0 of the reverse one reads the last input.
Within one array of a step the lowest sample comes first, then the lowest unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.trace import (
    DIRECTIONS,
    NO_LAYERS,
    Gradients,
    Key,
    LayerGradients,
    LayerTrace,
    Trace,
)

GATES = "ifgo"


@dataclass(frozen=True)
class NonFinite:
    """A number that is NaN or infinite, and where it stands.

    Attributes
    ----------
    layer : int
    direction : "forward" or "reverse"
    step : int
        In the direction's own order of work.
    quantity : str
        "input"; a gate's pre-activation "i", "f", "g", "o", or "a" of an RNN; "c", "h"; an initial state "h_0", "c_0".
        For gradients the same with a d before it.
    sample, unit : int
    value : float
        nan, inf or -inf.
    """

    layer: int
    direction: str
    step: int
    quantity: str
    sample: int
    unit: int
    value: float

    def __str__(self) -> str:
        side = "" if self.direction == "forward" else f" {self.direction}"
        where = f"layer {self.layer}{side}, step {self.step}, {_in_words(self.quantity)}"
        return f"{where}, sample {self.sample}, unit {self.unit} is {self.value}"


def _in_words(quantity: str) -> str:
    bare = quantity.removeprefix("d")
    words = f"pre-activation of gate {bare}" if bare in set(GATES) else bare
    return words if bare == quantity else f"gradient of {words}"


def first_nonfinite(record: Trace | Gradients) -> NonFinite | None:
    """The first number of a forward or backward pass that is NaN or infinite; None where all are finite.

    Parameters
    ----------
    record : Trace or Gradients
        From a recurrent layer's `forward` or `backward`. Of a minimal trace gates and pre-activations are computed once
        more; its gradients hold no dL/da, so that only states are looked at.

    Raises
    ------
    TypeError
        Neither.
    ValueError
        Gradients that keep nothing per time step, as `bptt.checkpointed` returns them.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, num_layers=2, rng=rng)
    >>> x = rng.standard_normal((7, 2, 3), np.float32)
    >>> x[5, 1, 2] = np.nan
    >>> print(first_nonfinite(lstm.forward(x)))
    layer 0, step 5, input, sample 1, unit 2 is nan
    """
    if isinstance(record, Trace):
        found = [one for key, part in record.layers.items() for one in _of_trace(key, part)]
        backward = False
    elif isinstance(record, Gradients):
        if not record.layers:
            raise ValueError(f"record: expected the gradient of every step; {NO_LAYERS}")
        found = [one for key, part in record.layers.items() for one in _of_gradients(key, part)]
        backward = True
    else:
        raise TypeError(f"record: expected what forward or backward of a layer returned; got {describe(record)}")
    both = any(direction == "reverse" for _, direction in record.layers)
    sign = -1 if backward else 1

    def order(place: tuple[NonFinite, int]) -> tuple[int, ...]:
        one, rank = place
        layer, step, side = sign * one.layer, sign * one.step, DIRECTIONS.index(one.direction)
        return (layer, step, side, rank) if both else (step, layer, side, rank)

    return min(found, key=order, default=(None, 0))[0]


def _of_trace(key: Key, part: LayerTrace) -> Iterator[tuple[NonFinite, int]]:
    """The first in each array, with the array's place in the order of computation."""
    lstm = part._c is not None
    read = backends.arrays.reverse_time(part.input, part.lengths) if part.reverse else part.input
    arrays = [("h_0", part.h[:1])] + ([("c_0", part.c[:1])] if lstm else []) + [("input", read)]
    arrays += _by_gate(part.a, lstm) + ([("c", part.c[1:])] if lstm else []) + [("h", part.h[1:])]
    for rank, (name, array) in enumerate(arrays):
        if (first := _first(key, name, array, last=False)) is not None:
            yield first, rank


def _of_gradients(key: Key, part: LayerGradients) -> Iterator[tuple[NonFinite, int]]:
    lstm = part._c is not None
    arrays = [("h", part.h[1:])] + ([("c", part.c[1:])] if lstm else [])
    arrays += [] if part._a is None else _by_gate(part.a, lstm)
    arrays += [("h_0", part.h[:1])] + ([("c_0", part.c[:1])] if lstm else [])
    for rank, (name, array) in enumerate(arrays):
        if (first := _first(key, f"d{name}", array, last=True)) is not None:
            yield first, rank


def _by_gate(a: FloatArray, lstm: bool) -> list[tuple[str, FloatArray]]:
    """(T, B, G·H) as one array for each gate."""
    return list(zip(GATES, np.split(a, 4, axis=-1), strict=True)) if lstm else [("a", a)]


def _first(key: Key, name: str, array: FloatArray, *, last: bool) -> NonFinite | None:
    """The first in one array (T, B, ·), or that of its last step that has any."""
    bad = ~np.isfinite(array)
    steps = np.flatnonzero(bad.any(axis=(1, 2)))
    if not steps.size:
        return None
    step = int(steps[-1 if last else 0])
    sample, unit = (int(i) for i in np.unravel_index(int(np.argmax(bad[step])), bad[step].shape))
    return NonFinite(*key, step, name, sample, unit, float(array[step, sample, unit]))
