"""Jacobians of single steps against torch's autograd, and their products against the Jacobians and the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.gradflow.linearize import (
    Linearized,
    flatten_state,
    float64_copy,
    linearize_at,
    step,
    unflatten_state,
)
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.trace import Trace

T, B, I, H, P = 7, 3, 4, 5, 2
REL = TOLERANCE["float64"]
CASES = {
    "rnn": (srnn.RNN, {}),
    "relu": (srnn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
    "rnn3": (srnn.RNN, {"num_layers": 3, "dropout": 0.4, "bias": False}),
    "lstm": (srnn.LSTM, {}),
    "lstm2": (srnn.LSTM, {"num_layers": 2, "batch_first": True}),
    "proj": (srnn.LSTM, {"proj_size": P}),
    "proj3": (srnn.LSTM, {"num_layers": 3, "proj_size": P, "dropout": 0.4}),
}
LENGTHS = [5, 7, 1]


def make(name: str, rng: np.random.Generator, **changes: Any) -> tuple[Any, Trace]:
    kind, options = CASES[name]
    layer = kind(I, H, dtype=np.float64, rng=rng, **(options | changes))
    for weight in layer.parameters.values():
        weight *= 1.5  # away from the linear part
    x = rng.standard_normal((B, T, I) if layer.batch_first else (T, B, I))
    shapes = layer._state_shapes(B, True)
    state = tuple(rng.standard_normal(shape) for shape in shapes)
    return layer, layer.forward(x, state if len(state) == 2 else state[0], LENGTHS, training=True, rng=rng)


def torch_step(layer: Any, masks: list[Any], x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """F(x, s) of one sample, from torch.nn's equations."""
    w = {name: torch.tensor(array) for name, array in layer.parameters.items()}
    lstm, out, at = layer.cell.has_c, [], 0
    for n in range(layer.num_layers):
        size = layer.output_size
        h, at = s[at : at + size], at + size
        a = w[f"weight_ih_l{n}"] @ x + w[f"weight_hh_l{n}"] @ h
        if layer.bias:
            a = a + w[f"bias_ih_l{n}"] + w[f"bias_hh_l{n}"]
        if lstm:
            c, at = s[at : at + H], at + H
            i, f, g, o = a.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            h = w[f"weight_hr_l{n}"] @ h if layer.proj_size else h
            out += [h, c]
        else:
            h = a.relu() if layer.cell.nonlinearity == "relu" else a.tanh()
            out += [h]
        x = h if n >= len(masks) or masks[n] is None else h * torch.tensor(masks[n])
    return torch.cat(out)


@pytest.mark.parametrize("name", CASES)
def test_jacobians_are_autograds(name: str, rng: np.random.Generator) -> None:
    layer, trace = make(name, rng)
    linear = Linearized(trace)
    for t in range(T):
        state, inputs = linear.state_jacobian(t), linear.input_jacobian(t)
        assert state.shape == (B, linear.size, linear.size)
        for b, length in enumerate(LENGTHS):
            if t >= length:
                assert_close("state", state[b], np.eye(linear.size), rel=0)
                assert_close("input", inputs[b], np.zeros((linear.size, I)), rel=0)
                continue
            masks = [None if m is None else m[t, b] for m in trace.dropout_masks]
            x, s = torch.tensor(trace[0].input[t, b]), torch.tensor(linear.states(t)[b])
            assert_close(
                "F", linear.states(t + 1)[b], torch_step(layer, masks, x, s).numpy(), rel=REL
            )  # so that it is the same map
            want = torch.autograd.functional.jacobian(lambda x, s, m=masks: torch_step(layer, m, x, s), (x, s))
            assert_close("input", inputs[b], want[0].numpy(), rel=REL)
            assert_close("state", state[b], want[1].numpy(), rel=REL)


@pytest.mark.parametrize("name", CASES)
def test_products_are_those_with_the_jacobians(name: str, rng: np.random.Generator) -> None:
    linear = Linearized(make(name, rng)[1])
    for t in range(T):
        state, inputs = linear.state_jacobian(t), linear.input_jacobian(t)
        ds, dx = rng.standard_normal((B, linear.size, 6)), rng.standard_normal((B, I, 6))
        g = rng.standard_normal((B, 8, linear.size))
        assert_close("jvp of s", linear.jvp(t, ds), state @ ds, rel=REL)
        assert_close("jvp", linear.jvp(t, ds, dx), state @ ds + inputs @ dx, rel=REL)
        back, g_x = linear.vjp(t, g)
        assert_close("vjp in s", back, g @ state, rel=REL)
        assert_close("vjp in x", g_x, g @ inputs, rel=REL)


@pytest.mark.parametrize("name", ["rnn", "lstm2", "proj"])
def test_walking_back_gives_the_engines_gradients(name: str, rng: np.random.Generator, each_backend: str) -> None:
    layer, trace = make(name, rng, dropout=0.0)
    linear = Linearized(trace)
    d_output = rng.standard_normal(trace.output.shape)
    grads = layer.backward(trace, d_output)
    d = d_output.transpose(1, 0, 2) if layer.batch_first else d_output
    g, d_x = np.zeros((B, 1, linear.size)), []
    for t in reversed(range(T)):
        g[:, 0, linear.output] += np.where(t < np.array(LENGTHS)[:, None], d[t], 0)
        g, g_x = linear.vjp(t, g)
        d_x.append(g_x[:, 0])
    got = np.stack(d_x[::-1])
    assert_close("dx", got.transpose(1, 0, 2) if layer.batch_first else got, grads.input, rel=REL)
    assert_close("d_state", g[:, 0], flatten_state(grads.state), rel=REL)


def test_a_minimal_trace_serves_as_well(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, B, I))
    full, minimal = (Linearized(lstm.forward(x, trace=kind)) for kind in ("full", "minimal"))
    assert_close("J", minimal.state_jacobian(3), full.state_jacobian(3), rel=0)


def test_float32_stays_float32_and_wider_vectors_widen(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=2, rng=rng)
    linear = Linearized(lstm.forward(rng.standard_normal((T, B, I), np.float32)))
    narrow, wide = np.ones((B, linear.size, 1), np.float32), np.ones((B, linear.size, 1))
    assert linear.state_jacobian(0).dtype == linear.jvp(0, narrow).dtype == np.float32
    assert linear.jvp(0, wide).dtype == linear.vjp(0, wide.transpose(0, 2, 1))[0].dtype == np.float64
    assert linear.jvp(0, narrow, np.ones((B, I, 1))).dtype == np.float64


@pytest.mark.parametrize("name", ["rnn3", "lstm2", "proj3"])
def test_single_points(name: str, rng: np.random.Generator) -> None:
    layer, trace = make(name, rng, dropout=0.0)
    linear = Linearized(trace)
    t, x = 3, trace[0].input[3]
    at = linearize_at(layer, x, linear.states(t))
    running = np.array(LENGTHS) > t
    assert_close("F", step(layer, x, linear.states(t))[running], linear.states(t + 1)[running], rel=REL)
    assert_close("states", at.states(1), step(layer, x, linear.states(t)), rel=REL)
    assert_close("J", at.state_jacobian(0)[running], linear.state_jacobian(t)[running], rel=REL)
    s = linear.states(t)
    assert_close("round trip", flatten_state(unflatten_state(layer, s)), s, rel=0)


def test_a_copy_in_float64_has_the_same_weights(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=2, proj_size=P, batch_first=True, rng=rng)
    copy = float64_copy(lstm)
    assert copy.batch_first
    assert copy.dtype == np.float64
    for name, array in lstm.parameters.items():
        assert_close(name, copy.parameters[name], array.astype(np.float64), rel=0)


def test_a_copy_has_no_dropout_and_so_does_not_warn_of_one_without_effect(rng: np.random.Generator) -> None:
    with pytest.warns(UserWarning, match="no effect with num_layers=1"):
        lstm = srnn.LSTM(I, H, dropout=0.4, rng=rng)
    assert float64_copy(lstm).dropout == 0


@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_a_cell_is_a_layer_of_one_step(kind: str, rng: np.random.Generator) -> None:
    cell: Any = (srnn.LSTMCell if kind == "lstm" else srnn.RNNCell)(I, H, dtype=np.float64, rng=rng)
    layer: Any = (srnn.LSTM if kind == "lstm" else srnn.RNN)(I, H, dtype=np.float64, rng=rng)
    for name, array in cell.parameters.items():
        layer.parameters[f"{name}_l0"][...] = array
    x = rng.standard_normal((B, I))
    got, want = Linearized(cell.forward(x)), Linearized(layer.forward(x[None]))
    assert_close("J", got.state_jacobian(0), want.state_jacobian(0), rel=0)
    assert_close("in x", got.input_jacobian(0), want.input_jacobian(0), rel=0)


def test_dropped_weights_are_those_of_the_trace(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, B, I))
    trace = srnn.WeightDrop(lstm, 0.5, rng=rng).forward(x)
    lstm.load_state_dict(trace.parameters)
    assert_close("J", Linearized(trace).state_jacobian(3), Linearized(lstm.forward(x)).state_jacobian(3), rel=REL)


def test_inf_passes_without_a_warning(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    c_0 = np.zeros((1, B, H))
    c_0[0, 1, 2] = np.inf
    linear = Linearized(lstm.forward(rng.standard_normal((T, B, I)), (np.zeros((1, B, H)), c_0)))
    found = (
        linear.state_jacobian(0),
        linear.input_jacobian(0),
        linear.jvp(0, np.ones((B, 2 * H, 1)), np.ones((B, I, 1))),
        linear.vjp(0, np.ones((B, 1, 2 * H)))[0],
    )
    for array in found:
        assert np.isfinite(array[[0, 2]]).all()
        assert not np.isfinite(array[1]).all()


def test_bad_input_is_named(rng: np.random.Generator) -> None:
    layer, trace = make("lstm", rng)
    linear = Linearized(trace)
    both = srnn.LSTM(I, H, bidirectional=True, dtype=np.float64, rng=rng)
    with pytest.raises(ValueError, match=r"trace: expected one direction; got both"):
        Linearized(both.forward(rng.standard_normal((T, B, I))))
    with pytest.raises(TypeError, match=r"trace: expected what forward"):
        Linearized(trace.output)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"trace: expected what forward of an RNN or LSTM returned; got Zoneout's"):
        Linearized(srnn.Zoneout(layer, 0.2, 0.3, rng=rng).forward(rng.standard_normal((T, B, I))))
    for of_step in (linear.state_jacobian, linear.input_jacobian):
        with pytest.raises(ValueError, match=r"t: expected an integer from 0 to 6; got 7"):
            of_step(T)
    with pytest.raises(ValueError, match=r"ds: expected shape \(3, 10, K\); got \(3, 10\)"):
        linear.jvp(0, np.ones((B, 2 * H)))
    with pytest.raises(ValueError, match=r"g: expected shape \(3, K, 10\); got \(3, 10, 1\)"):
        linear.vjp(0, np.ones((B, 2 * H, 1)))
    with pytest.raises(ValueError, match=r"dx: expected shape \(3, 4, 2\); got \(3, 4, 1\)"):
        linear.jvp(0, np.ones((B, 2 * H, 2)), np.ones((B, I, 1)))
    with pytest.raises(ValueError, match=r"slot: expected an integer from 0 to 7; got -1"):
        linear.states(-1)
    with pytest.raises(ValueError, match=r"s: expected shape \(B, 10\)"):
        unflatten_state(layer, np.ones((B, 9)))
    with pytest.raises(ValueError, match=r"x: expected shape \(3, 4\)"):
        linearize_at(layer, np.ones((B, 5)), np.ones((B, 2 * H)))
