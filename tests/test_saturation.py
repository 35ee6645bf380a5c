"""Saturation shares against a count by hand, value by value, and against torch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.dynamics import Ends, saturation
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]


def wide(kind: str, *args: int, rng: np.random.Generator, **options: Any) -> Any:
    """A layer with weights large enough that some units saturate and some do not."""
    layer = srnn.LSTM(*args, rng=rng, **options) if kind == "lstm" else srnn.RNN(*args, rng=rng, **options)
    for weight in layer.parameters.values():
        weight *= 4
    return layer


def by_hand(values: np.ndarray, lengths: Any, low: float, high: float) -> tuple[list[float], list[float]]:
    """Left and right share of each unit of `values` (T, B, H), one value at a time."""
    left, right = [], []
    for unit in range(values.shape[2]):
        seen = [float(values[t, b, unit]) for b, n in enumerate(lengths) for t in range(n)]
        left.append(sum(v < low for v in seen) / len(seen))
        right.append(sum(v > high for v in seen) / len(seen))
    return left, right


def check(name: str, got: Ends | None, values: np.ndarray, lengths: Any, low: float, high: float) -> None:
    assert got is not None
    left, right = by_hand(values, lengths, low, high)
    assert_close(f"{name} left", got.left, np.array(left), rel=EXACT)
    assert_close(f"{name} right", got.right, np.array(right), rel=EXACT)
    assert got.left_share == pytest.approx(np.mean(left), rel=1e-12)
    assert got.right_share == pytest.approx(np.mean(right), rel=1e-12)
    assert got.nan_count == 0
    assert 0 < np.mean(left) + np.mean(right) < 1, f"{name}: nothing to see in this test"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"proj_size": 3}])
def test_lstm_by_hand(options: dict[str, int], dtype: Any, rng: np.random.Generator) -> None:
    lstm = wide("lstm", 3, 7, 2, bidirectional=True, dtype=dtype, rng=rng, **options)
    lengths = [4, 13, 9, 1, 13]
    state = [np.full((4, 5, size), 50.0, dtype) for size in (lstm.output_size, 7)]  # far from any value later on
    state[1][:] = 3.0
    trace = lstm.forward(3 * rng.standard_normal((13, 5, 3)).astype(dtype), (state[0], state[1]), lengths=lengths)
    for layer in (0, 1):
        for direction in ("forward", "reverse"):
            part = trace[layer, direction]
            got = saturation(trace, layer=layer, direction=direction, threshold=0.5, low=0.2, high=0.7)
            check("h", got.h, part.h[1:], lengths, -0.5, 0.5)
            check("g", got.g, part.g, lengths, -0.5, 0.5)
            check("tanh_c", got.tanh_c, np.tanh(part.c[1:]), lengths, -0.5, 0.5)
            assert list(got.gates) == ["i", "f", "o"]
            for name in got.gates:
                check(name, got.gates[name], getattr(part, name), lengths, 0.2, 0.7)
            valid = np.concatenate([part.c[1 : n + 1, b] for b, n in enumerate(lengths)]).astype(np.float64)
            c = torch.tensor(valid, requires_grad=True)
            torch.tanh(c).sum().backward()
            assert c.grad is not None
            rel = EXACT if dtype == np.float64 else 1e-6
            assert_close("derivative", got.unit_derivative, c.grad.numpy().mean(axis=0), rel=rel)
            assert got.mean_derivative == pytest.approx(float(c.grad.mean()), rel=1e-6)
            assert (got.threshold, got.low, got.high) == (0.5, 0.2, 0.7)
            assert got.dead is None
            assert got.dead_share is None


def test_shares_by_step_are_in_the_inputs_order_of_time(rng: np.random.Generator) -> None:
    lstm = wide("lstm", 3, 7, 2, bidirectional=True, dtype=np.float64, rng=rng)
    lengths = [4, 11, 9, 1, 11]  # two steps of the batch are read by none
    x = 3 * rng.standard_normal((13, 5, 3))
    trace = lstm.forward(x, lengths=lengths)
    for direction in ("forward", "reverse"):
        got = saturation(trace, layer=1, direction=direction, threshold=0.5, low=0.3, high=0.6)
        part = trace[1, direction]
        ranges = {"h": (got.h, -0.5, 0.5), "f": (got.gates["f"], 0.3, 0.6), "g": (got.g, -0.5, 0.5)}
        for name, (ends, low, high) in ranges.items():
            assert ends is not None
            assert ends.left_by_step.shape == ends.right_by_step.shape == (11,)
            values = getattr(part, name)[1:] if name == "h" else getattr(part, name)
            for t in range(11):
                # the reverse direction reads x[t] of a sequence of n steps at its own step n - 1 - t
                slots = [(n - 1 - t if part.reverse else t, b) for b, n in enumerate(lengths) if t < n]
                seen = np.concatenate([values[slot, b] for slot, b in slots])
                assert ends.left_by_step[t] == pytest.approx(np.mean(seen < low), rel=1e-12), (name, t)
                assert ends.right_by_step[t] == pytest.approx(np.mean(seen > high), rel=1e-12), (name, t)
            weight = 7 * np.array([sum(t < n for n in lengths) for t in range(11)])
            assert ends.left_share == pytest.approx(np.average(ends.left_by_step, weights=weight), rel=1e-12)


def test_a_step_of_nothing_but_nan_has_no_share() -> None:
    found = saturation(planted([[1.0, -1.0], [np.nan, np.nan], [1.0, np.nan]]))
    np.testing.assert_array_equal(found.h.right_by_step, [0.5, np.nan, 1])
    np.testing.assert_array_equal(found.h.left_by_step, [0.5, np.nan, 0])


def test_rnn_figures_are_those_of_torch() -> None:
    rng = np.random.default_rng(3)
    rnn = wide("rnn", 3, 8, rng=rng, batch_first=True)
    trace = rnn.forward(rng.standard_normal((5, 21, 3)).astype(np.float32))
    hidden = torch.tensor(trace.output)
    found = saturation(trace)
    assert found.rate == pytest.approx((hidden.abs() > 0.95).double().mean().item(), rel=1e-12)
    assert 0.1 < found.rate < 0.9
    assert found.rate == found.h.share
    assert found.mean_abs == pytest.approx(hidden.abs().double().mean().item(), rel=1e-7)
    assert found.max_abs == hidden.abs().max().item()
    assert_close("derivative", found.unit_derivative, (1 - hidden.double() ** 2).mean(dim=(0, 1)).numpy(), rel=1e-6)
    assert found.mean_derivative == pytest.approx((1 - hidden.double() ** 2).mean().item(), rel=1e-6)
    assert (found.gates, found.g, found.tanh_c, found.dead, found.nan_count) == ({}, None, None, None, 0)


def planted(h: list[list[float]], nonlinearity: str = "tanh", dtype: Any = np.float64) -> srnn.Trace:
    """A trace of one sequence whose hidden states (T, H) are these."""
    states = np.array([[9.0] * len(h[0]), *h], dtype)[:, None]
    rnn = srnn.RNN(1, len(h[0]), nonlinearity=nonlinearity, dtype=dtype)
    trace = rnn.forward(np.zeros((len(h), 1, 1), dtype))
    return dataclasses.replace(trace, layers={(0, "forward"): dataclasses.replace(trace[0], h=states)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_limit_itself_is_not_saturated(dtype: Any) -> None:
    above = float(np.nextafter(dtype(0.95), dtype(1)))
    found = saturation(planted([[0.95, -0.95, above, -above]], dtype=dtype))
    assert found.h.left.tolist() == [0, 0, 0, 1]
    assert found.h.right.tolist() == [0, 0, 1, 0]
    assert found.rate == 0.5


def test_nan_is_counted_and_is_no_unsaturated_value() -> None:
    nan = float("nan")
    found = saturation(planted([[1.0, nan, 0.0], [1.0, nan, nan], [0.0, nan, nan], [-1.0, nan, nan]]))
    assert found.nan_count == found.h.nan_count == 7
    np.testing.assert_array_equal(found.h.right, [0.5, nan, 0])
    np.testing.assert_array_equal(found.h.left, [0.25, nan, 0])
    assert found.rate == pytest.approx(3 / 5)  # three of the five values that are numbers
    assert found.mean_abs == pytest.approx(3 / 5)
    assert found.max_abs == 1.0
    np.testing.assert_array_equal(found.unit_derivative, [0.25, nan, 1])
    assert found.mean_derivative == pytest.approx(2 / 5)


def test_nothing_but_nan_gives_nan_and_no_warning() -> None:
    lstm = srnn.LSTM(2, 3)
    for weight in lstm.parameters.values():
        weight[:] = np.nan
    found = saturation(lstm.forward(np.zeros((4, 2, 2), np.float32)))
    assert found.nan_count == found.gates["f"].nan_count == 24
    for figure in (found.rate, found.mean_abs, found.max_abs, found.gates["o"].left_share, found.mean_derivative):
        assert np.isnan(figure)
    rnn = srnn.RNN(2, 3)
    rnn.parameters["bias_ih_l0"][:] = np.nan
    assert saturation(rnn.forward(np.zeros((4, 2, 2), np.float32))).dead is None


def test_dead_units_of_a_relu_net(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(3, 6, nonlinearity="relu", rng=rng)
    rnn.parameters["bias_ih_l0"][[1, 4]] = -100
    lengths = [9, 3]
    trace = rnn.forward(rng.standard_normal((9, 2, 3)).astype(np.float32), lengths=lengths)
    found = saturation(trace)
    assert found.dead is not None
    assert found.dead[[1, 4]].tolist() == [True, True]
    active = np.concatenate([trace.h[1 : n + 1, b] for b, n in enumerate(lengths)]) > 0
    assert found.dead.tolist() == (~active.any(axis=0)).tolist()
    assert found.dead_share == found.dead.mean()
    assert 0 < found.dead_share < 1
    assert_close("derivative", found.unit_derivative, active.mean(axis=0), rel=EXACT)


def test_a_relu_unit_that_is_nan_is_neither_dead_nor_inactive() -> None:
    nan = float("nan")
    found = saturation(planted([[0.0, nan, 2.0], [0.0, nan, nan]], "relu"))
    assert found.dead is not None
    assert found.dead.tolist() == [True, False, False]
    np.testing.assert_array_equal(found.unit_derivative, [0, nan, 1])


def test_padding_and_initial_state_do_not_count(rng: np.random.Generator) -> None:
    rnn = wide("rnn", 2, 5, rng=rng)
    x = rng.standard_normal((12, 3, 2)).astype(np.float32)
    state = np.full((1, 3, 5), 0.99, np.float32)
    short = saturation(rnn.forward(x, state, lengths=[5, 5, 5]))
    cut = saturation(rnn.forward(x[:5], state))
    for field in dataclasses.fields(short.h):
        np.testing.assert_array_equal(getattr(short.h, field.name), getattr(cut.h, field.name))
    assert (short.mean_abs, short.mean_derivative) == (cut.mean_abs, cut.mean_derivative)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, r"layer: expected to be given, since there are 2 layers and directions"),
        ({"layer": 2}, IndexError, "no layer 2"),
        ({"layer": 0, "direction": "reverse"}, IndexError, "reverse"),
        ({"layer": 0, "threshold": -0.1}, ValueError, "threshold"),
        ({"layer": 0, "low": 0.6, "high": 0.5}, ValueError, "low: expected at most high=0.5; got 0.6"),
        ({"layer": 0, "high": 1.5}, ValueError, "high"),
        ({"layer": 0, "low": "0"}, TypeError, "low"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    trace = srnn.RNN(2, 3, 2).forward(np.zeros((4, 1, 2), np.float32))
    with pytest.raises(error, match=message):
        saturation(trace, **options)


def test_bad_traces() -> None:
    rnn = srnn.RNN(2, 3)
    trace = rnn.forward(np.zeros((4, 1, 2), np.float32))
    with pytest.raises(IndexError, match="no layer 0 in direction 'reverse'"):
        saturation(trace, direction="reverse")
    with pytest.raises(TypeError, match="trace: expected what forward of a layer returned"):
        saturation(trace.output)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trace: expected at least one sequence; got a batch of 0"):
        saturation(rnn.forward(np.zeros((4, 0, 2), np.float32)))
