"""Weights of Keras's LSTM and SimpleRNN to ours and back, as arrays: keras itself is not needed.

    Keras   kernel (I, G·H)      recurrent_kernel (H, G·H)   bias (G·H,)                  gates i f c o
    ours    weight_ih (G·H, I)   weight_hh (G·H, H)          bias_ih, bias_hh (G·H,)      gates i f g o

    G gates (4 of an LSTM, 1 of an RNN)   H hidden   I input;  Keras's c is our g: the order is the same

Keras adds one bias where we add two. To Keras goes their sum; from Keras the bias comes into bias_ih, and bias_hh is
zero. Outputs are the same; but each of ours gets the gradient that Keras's one bias gets, and an optimizer moves both.

References
----------
https://keras.io/api/layers/recurrent_layers/lstm/, https://keras.io/api/layers/recurrent_layers/bidirectional/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe, take_array
from scratchrnn.interop.state_dict import KINDS
from scratchrnn.layers import LSTM, RNN

PARTS = ("kernel", "recurrent_kernel", "bias")
FORMS = {2: (1, False), 3: (1, True), 4: (2, False), 6: (2, True)}  # by number of arrays: directions, bias or not
SUFFIXES = ("", "_reverse")


def to_keras(layer: RNN | LSTM) -> list[list[FloatArray]]:
    """Weights for Keras layers that compute what a layer of ours computes.

    Parameters
    ----------
    layer : RNN or LSTM
        Without a projection, which Keras has not.

    Returns
    -------
    list of list of ndarray
        One entry for each of its layers, for `set_weights` of a Keras layer: kernel, recurrent_kernel and, with biases,
        bias; of a bidirectional layer those of both directions, for `Bidirectional(..., merge_mode="concat")`. Copies.
        Keras's layers are to have our defaults: an LSTM activation="tanh", recurrent_activation="sigmoid"; all but the
        last return_sequences=True.

    Raises
    ------
    TypeError, ValueError
        Another kind of layer; a projection.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> [array.shape for array in to_keras(srnn.LSTM(3, 4, bidirectional=True))[0]]
    [(3, 16), (4, 16), (16,), (3, 16), (4, 16), (16,)]
    """
    if type(layer) not in (RNN, LSTM):
        raise TypeError(f"layer: expected an RNN or LSTM; got {type(layer).__module__}.{type(layer).__qualname__}")
    if layer.proj_size:
        raise ValueError(f"layer: expected no projection, which Keras has not; got proj_size={layer.proj_size}")
    p = layer.parameters
    found = []
    for number in range(layer.num_layers):
        arrays = []
        for suffix in (f"_l{number}{side}" for side in SUFFIXES[: layer.num_directions]):
            arrays += [p["weight_ih" + suffix].T.copy(), p["weight_hh" + suffix].T.copy()]
            arrays += [p["bias_ih" + suffix] + p["bias_hh" + suffix]] if layer.bias else []
        found.append(arrays)
    return found


def from_keras(weights: Sequence[Sequence[Any]]) -> dict[str, FloatArray]:
    """Our state dict for Keras layers that stand one on the other.

    Parameters
    ----------
    weights : sequence of sequences of arrays
        One entry for each Keras layer, as its `get_weights` returns it: kernel, recurrent_kernel and, unless
        use_bias=False, bias; of a Bidirectional layer with merge_mode="concat" those of both directions. All LSTM or
        all SimpleRNN, of one size and dtype.

    Returns
    -------
    dict of str to ndarray
        For `load_state_dict`, or for `interop.state_dict.layer_from_state_dict`, which builds the layer. Copies.

    Raises
    ------
    ValueError, TypeError
        Another number of arrays, shapes that do not fit each other, those of a GRU, or dtypes that differ; the message
        names the array.

    Notes
    -----
    Weights do not tell of activations: an LSTM with others than the defaults is another function here.

    Examples
    --------
    >>> import numpy as np
    >>> from scratchrnn.interop.state_dict import layer_from_state_dict
    >>> layer_from_state_dict(from_keras([[np.zeros((3, 16)), np.zeros((4, 16)), np.zeros(16)]]))
    LSTM(input_size=3, hidden_size=4, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
    proj_size=0, dtype=float64)
    """
    entries = [_arrays(f"weights[{n}]", entry) for n, entry in enumerate(_sequence("weights", weights))]
    if not entries:
        raise ValueError("weights: expected one entry for each Keras layer; got none")
    directions, bias = FORMS[len(entries[0])]
    recurrent = take_array("weights[0] (recurrent_kernel)", entries[0][1])
    hidden = len(recurrent) if recurrent.ndim == 2 else 0
    gates = recurrent.shape[1] // hidden if hidden and recurrent.shape[1] % hidden == 0 else 0
    if gates not in KINDS:
        gru = " (3·H are those of a GRU, which is not supported)" if gates == 3 else ""
        raise ValueError(
            f"weights[0] (recurrent_kernel): expected shape (H, 4·H) of an LSTM or (H, H) of a SimpleRNN; "
            f"got {recurrent.shape}{gru}"
        )
    kernel = take_array("weights[0] (kernel)", entries[0][0])
    if kernel.ndim != 2:
        wanted = f"(I, {gates * hidden}) for H={hidden}"
        raise ValueError(f"weights[0] (kernel): expected shape {wanted}; got {kernel.shape}")
    inputs = kernel.shape[:1]
    state: dict[str, FloatArray] = {}
    for number, entry in enumerate(entries):
        if len(entry) != len(entries[0]):
            raise ValueError(
                f"weights[{number}]: expected {len(entries[0])} arrays, as weights[0] has; got {len(entry)}"
            )
        shapes = ((*inputs, gates * hidden), (hidden, gates * hidden), (gates * hidden,))[: 2 + bias]
        for at, (array, shape, part) in enumerate(
            zip(entry, shapes * directions, PARTS[: 2 + bias] * directions, strict=True)
        ):
            side = SUFFIXES[at // len(shapes)]
            name = f"weights[{number}] ({'backward ' if side else ''}{part})"
            taken = take_array(name, array, shape=shape, dtype=recurrent.dtype, why=f"for H={hidden}")
            if part == "bias":
                state[f"bias_ih_l{number}{side}"] = taken.copy()
                state[f"bias_hh_l{number}{side}"] = np.zeros_like(taken)
            else:
                ours = "weight_ih" if part == "kernel" else "weight_hh"
                state[f"{ours}_l{number}{side}"] = taken.T.copy()
        inputs = (directions * hidden,)
    return state


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected a list; got {describe(value)}")
    return value


def _arrays(name: str, entry: Any) -> Sequence[Any]:
    """The arrays of one Keras layer."""
    if len(_sequence(name, entry)) not in FORMS:
        parts = ", ".join(PARTS)
        raise ValueError(
            f"{name}: expected 2 or 3 arrays ({parts}), or twice as many of a Bidirectional; got {len(entry)}"
        )
    return entry
