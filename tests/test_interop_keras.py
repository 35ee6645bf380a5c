"""Keras's weights to ours and back, against a few lines with Keras's meaning of them.

https://keras.io/api/layers/recurrent_layers/lstm/ and the layers' own code (keras/src/layers/rnn/lstm.py):
z = x·kernel + h·recurrent_kernel + bias, split into z_i, z_f, z_c, z_o; c = f·c + i·tanh(z_c); h = o·tanh(c).
Bidirectional runs a copy on the sequence turned round, turns its output round again, and joins both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.interop.keras import from_keras, to_keras
from scratchrnn.interop.state_dict import layer_from_state_dict
from scratchrnn.testing import TOLERANCE, assert_close

I, H, B, T = 3, 4, 2, 5


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def keras_lstm(x: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: Any = 0.0) -> np.ndarray:  # x (B, T, I)
    h = c = np.zeros((len(x), len(recurrent)))
    steps = []
    for x_t in x.swapaxes(0, 1):
        z_i, z_f, z_c, z_o = np.split(x_t @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(z_f) * c + sigmoid(z_i) * np.tanh(z_c)
        h = sigmoid(z_o) * np.tanh(c)
        steps.append(h)
    return np.stack(steps, axis=1)


def keras_rnn(x: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: Any = 0.0) -> np.ndarray:
    h = np.zeros((len(x), len(recurrent)))
    steps = []
    for x_t in x.swapaxes(0, 1):
        h = np.tanh(x_t @ kernel + h @ recurrent + bias)
        steps.append(h)
    return np.stack(steps, axis=1)


RUN = {"lstm": keras_lstm, "rnn": keras_rnn}


def keras_net(kind: str, x: np.ndarray, weights: list[list[np.ndarray]], bidirectional: bool) -> np.ndarray:
    for arrays in weights:
        if bidirectional:
            half = len(arrays) // 2
            back = RUN[kind](x[:, ::-1], *arrays[half:])[:, ::-1]
            x = np.concatenate([RUN[kind](x, *arrays[:half]), back], axis=2)
        else:
            x = RUN[kind](x, *arrays)
    return x


def keras_weights(kind: str, layers: int, bidirectional: bool, bias: bool, rng: np.random.Generator) -> Any:
    gates, directions, inputs, found = 4 if kind == "lstm" else 1, 1 + bidirectional, I, []
    for _ in range(layers):
        shapes = [(inputs, gates * H), (H, gates * H), (gates * H,)][: 2 + bias] * directions
        found.append([rng.uniform(-1, 1, shape) for shape in shapes])
        inputs = directions * H
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_both_ways(kind: str, layers: int, bidirectional: bool, bias: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((B, T, I))
    weights = keras_weights(kind, layers, bidirectional, bias, rng)
    want = keras_net(kind, x, weights, bidirectional)
    layer = layer_from_state_dict(from_keras(weights), batch_first=True)
    assert type(layer) is {"lstm": srnn.LSTM, "rnn": srnn.RNN}[kind]
    assert (layer.num_layers, layer.bidirectional, layer.bias) == (layers, bidirectional, bias)
    assert_close("from", layer(x)[0], want, rel=TOLERANCE["float64"])
    for ours, theirs in zip(to_keras(layer), weights, strict=True):
        for got, array in zip(ours, theirs, strict=True):
            assert_close("there and back", got, array, rel=0)
            assert got.flags.c_contiguous

    if bias:  # two biases of our own become their sum
        drawn = type(layer)(I, H, layers, bidirectional=bidirectional, batch_first=True, dtype=np.float64, rng=rng)
        assert_close("to", keras_net(kind, x, to_keras(drawn), bidirectional), drawn(x)[0], rel=TOLERANCE["float64"])


def test_the_bias_goes_into_bias_ih(rng: np.random.Generator) -> None:
    weights = keras_weights("lstm", 1, False, True, rng)
    state = from_keras(weights)
    assert_close("bias_ih", state["bias_ih_l0"], weights[0][2], rel=0)
    assert not state["bias_hh_l0"].any()


def test_nothing_is_shared(rng: np.random.Generator) -> None:
    weights = keras_weights("rnn", 1, False, True, rng)
    state = from_keras(weights)
    layer = layer_from_state_dict(state)
    for theirs in (*weights[0], *to_keras(layer)[0]):
        assert not any(np.shares_memory(theirs, own) for own in (*state.values(), *layer.parameters.values()))


K, R, BIAS = np.zeros((I, 4 * H)), np.zeros((H, 4 * H)), np.zeros(4 * H)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([], ValueError, "weights: expected one entry for each Keras layer; got none"),
        (K, TypeError, "weights: expected a list; got an array"),
        ([K, R, BIAS], TypeError, r"weights\[0\]: expected a list; got an array of shape \(3, 16\)"),
        ([[K]], ValueError, r"weights\[0\]: expected 2 or 3 arrays \(kernel, recurrent_kernel, bias\), .*; got 1"),
        ([[K, R], [R, R, BIAS]], ValueError, r"weights\[1\]: expected 2 arrays, as weights\[0\] has; got 3"),
        (
            [[K, R.T, BIAS]],
            ValueError,
            r"weights\[0\] \(recurrent_kernel\): expected shape \(H, 4·H\) .*; got \(16, 4\)",
        ),
        ([[K, np.zeros((4, 12))]], ValueError, "those of a GRU, which is not supported"),
        ([[BIAS, R, BIAS]], ValueError, r"weights\[0\] \(kernel\): expected shape \(I, 16\) for H=4; got \(16,\)"),
        ([[K.T, R, BIAS]], ValueError, r"weights\[0\] \(kernel\): expected shape \(16, 16\) for H=4; got \(16, 3\)"),
        ([[K, R, BIAS[:8]]], ValueError, r"weights\[0\] \(bias\): expected shape \(16,\) for H=4; got \(8,\)"),
        ([[K, R, BIAS, R, R, BIAS]], ValueError, r"weights\[0\] \(backward kernel\): expected shape \(3, 16\)"),
        ([[K, R], [K, R]], ValueError, r"weights\[1\] \(kernel\): expected shape \(4, 16\) for H=4; got \(3, 16\)"),
        ([[K, R.astype("f"), BIAS]], TypeError, r"weights\[0\] \(kernel\): expected dtype float32; got float64"),
        ([[K, R.tolist()]], TypeError, r"weights\[0\] \(recurrent_kernel\): expected a NumPy array; got list"),
        ([[K, R.astype("f2")]], TypeError, r"expected dtype float32 or float64; got float16"),
    ],
)
def test_weights_that_do_not_fit(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_keras(weights)


def test_layers_that_keras_has_not() -> None:
    with pytest.raises(ValueError, match="layer: expected no projection, which Keras has not; got proj_size=2"):
        to_keras(srnn.LSTM(I, H, proj_size=2))
    with pytest.raises(TypeError, match=r"layer: expected an RNN or LSTM; got scratchrnn\..*Linear"):
        to_keras(srnn.Linear(I, H))  # type: ignore[arg-type]
