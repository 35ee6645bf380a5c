"""Bad input to recurrent layers: an error that names the argument, what was expected and what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn

T, B, I, H = 7, 5, 3, 8


def lstm(**options: Any) -> srnn.LSTM:
    return srnn.LSTM(I, H, rng=np.random.default_rng(0), **options)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


X = zeros(T, B, I)


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (
            zeros(T, B, I, dtype=np.float64),
            TypeError,
            r"x: expected dtype float32; got float64 \(convert with x.astype",
        ),
        (zeros(T, B, I, dtype=np.int64), TypeError, "x: expected dtype float32; got int64"),
        (zeros(T, B, I).astype(">f4"), TypeError, "x: expected dtype float32; got >f4"),
        ([[1.0]], TypeError, r"x: expected a NumPy array; got list \[\[1.0\]\]"),
        (np.ma.masked_array(X), TypeError, "x: expected a plain NumPy array; got MaskedArray"),
        (zeros(T), ValueError, r"x: expected shape \(time, batch, input_size\) or.* got \(7,\)"),
        (zeros(1, T, B, I), ValueError, r"got \(1, 7, 5, 3\)"),
        (zeros(T, B, I + 1), ValueError, r"x: expected a last axis of input_size=3; got shape \(7, 5, 4\)"),
        (zeros(0, B, I), ValueError, r"x: expected at least one time step; got shape \(0, 5, 3\)"),
    ],
)
def test_x(x: Any, kind: type[Exception], message: str) -> None:
    for call in (lstm(), lstm().forward):
        with pytest.raises(kind, match=message):
            call(x)


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (
            zeros(2, B, H),
            TypeError,
            r"state: expected a pair \(h_0, c_0\) for an LSTM; got an array of shape \(2, 5, 8\)",
        ),
        ((zeros(2, B, H),), TypeError, r"state: expected a pair"),
        (
            (zeros(B, H), zeros(2, B, H)),
            ValueError,
            r"h_0: expected shape \(2, 5, 8\) for num_layers=2, batch=5, hidden=8; got \(5, 8\)",
        ),
        ((zeros(2, B, H), zeros(2, 1, H)), ValueError, r"c_0: expected shape \(2, 5, 8\) .* got \(2, 1, 8\)"),
        ((zeros(2, B, H), None), TypeError, "c_0: expected a NumPy array; got NoneType None"),
        ((zeros(2, B, H), zeros(2, B, H, dtype=np.float64)), TypeError, "c_0: expected dtype float32; got float64"),
        ("zeros", TypeError, "state: expected a pair"),
    ],
)
def test_state(state: Any, kind: type[Exception], message: str) -> None:
    layer = lstm(num_layers=2)
    for call in (layer, layer.forward):
        with pytest.raises(kind, match=message):
            call(X, state)


def test_state_of_other_shapes() -> None:
    rnn = srnn.RNN(I, H, num_layers=2, bidirectional=True)
    with pytest.raises(ValueError, match=r"h_0: expected shape \(4, 5, 8\) for num_layers=2, bidirectional, batch=5"):
        rnn(X, zeros(2, B, H))
    with pytest.raises(TypeError, match=r"h_0: expected a NumPy array; got tuple"):
        rnn(X, (zeros(4, B, H), zeros(4, B, H)))
    with pytest.raises(
        ValueError, match=r"h_0: expected shape \(1, 8\) for num_layers=1, no batch, hidden=8; got \(1, 1, 8\)"
    ):
        srnn.RNN(I, H)(zeros(T, I), zeros(1, 1, H))
    projected = lstm(proj_size=4)
    with pytest.raises(ValueError, match=r"h_0: expected shape \(1, 5, 4\) .* hidden=8, proj=4; got \(1, 5, 8\)"):
        projected(X, (zeros(1, B, H), zeros(1, B, H)))


@pytest.mark.parametrize(
    ("lengths", "kind", "message"),
    [
        ([7, 7, 7, 7], ValueError, r"lengths: expected shape \(5,\), one for each sample; got \(4,\)"),
        (
            [7, 7, 0, 7, 7],
            ValueError,
            "lengths: expected values from 1 to 7, the number of time steps; got 0 at sample 2",
        ),
        ([7, 7, 7, 7, 8], ValueError, "got 8 at sample 4"),
        ([7, 7, 7, -1, 8], ValueError, "got -1 at sample 3"),
        ([7.0, 7, 7, 7, 7], TypeError, "lengths: expected integers; got dtype float64"),
        (np.ones(5, bool), TypeError, "lengths: expected integers; got dtype bool"),
        (7, TypeError, "lengths: expected 5 integers; got int 7"),
        ("77777", TypeError, "lengths: expected 5 integers; got str"),
        ([[1], [2, 3], 1, 1, 1], TypeError, r"lengths: expected 5 integers; got list \[\[1\]"),
        ([True, 2, 3, 4, 5], TypeError, r"lengths: expected integers; got list \[True"),
        (np.ma.masked_array([7, 7, 7, 7, 7]), TypeError, "lengths: expected integers"),
    ],
)
def test_lengths(lengths: Any, kind: type[Exception], message: str) -> None:
    for call in (lstm(), lstm().forward):
        with pytest.raises(kind, match=message):
            call(X, lengths=lengths)


def test_lengths_without_a_batch() -> None:
    with pytest.raises(ValueError, match="lengths: expected None for an input without a batch axis"):
        lstm()(zeros(T, I), lengths=[3])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"num_layers": 0}, ValueError, "num_layers: expected an integer of at least 1; got 0"),
        ({"num_layers": 1.0}, TypeError, "num_layers: expected an integer of at least 1; got float 1.0"),
        ({"num_layers": True}, TypeError, "num_layers: expected an integer"),
        ({"bias": 1}, TypeError, "bias: expected True or False; got int 1"),
        ({"batch_first": "yes"}, TypeError, "batch_first: expected True or False"),
        ({"bidirectional": 2}, TypeError, "bidirectional: expected True or False"),
        ({"dropout": 1.5}, ValueError, "dropout: expected a number between 0 and 1; got 1.5"),
        ({"dropout": float("nan")}, ValueError, "dropout: expected a number between 0 and 1; got nan"),
        ({"dropout": "0.5"}, TypeError, "dropout: expected a number"),
        ({"proj_size": 8}, ValueError, "proj_size: expected less than hidden_size=8; got 8"),
        ({"proj_size": -1}, ValueError, "proj_size: expected an integer of at least 0; got -1"),
        ({"dtype": np.float16}, TypeError, "dtype: expected float32 or float64; got float16"),
        ({"dtype": "float"}, None, ""),
        ({"dtype": "floaty"}, TypeError, "dtype: expected float32 or float64; got 'floaty'"),
        ({"dtype": None}, TypeError, "dtype: expected float32 or float64; got None"),
        ({"dtype": "i4,,"}, TypeError, "dtype: expected float32 or float64; got 'i4,,'"),
        ({"dropout": 10**400}, ValueError, "dropout: expected a number between 0 and 1"),
        ({"dtype": ">f8"}, TypeError, "dtype: expected float32 or float64"),
        ({"backend": "cudda"}, ValueError, "backend: unknown name 'cudda'; known: .*numpy"),
        ({"backend": 3}, TypeError, "backend: expected the name of a backend"),
        ({"rng": 0}, TypeError, r"rng: expected .*default_rng"),
    ],
)
def test_construction(options: dict[str, Any], kind: type[Exception] | None, message: str) -> None:
    if kind is None:
        assert srnn.LSTM(I, H, **options).dtype == np.float64
        return
    with pytest.raises(kind, match=message):
        srnn.LSTM(I, H, **options)


def test_construction_of_an_rnn() -> None:
    for make in (srnn.RNN, srnn.RNNCell):
        with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu'; got 'sigmoid'"):
            make(I, H, nonlinearity="sigmoid")
        with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu'"):
            make(I, H, nonlinearity=np.array(["tanh", "relu"]))
    with pytest.raises(TypeError, match="proj_size"):
        srnn.RNN(I, H, proj_size=2)  # type: ignore[call-arg]
    with pytest.warns(UserWarning, match=r"dropout=0.5 has no effect with num_layers=1"):
        srnn.RNN(I, H, dropout=0.5)


def test_backward() -> None:
    layer = lstm(num_layers=2)
    trace = layer.forward(X)
    good = zeros(2, B, H)
    for d_output, d_state, kind, message in [
        (
            zeros(T, B, 1),
            None,
            ValueError,
            r"d_output: expected shape \(7, 5, 8\) of the trace's output; got \(7, 5, 1\)",
        ),
        (zeros(T, B, H, dtype=np.float64), None, TypeError, "d_output: expected dtype float32; got float64"),
        (1.0, None, TypeError, "d_output: expected a NumPy array; got float 1.0"),
        (None, good, TypeError, r"d_state: expected a pair \(d_h_n, d_c_n\)"),
        (None, (good, zeros(1, B, H)), ValueError, r"d_c_n: expected shape \(2, 5, 8\)"),
        (None, (zeros(2, H), None), ValueError, r"d_h_n: expected shape \(2, 5, 8\)"),
    ]:
        with pytest.raises(kind, match=message):
            layer.backward(trace, d_output, d_state)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trace: expected what forward of this layer returned; got tuple"):
        layer.backward(layer(X))  # type: ignore[arg-type]
    for other in (lstm(), srnn.RNN(I, H, 2), srnn.LSTM(I, H, 2, dtype=np.float64)):
        with pytest.raises(ValueError, match="trace: expected one of"):
            other.backward(trace)
    square = np.zeros((B, B, I), np.float32)
    other_way = srnn.LSTM(I, H, num_layers=2, batch_first=True).forward(square)
    with pytest.raises(ValueError, match="trace: expected one of a layer with batch_first=False; got the other"):
        layer.backward(other_way)
    with pytest.raises(ValueError, match="got one of a rnn_tanh"):
        srnn.RNN(I, H, nonlinearity="relu").backward(srnn.RNN(I, H).forward(X))


def test_forward_options() -> None:
    with pytest.raises(TypeError, match="training: expected True or False; got int 1"):
        lstm().forward(X, training=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator for dropout masks"):
        lstm(num_layers=2, dropout=0.5).forward(X, rng=srnn.rng.torch_manual_seed(0))  # type: ignore[arg-type]


def test_an_rng_is_checked_even_where_nothing_drops() -> None:
    for wrong in (0, "garbage", []):
        with pytest.raises(TypeError, match="rng: expected"):
            lstm().forward(X, rng=wrong)  # type: ignore[arg-type]


def test_parameters_put_into_the_dict_are_checked() -> None:
    for name, wrong, kind in (
        ("weight_hh_l0", np.zeros((4 * H, H)), TypeError),
        ("bias_ih_l0", np.zeros(1, np.float32), ValueError),
    ):
        layer = lstm()
        layer.parameters[name] = wrong
        for call in (layer, layer.forward):
            with pytest.raises(kind, match=f"{name}: expected"):
                call(X)
    cell = srnn.LSTMCell(I, H)
    cell.parameters["bias_ih"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="bias_ih: expected shape"):
        cell(X[0])


def test_an_empty_batch_is_a_batch() -> None:
    layer = lstm(num_layers=2, bidirectional=True, proj_size=4)
    output, (h_n, c_n) = layer(zeros(T, 0, I))
    assert (output.shape, h_n.shape, c_n.shape) == ((T, 0, 8), (4, 0, 4), (4, 0, H))
    trace = layer.forward(zeros(T, 0, I), lengths=[])
    grads = layer.backward(trace, zeros(T, 0, 8))
    assert grads.input is not None
    assert grads.input.shape == (T, 0, I)
    assert all(not g.any() for g in grads.parameters.values())
