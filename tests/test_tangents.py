"""bptt.tangent and tangent_backward: every array against differences of forward and backward along a direction."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.bptt import tangent, tangent_backward
from scratchrnn.testing import TOLERANCE, assert_close
from tests.problems import Case, Problem, draw

STEP = 1e-6
CASES = [
    Case("lstm"),
    Case("lstm", 2, bidirectional=True, lengths=(4, 7, 1, 7, 3)),
    Case("lstm", 3, proj_size=4, bias=False, batch_first=True, lengths=(4, 7, 1, 7, 3)),
    Case("lstm", 2, bidirectional=True, proj_size=4),
    Case("lstm", 2, bidirectional=True, sizes=(7, 1, 3, 6), batched=False),
    Case("lstm", sizes=(60, 5, 3, 6)),  # several blocks of the sums over time
    Case("tanh", 2, bidirectional=True, batch_first=True),
    Case("tanh", 1, lengths=(4, 7, 1, 7, 3), bias=False),
    Case("relu", 2, bidirectional=True, lengths=(4, 7, 1, 7, 3)),
]

Arrays = dict[str, np.ndarray]


def split(arrays: Arrays) -> tuple[Any, Any, Arrays, Any, Any]:
    """x, state, weights, d_output, d_state."""
    state, d_state = (tuple(arrays[n] for n in names if n in arrays) for names in (("h_0", "c_0"), ("d_h_n", "d_c_n")))
    pair = (state, d_state) if len(state) == 2 else (*state, *d_state)
    weights = {name: a for name, a in arrays.items() if name.startswith(("weight", "bias"))}
    return arrays["x"], pair[0], weights, arrays["d_output"], pair[1]


def named(trace: Any, grads: Any) -> Arrays:
    """Everything in a trace or a tangent, and in gradients or their tangents."""
    found = {"output": trace.output, "dx": grads.input}
    for letter, value in zip("hc", trace.state if isinstance(trace.state, tuple) else (trace.state,), strict=False):
        found[f"{letter}_n"] = value
    for letter, value in zip("hc", grads.state if isinstance(grads.state, tuple) else (grads.state,), strict=False):
        found[f"d{letter}_0"] = value
    for key, part in trace.layers.items():
        found |= {f"{key} h": part.h, f"{key} a": part.a} | ({} if part._c is None else {f"{key} c": part.c})
    for key, part in grads.layers.items():
        found |= {f"{key} dh": part.h, f"{key} da": part.a} | ({} if part._c is None else {f"{key} dc": part.c})
    return found | {f"d{name}": array for name, array in grads.parameters.items()}


def problem(case: Case, rng: np.random.Generator, dropout: float = 0.0) -> tuple[Any, Arrays, Arrays]:
    """A layer, where it stands, and a direction; float64, zero on padding."""
    layer = case.layer(rng, np.float64)
    layer.dropout = dropout
    drawn = [draw(case, rng) for _ in range(2)]

    def everything(p: Problem, weights: Arrays) -> Arrays:
        found = {"x": p.x, "d_output": p.d_output} | weights
        found |= dict(zip(("h_0", "c_0"), p.state, strict=False))
        return found | dict(zip(("d_h_n", "d_c_n"), p.d_state, strict=False))

    at = everything(drawn[0], {name: w.copy() for name, w in layer.parameters.items()})
    u = everything(drawn[1], {name: rng.standard_normal(w.shape) for name, w in layer.parameters.items()})
    return layer, at, u


def run(layer: Any, case: Case, arrays: Arrays) -> tuple[Any, Any]:
    x, state, weights, d_output, d_state = split(arrays)
    for name, w in weights.items():
        layer.parameters[name][...] = w
    trace = layer.forward(x, state, case.lengths, rng=np.random.default_rng(1))
    return trace, layer.backward(trace, d_output, d_state)


def moved(layer: Any, trace: Any, grads: Any, u: Arrays) -> tuple[Any, Any]:
    x_dot, state_dot, weights_dot, d_output_dot, d_state_dot = split(u)
    along = tangent(layer, trace, x_dot, state_dot, weights_dot)
    return along, tangent_backward(layer, trace, grads, along, d_output_dot, d_state_dot)


def differences(layer: Any, case: Case, at: Arrays, u: Arrays) -> Arrays:
    above, below = (named(*run(layer, case, {n: at[n] + step * u[n] for n in at})) for step in (STEP, -STEP))
    return {name: (above[name] - below[name]) / (2 * STEP) for name in above}


def compare(got: Arrays, want: Arrays, rel: float) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert_close(name, got[name], want[name], rel=rel)


@pytest.mark.parametrize(
    ("case", "dropout"), [(c, 0.0) for c in CASES] + [(c, 0.5) for c in CASES if c.num_layers > 1], ids=str
)
def test_every_tangent_is_what_differences_are(
    case: Case, dropout: float, rng: np.random.Generator, each_backend_with_tangents: str
) -> None:
    layer, at, u = problem(case, rng, dropout)
    trace, grads = run(layer, case, at)
    if case.cell == "relu":  # no unit at its kink, where differences prove nothing
        assert min(np.abs(part.a[part.a != 0]).min() for part in trace.layers.values()) > 100 * STEP
    got = named(*moved(layer, trace, grads, u))
    want = differences(layer, case, at, u)
    compare(got, want, TOLERANCE["finite_difference"])


def test_absent_parts_of_a_direction_are_zero(rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    case = CASES[1]
    layer, at, u = problem(case, rng)
    trace, grads = run(layer, case, at)
    zero = {name: np.zeros_like(a) for name, a in u.items()}

    def alone(name: str) -> Arrays:
        given = {name: u[name]}
        state = None if name not in ("h_0", "c_0") else (given.get("h_0"), given.get("c_0"))
        d_state = None if name not in ("d_h_n", "d_c_n") else (given.get("d_h_n"), given.get("d_c_n"))
        weights = {n: a for n, a in given.items() if n in layer.parameters}
        along = tangent(layer, trace, given.get("x"), state, weights)
        return named(along, tangent_backward(layer, trace, grads, along, given.get("d_output"), d_state))

    total = {}
    for name in u:
        one = alone(name)
        compare(one, named(*moved(layer, trace, grads, zero | {name: u[name]})), 0)
        total = {n: a + total.get(n, 0) for n, a in one.items()}
    compare(total, named(*moved(layer, trace, grads, u)), 1e-11)  # linear in u: a sum of 22, each rounded


def test_padding_is_never_read_and_exactly_zero(rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    case = CASES[1]
    layer, at, u = problem(case, rng)
    trace, grads = run(layer, case, at)
    want = named(*moved(layer, trace, grads, u))
    beyond = np.arange(7)[:, None] >= np.array(case.lengths)
    spoilt = {name: a.copy() for name, a in u.items()}
    spoilt["x"][beyond] = spoilt["d_output"][beyond] = np.nan
    got = named(*moved(layer, trace, grads, spoilt))
    compare(got, want, 0)
    for name in ("output", "dx", *(n for n in got if n.endswith((" a", " da")))):
        assert (got[name][beyond] == 0).all(), name


def test_what_is_given_is_neither_changed_nor_kept(rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    case = CASES[2]
    layer, at, u = problem(case, rng)
    trace, grads = run(layer, case, at)
    for w in layer.parameters.values():
        w[...] = np.nan  # the trace has its own
    for array in (*u.values(), *named(trace, grads).values()):
        array.setflags(write=False)
    got = named(*moved(layer, trace, grads, u))
    assert all(np.isfinite(a).all() for a in got.values())
    along = tangent(layer, trace, u["x"], parameters_dot={"weight_ih_l0": u["weight_ih_l0"]})
    for array in (along[0].input, along.parameters["weight_ih_l0"]):
        assert not any(np.shares_memory(array, given) for given in u.values())
    rnn = srnn.RNN(3, 6, rng=rng)
    along = tangent(rnn, rnn.forward(np.ones((7, 5, 3), np.float32)), np.ones((7, 5, 3), np.float32))
    assert not np.shares_memory(along.output, along.h)  # of one layer in one direction, too


def test_a_minimal_trace_has_tangents_and_no_second_ones(
    rng: np.random.Generator, each_backend_with_tangents: str
) -> None:
    lstm = srnn.LSTM(3, 6, 2, rng=rng)
    x, x_dot = rng.standard_normal((2, 7, 5, 3), np.float32)
    minimal = lstm.forward(x, trace="minimal")
    along = tangent(lstm, minimal, x_dot)
    np.testing.assert_array_equal(along.output, tangent(lstm, lstm.forward(x), x_dot).output)
    assert along.output.dtype == np.float32
    with pytest.raises(ValueError, match=r'grads: expected dL/da_t of every step; .* trace="full" keeps it'):
        tangent_backward(lstm, minimal, lstm.backward(minimal, minimal.output), along)


def test_hessian_of_a_loss_is_symmetric_and_its_quadratic_form_a_difference(
    rng: np.random.Generator, each_backend_with_tangents: str
) -> None:
    """L = Σ log cosh(y - target), so L' = tanh and L'' = 1 - tanh²."""
    lstm = srnn.LSTM(3, 6, dtype="float64", rng=rng)
    x, target = rng.standard_normal((7, 5, 3)), rng.standard_normal((7, 5, 6))
    u, v = ({n: rng.standard_normal(w.shape) for n, w in lstm.parameters.items()} for _ in range(2))

    def loss() -> float:
        return float(np.log(np.cosh(lstm(x)[0] - target)).sum())

    trace = lstm.forward(x)
    slope = np.tanh(trace.output - target)
    grads = lstm.backward(trace, slope)

    def hessian_times(u: Arrays) -> Arrays:
        along = tangent(lstm, trace, parameters_dot=u)
        return tangent_backward(lstm, trace, grads, along, (1 - slope**2) * along.output).parameters

    def dot(a: Arrays, b: Arrays) -> float:
        return float(sum((a[name] * b[name]).sum() for name in a))

    assert dot(u, hessian_times(v)) == pytest.approx(dot(v, hessian_times(u)), rel=1e-12)
    start = {name: w.copy() for name, w in lstm.parameters.items()}
    losses = []
    for step in (-1e-4, 0.0, 1e-4):
        for name, w in lstm.parameters.items():
            w[...] = start[name] + step * u[name]
        losses.append(loss())
    assert dot(u, hessian_times(u)) == pytest.approx((losses[0] - 2 * losses[1] + losses[2]) / 1e-8, rel=1e-5)


# Wrong arguments


def test_errors_name_the_argument(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, 2, rng=rng, backend="numpy")
    x = rng.standard_normal((7, 5, 3), np.float32)
    trace = lstm.forward(x)
    grads = lstm.backward(trace, trace.output)
    along = tangent(lstm, trace, x)
    zeros = np.zeros((2, 5, 6), np.float32)
    wrong: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (TypeError, "layer: expected an RNN or LSTM; got", (None, trace)),
        (TypeError, "layer: expected an RNN or LSTM itself", (srnn.Zoneout(lstm, 0.1), trace)),
        (TypeError, "trace: expected what forward of this layer returned", (lstm, x)),
        (ValueError, "trace: expected one of", (srnn.LSTM(3, 6, backend="numpy"), trace)),
        (ValueError, r"x_dot: expected shape \(7, 5, 3\) of the trace's input; got \(5, 7, 3\)",
         (lstm, trace, x.transpose(1, 0, 2))),
        (TypeError, "x_dot: expected dtype float32; got float64", (lstm, trace, x.astype(np.float64))),
        (TypeError, r"state_dot: expected a pair \(h_0_dot, c_0_dot\) for an LSTM", (lstm, trace, x, zeros)),
        (ValueError, r"c_0_dot: expected shape \(2, 5, 6\)", (lstm, trace, x, (None, zeros[:1]))),
        (TypeError, "parameters_dot: expected a dict", (lstm, trace, x, None, [zeros])),
        (ValueError, "parameters_dot: expected names of the layer's parameters, weight_ih_l0, .*; got 'w'",
         (lstm, trace, x, None, {"w": zeros})),
        (ValueError, r"parameters_dot\['bias_ih_l0'\]: expected shape \(24,\) of the weight",
         (lstm, trace, x, None, {"bias_ih_l0": zeros[0, 0]})),
    ]  # fmt: skip
    for kind, message, given in wrong:
        with pytest.raises(kind, match=message):
            tangent(*given)
    other = lstm.forward(x[:4])
    wrong = [
        (TypeError, "grads: expected what layer.backward returned", (trace, along)),
        (TypeError, "tangent: expected what tangent returned", (grads, trace)),
        (ValueError, "grads: expected that of this trace", (lstm.backward(other, other.output), along)),
        (ValueError, "tangent: expected that of this trace", (grads, tangent(lstm, other))),
        (ValueError, r"grads: .*; got no layers", (dataclasses.replace(grads, layers={}), along)),
        (ValueError, r"d_output_dot: expected shape \(7, 5, 6\) of the trace's output", (grads, along, x)),
        (TypeError, r"d_state_dot: expected a pair \(d_h_n_dot, d_c_n_dot\)", (grads, along, None, zeros)),
        (ValueError, r"d_h_n_dot: expected shape \(2, 5, 6\)", (grads, along, None, (zeros[0], None))),
    ]
    for kind, message, given in wrong:
        with pytest.raises(kind, match=message):
            tangent_backward(lstm, trace, *given)


def test_a_backend_without_tangents_is_named(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    from scratchrnn import backends

    rnn = srnn.RNN(3, 6, rng=rng, backend="numpy")
    trace = rnn.forward(rng.standard_normal((7, 5, 3), np.float32))
    monkeypatch.setattr(backends.Backend, "has_tangents", False)
    backends._import_tangents.cache_clear()
    with pytest.raises(NotImplementedError, match="backend 'numpy' has no tangents"):
        tangent(rnn, trace)


def test_a_cell_state_of_an_rnn_is_refused(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(3, 6, rng=rng, backend="numpy")
    along = tangent(rnn, rnn.forward(rng.standard_normal((7, 5, 3), np.float32)))
    assert along.h.shape == (8, 5, 6)
    with pytest.raises(AttributeError, match="a vanilla RNN has no cell state"):
        _ = along.c
