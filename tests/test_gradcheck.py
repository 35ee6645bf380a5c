"""Finite differences: right gradients pass, wrong ones are named, and what cannot be decided is not passed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.check import gradcheck, gradcheck_layer


class Elman:
    """A user's cell: keeps what backward needs in itself, writes into its own workspace."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.weight = rng.standard_normal((4, 4))
        self.bias = rng.standard_normal(4)
        self.d_weight = np.zeros((4, 4))

    def forward(self, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.state = state
        self.h = np.tanh(x + state @ self.weight.T + self.bias)
        return 2 * self.h, self.h

    def backward(self, d_output: np.ndarray, d_h: np.ndarray) -> dict[str, np.ndarray]:
        da = (2 * d_output + d_h) * (1 - self.h**2)
        self.d_weight[...] = da.T @ self.state
        return {"x": da, "state": da @ self.weight, "weight": self.d_weight, "bias": da.sum(axis=0)}


def arguments(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.standard_normal((3, 4)), "state": rng.standard_normal((3, 4))}


def test_a_users_cell(rng: np.random.Generator) -> None:
    cell = Elman(rng)
    given = arguments(rng)
    kept = {name: array.copy() for name, array in given.items()} | {"weight": cell.weight.copy()}
    report = gradcheck(cell.forward, cell.backward, given, {"weight": cell.weight, "bias": cell.bias}, rng=rng)
    assert report.ok, report
    assert [row.argument for row in report.rows] == ["all at once", "x", "state", "weight", "bias"]
    assert max(row.error for row in report.rows) < 1e-8
    assert "4 gradients agree" in str(report)
    for name, array in [*given.items(), ("weight", cell.weight)]:
        assert (array == kept[name]).all()


@pytest.mark.parametrize("name", ["x", "state", "weight", "bias"])
@pytest.mark.parametrize(
    "change",
    [lambda d: -d, lambda d: 0 * d, lambda d: d * (1 + 1e-6), lambda d: np.where(d == d.max(), 0, d)],
    ids=["sign", "missing", "slightly off", "one element"],
)
def test_a_wrong_gradient_is_named(name: str, change: Callable[..., Any], rng: np.random.Generator) -> None:
    cell = Elman(rng)

    def backward(*d_outputs: np.ndarray) -> dict[str, np.ndarray]:
        grads = cell.backward(*d_outputs)
        return grads | {name: change(grads[name])}

    report = gradcheck(cell.forward, backward, arguments(rng), {"weight": cell.weight, "bias": cell.bias}, rng=rng)
    assert {row.argument for row in report.failures} - {"all at once"} == {name}
    (row,) = (row for row in report.failures if row.argument == name)
    assert row.index is not None
    analytic = backward(*(rng.standard_normal((3, 4)) for _ in range(2)))[name]  # only its shape is of interest
    assert len(row.index) == analytic.ndim
    assert f"{name}: at {row.index} backward says" in str(report)
    assert "finite differences" in str(report)


def test_both_values_are_told() -> None:
    report = gradcheck(lambda x: x**2, lambda d: {"x": 3 * 2.0 * np.array([1.5]) * d}, {"x": np.array([1.5])})
    row = report.failures[-1]
    assert row.analytic == pytest.approx(3 * row.numeric, rel=1e-6)
    assert row.index == (0,)
    assert f"{row.analytic:.10g}" in str(row)


def test_an_error_in_one_of_many_elements_is_found_by_the_direction(rng: np.random.Generator) -> None:
    x = rng.standard_normal(1000)

    def backward(d: np.ndarray) -> dict[str, np.ndarray]:
        wrong = d * np.cos(x)
        wrong[537] *= -1
        return {"x": wrong}

    report = gradcheck(lambda x: np.sin(x), backward, {"x": x}, rng=rng, elements=0)
    assert [row.argument for row in report.failures] == ["all at once", "x"]


def test_nested_state_and_outputs(rng: np.random.Generator) -> None:
    def forward(x: np.ndarray, state: tuple[np.ndarray, np.ndarray]) -> Any:
        h, c = state
        return x * h, (h * c, c**2)

    x, h, c = rng.standard_normal((3, 4))

    def backward(d_output: np.ndarray, d_state: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        d_h, d_c = d_state
        return {"x": d_output * h, "state": (d_output * x + d_h * c, d_h * h + 2 * d_c * c)}

    report = gradcheck(forward, backward, {"x": x, "state": (h, c)}, rng=rng)
    assert report.ok, report
    assert [row.argument for row in report.rows[1:]] == ["x", "state[0]", "state[1]"]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_arguments_of_any_size(scale: float, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4)) * scale
    report = gradcheck(lambda x: x**2, lambda d: {"x": 2 * d * x}, {"x": x}, rng=rng)
    assert report.ok, report


def test_an_argument_that_does_nothing_has_gradient_zero(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((2, 3))
    right = gradcheck(lambda x, y: 2 * x, lambda d: {"x": 2 * d, "y": np.zeros(3)}, {"x": x, "y": y})
    assert right.ok, right
    wrong = gradcheck(lambda x, y: 2 * x, lambda d: {"x": 2 * d, "y": np.ones(3)}, {"x": x, "y": y})
    assert not wrong.ok


# A kink


def relu_cell(x: np.ndarray, at_zero: float) -> Any:
    slope = np.where(x > 0, 1.0, np.where(x == 0, at_zero, 0.0))
    return gradcheck(lambda x: np.maximum(x, 0), lambda d: {"x": d * slope}, {"x": x})


@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0])
def test_at_a_kink_there_is_no_verdict_but_a_reason(at_zero: float) -> None:
    report = relu_cell(np.array([0.7, 0.0, -0.4]), at_zero)
    if at_zero != 0.5:  # there the central difference happens to agree
        assert not report.ok
        assert "the function has a kink here" in str(report)


def test_a_kink_beside_the_point_is_passed_by() -> None:
    assert relu_cell(np.array([0.7, 3e-6, -3e-6]), 0.0).ok  # within the first step, not within the second


# Layers


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "RNN", "LSTM", "Linear"])
def test_layers(kind: str, batched: bool, rng: np.random.Generator) -> None:
    layer = getattr(srnn, kind)(5, 4, dtype=np.float64, rng=rng)
    shape = (*([3] if kind in ("RNN", "LSTM") else []), *([2] if batched else []), 5)
    report = gradcheck_layer(layer, rng.standard_normal(shape), rng=rng)
    assert report.ok, report
    found = {row.argument for row in report.rows}
    assert found >= {"x", *layer.parameters}
    if kind.startswith("LSTM"):
        assert found >= {"state[0]", "state[1]"}


def test_embedding(rng: np.random.Generator) -> None:
    layer = srnn.Embedding(5, 4, dtype=np.float64, rng=rng)
    assert gradcheck_layer(layer, rng.integers(0, 5, (3, 2)), rng=rng).ok


def test_layer_with_a_state_and_options(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(5, 4, bidirectional=True, proj_size=2, batch_first=True, dtype=np.float64, rng=rng)
    before = layer.state_dict()
    state = (rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 4)))
    report = gradcheck_layer(layer, rng.standard_normal((3, 6, 5)), state, [4, 6, 1], rng=rng, elements=8)
    assert report.ok, report
    assert all((layer.parameters[name] == array).all() for name, array in before.items())


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"arguments": {"x": np.ones(3, np.float32)}}, TypeError, "x: expected .* float64; .*two thirds of the digits"),
        ({"arguments": {"x": [1.0]}}, TypeError, r"x\[0\]: expected a NumPy array of float64; got float 1.0"),
        ({"parameters": {"w": np.ones(3, int)}}, TypeError, "w: expected a NumPy array of float64"),
        ({"parameters": {"x": np.ones(3)}}, ValueError, "parameters: x also among the arguments"),
        ({"forward": lambda x: x.astype(np.float32)}, TypeError, "output: expected a NumPy array of float64"),
        ({"backward": lambda d: d}, TypeError, "backward: expected a mapping of names to gradients"),
        ({"backward": lambda d: {}}, ValueError, "backward: returned no gradient of x"),
        ({"backward": lambda d: {"x": d, "y": d}}, ValueError, "one of y, which is no argument or parameter given"),
        ({"backward": lambda d: {"x": (d, d)}}, ValueError, "backward: expected gradients x; got"),
        ({"elements": -1}, ValueError, "elements: expected an integer of at least 0"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"forward": lambda x: 1 * x, "backward": lambda d: {"x": d}, "arguments": {"x": np.ones(3)}} | change
    with pytest.raises(error, match=message):
        gradcheck(**given)


@pytest.mark.parametrize("wrong", [np.ones((1, 3)), np.ones(3, np.float32), None])
def test_a_gradient_of_the_wrong_shape_or_dtype_fails(wrong: Any) -> None:
    report = gradcheck(lambda x: 1 * x, lambda d: {"x": wrong}, {"x": np.ones(3)})
    assert not report.ok
    assert "x: expected shape (3,), dtype float64; got" in str(report)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"] is False


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (srnn.RNN(5, 4), {}, "weight_ih_l0: expected a NumPy array of float64; .*float32"),
        (3, {}, "layer: expected a layer of scratchrnn; got int 3"),
        (srnn.Linear(5, 4, dtype=np.float64), {"state": 1}, "state: expected None, since Linear has none"),
        (srnn.RNNCell(5, 4, dtype=np.float64), {"lengths": [1]}, "lengths: expected None, since RNNCell has none"),
    ],
)
def test_bad_layer(layer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        gradcheck_layer(layer, np.ones((3, 5)), **options)
