"""The first number that is not finite, planted at a known place, is found there."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.dynamics import NonFinite, first_nonfinite

T, B, I, H, L = 7, 3, 4, 5, 2


def new(cell: str, rng: np.random.Generator, **options: Any) -> Any:
    kind = srnn.LSTM if cell == "lstm" else srnn.RNN
    options |= {} if cell == "lstm" else {"nonlinearity": cell}
    return kind(I, H, L, dtype=np.float64, rng=rng, **options)


def zeros(size: int, batch: int = B) -> np.ndarray:
    return np.zeros((L, batch, size))


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_nothing_is_found_where_all_is_finite(cell: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    layer = new(cell, rng, **options)
    trace = layer.forward(rng.standard_normal((T, B, I)), lengths=[4, 7, 1])
    assert first_nonfinite(trace) is None
    assert first_nonfinite(layer.backward(trace, trace.output)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_an_input(cell: str, bad: float, rng: np.random.Generator, each_backend: str) -> None:
    layer = new(cell, rng)
    x = rng.standard_normal((T, B, I))
    x[5, 1, 2] = x[6, 0, 1] = bad
    found = first_nonfinite(layer.forward(x))
    assert found is not None
    assert (found.layer, found.direction, found.step, found.quantity, found.sample, found.unit) == (
        0, "forward", 5, "input", 1, 2,
    )  # fmt: skip
    assert found.value == bad or (math.isnan(bad) and math.isnan(found.value))


@pytest.mark.parametrize("gate", range(4))
@pytest.mark.parametrize("layer", [0, 1])
def test_a_gate_by_name(gate: int, layer: int, rng: np.random.Generator) -> None:
    lstm = new("lstm", rng)
    lstm.parameters[f"bias_hh_l{layer}"][gate * H + 3] = math.nan
    found = first_nonfinite(lstm.forward(rng.standard_normal((T, B, I))))
    assert found == NonFinite(layer, "forward", 0, "ifgo"[gate], 0, 3, pytest.approx(math.nan, nan_ok=True))
    assert str(found) == f"layer {layer}, step 0, pre-activation of gate {'ifgo'[gate]}, sample 0, unit 3 is nan"


def test_a_recurrent_weight_shows_at_the_first_state_that_it_meets(rng: np.random.Generator) -> None:
    rnn = new("tanh", rng)
    rnn.parameters["weight_hh_l0"][2, 4] = math.nan
    found = first_nonfinite(rnn.forward(rng.standard_normal((T, B, I))))
    assert str(found) == "layer 0, step 0, a, sample 0, unit 2 is nan"  # 0 · NaN is NaN


def test_an_initial_state(rng: np.random.Generator) -> None:
    lstm = new("lstm", rng)
    h, c = zeros(H), zeros(H)
    c[1, 2, 3] = math.inf
    found = first_nonfinite(lstm.forward(rng.standard_normal((T, B, I)), (h, c)))
    assert str(found) == "layer 1, step 0, c_0, sample 2, unit 3 is inf"
    h[1, 0, 4] = math.nan
    found = first_nonfinite(lstm.forward(rng.standard_normal((T, B, I)), (h, c)))
    assert str(found) == "layer 1, step 0, h_0, sample 0, unit 4 is nan"


def test_growth_beyond_the_largest_number(rng: np.random.Generator) -> None:
    """h_t = 10^(200 (t+1)): a overflows at step 1, before h does."""
    rnn = srnn.RNN(1, 1, nonlinearity="relu", bias=False, dtype=np.float64, rng=rng)
    rnn.weight_ih_l0, rnn.weight_hh_l0 = np.array([[1.0]]), np.array([[1e200]])
    found = first_nonfinite(rnn.forward(np.full((4, 1, 1), 1e200)))
    assert str(found) == "layer 0, step 1, a, sample 0, unit 0 is inf"


def test_a_cell_state_that_overflows(rng: np.random.Generator) -> None:
    """c_0 near the largest number, and both gates open: the sum is beyond it, while every gate is finite."""
    lstm = srnn.LSTM(1, 1, dtype=np.float64, rng=rng)
    lstm.bias_ih_l0 = np.full(4, 50.0)
    largest = np.full((1, 1, 1), np.finfo(np.float64).max)
    trace = lstm.forward(np.zeros((3, 1, 1)), (np.zeros((1, 1, 1)), largest))
    assert first_nonfinite(trace) is None  # 1 is nothing beside it
    trace = lstm.forward(np.zeros((3, 1, 1)))
    trace[0].c[2] = math.inf
    trace[0].h[3] = math.nan
    assert str(first_nonfinite(trace)) == "layer 0, step 1, c, sample 0, unit 0 is inf"


def planted(record: Any, places: list[tuple[Any, str, tuple[int, ...]]]) -> str:
    for key, name, index in places:
        getattr(record[key], name)[index] = math.nan
    return str(first_nonfinite(record))


def test_order_within_a_forward_pass(rng: np.random.Generator) -> None:
    lstm, x = new("lstm", rng), rng.standard_normal((T, B, I))

    def first(*places: tuple[Any, str, tuple[int, ...]]) -> str:
        return planted(lstm.forward(x), list(places))

    # state slot t+1 is that of step t
    assert first((0, "h", (6, 0, 0)), (1, "c", (4, 2, 1))) == "layer 1, step 3, c, sample 2, unit 1 is nan"
    assert first((1, "h", (4, 0, 0)), (0, "h", (4, 2, 1))) == "layer 0, step 3, h, sample 2, unit 1 is nan"
    assert first((0, "h", (4, 0, 0)), (0, "c", (4, 2, 1))) == "layer 0, step 3, c, sample 2, unit 1 is nan"
    assert first((0, "c", (4, 0, 0)), (0, "a", (3, 2, 9))).startswith(
        "layer 0, step 3, pre-activation of gate f, sample 2"
    )
    assert first((0, "a", (3, 0, 9)), (0, "a", (3, 2, 0))).startswith(
        "layer 0, step 3, pre-activation of gate i, sample 2"
    )
    assert first((0, "a", (3, 0, 0)), (0, "input", (3, 2, 1))) == "layer 0, step 3, input, sample 2, unit 1 is nan"
    assert first((0, "h", (4, 2, 0)), (0, "h", (4, 1, 4))) == "layer 0, step 3, h, sample 1, unit 4 is nan"
    assert first((0, "h", (4, 1, 4)), (0, "h", (4, 1, 3))) == "layer 0, step 3, h, sample 1, unit 3 is nan"


def test_order_within_a_backward_pass(rng: np.random.Generator) -> None:
    lstm = new("lstm", rng)
    trace = lstm.forward(rng.standard_normal((T, B, I)))

    def first(*places: tuple[Any, str, tuple[int, ...]]) -> str:
        return planted(lstm.backward(trace, trace.output), list(places))

    assert first((1, "h", (2, 0, 0)), (0, "c", (4, 2, 1))) == "layer 0, step 3, gradient of c, sample 2, unit 1 is nan"
    assert first((0, "h", (4, 0, 0)), (1, "h", (4, 2, 1))) == "layer 1, step 3, gradient of h, sample 2, unit 1 is nan"
    assert first((1, "c", (4, 0, 0)), (1, "h", (4, 2, 1))) == "layer 1, step 3, gradient of h, sample 2, unit 1 is nan"
    assert first((1, "a", (3, 0, 0)), (1, "c", (4, 2, 1))) == "layer 1, step 3, gradient of c, sample 2, unit 1 is nan"
    assert (
        first((0, "h", (4, 0, 0)), (1, "a", (3, 2, 17)))
        == "layer 1, step 3, gradient of pre-activation of gate o, sample 2, unit 2 is nan"
    )
    assert first((1, "h", (0, 2, 1)), (1, "a", (0, 0, 0))).startswith(
        "layer 1, step 0, gradient of pre-activation of gate i"
    )
    assert (
        first((1, "h", (0, 2, 1)), (1, "c", (0, 0, 0))) == "layer 1, step 0, gradient of h_0, sample 2, unit 1 is nan"
    )


def test_a_cotangent(rng: np.random.Generator, each_backend: str) -> None:
    rnn = new("tanh", rng)
    trace = rnn.forward(rng.standard_normal((T, B, I)))
    d_output = rng.standard_normal(trace.output.shape)
    d_output[4, 1, 2] = math.inf
    found = first_nonfinite(rnn.backward(trace, d_output))
    assert str(found) == "layer 1, step 4, gradient of h, sample 1, unit 2 is inf"


def test_two_directions(rng: np.random.Generator) -> None:
    """The reverse direction's step 0 reads the last input; layer 1 has all of layer 0 behind it at its step 0."""
    lstm = new("lstm", rng, bidirectional=True)
    x = rng.standard_normal((T, B, I))
    x[4, 1, 2] = math.nan
    found = first_nonfinite(lstm.forward(x))
    assert str(found) == "layer 0 reverse, step 2, input, sample 1, unit 2 is nan"  # T - 1 - 4
    x[2, 1, 2] = math.nan
    assert (
        str(first_nonfinite(lstm.forward(x))) == "layer 0, step 2, input, sample 1, unit 2 is nan"
    )  # forward before reverse

    lstm = new("lstm", rng, bidirectional=True)
    lstm.parameters["bias_ih_l1_reverse"][7] = math.nan
    trace = lstm.forward(rng.standard_normal((T, B, I)))
    found = first_nonfinite(trace)
    assert str(found) == "layer 1 reverse, step 0, pre-activation of gate f, sample 0, unit 2 is nan"
    trace[0].h[6, 1, 0] = math.nan  # later in time, but below
    assert str(first_nonfinite(trace)) == "layer 0, step 5, h, sample 1, unit 0 is nan"

    d_output = np.zeros((T, B, 2 * H))
    d_output[1, 2, H + 3] = math.nan
    grads = lstm.backward(new("lstm", rng, bidirectional=True).forward(np.nan_to_num(x)), d_output)
    assert str(first_nonfinite(grads)) == "layer 1 reverse, step 5, gradient of h, sample 2, unit 3 is nan"


def test_lengths_turn_each_sequence_round_within_its_own(rng: np.random.Generator) -> None:
    layer = new("tanh", rng, bidirectional=True)
    x = rng.standard_normal((T, B, I))
    x[2, 1, 3] = math.nan
    found = first_nonfinite(layer.forward(x, lengths=[7, 3, 2]))
    assert str(found) == "layer 0 reverse, step 0, input, sample 1, unit 3 is nan"
    x[2, 1, 3] = 0
    x[6, 1, 3] = math.nan  # padding is never read
    assert first_nonfinite(layer.forward(x, lengths=[7, 3, 2])) is None


def test_projection(rng: np.random.Generator) -> None:
    lstm = new("lstm", rng, proj_size=3)
    lstm.parameters["weight_hr_l0"][2, 1] = math.nan
    assert (
        str(first_nonfinite(lstm.forward(rng.standard_normal((T, B, I)))))
        == "layer 0, step 0, h, sample 0, unit 2 is nan"
    )


def test_minimal_traces(rng: np.random.Generator) -> None:
    lstm = new("lstm", rng)
    lstm.parameters["bias_hh_l1"][2 * H] = math.nan
    trace = lstm.forward(rng.standard_normal((T, B, I)), trace="minimal")
    assert str(first_nonfinite(trace)) == "layer 1, step 0, pre-activation of gate g, sample 0, unit 0 is nan"
    grads = lstm.backward(trace, np.ones_like(trace.output))
    assert str(first_nonfinite(grads)) == "layer 1, step 6, gradient of c, sample 0, unit 0 is nan"


def test_what_it_takes(rng: np.random.Generator) -> None:
    with pytest.raises(
        TypeError, match=r"^record: expected what forward or backward of a layer returned; got an array"
    ):
        first_nonfinite(np.ones(3))  # type: ignore[arg-type]
    lstm = srnn.LSTM(I, H, rng=rng)
    grads = srnn.bptt.checkpointed(lstm, rng.standard_normal((T, B, I), np.float32), lambda output, start: output)
    with pytest.raises(
        ValueError, match=r"^record: expected the gradient of every step; nothing per time step was kept"
    ):
        first_nonfinite(grads)
    found = NonFinite(1, "reverse", 2, "h", 3, 4, math.inf)
    assert pickle.loads(pickle.dumps(found)) == found
