"""What reads traces, and what cuts time into windows, take arrays of others as layers do: the same numbers, no copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.trace import Gradients
from tests.test_array_protocols import GIVE

I, H, B, T = 3, 4, 2, 12
Give = Callable[[np.ndarray], Any]

RNG = np.random.default_rng(0)
LSTM = srnn.LSTM(I, H, dtype=np.float64, rng=RNG)
RNN = srnn.RNN(I, H, dtype=np.float64, rng=RNG)
X, D = RNG.standard_normal((T, B, I)), RNG.standard_normal((T, B, H))
RESET = np.arange(T)[:, None] % np.array([5, 7]) == 0
TRACE = LSTM.forward(X)
S = RNG.standard_normal((B, 2 * H))
JX = RNG.standard_normal((B, I, 5))
JS = RNG.standard_normal((B, 2 * H, 5))


def windows(give: Give) -> list[Any]:
    made = srnn.bptt.windows(LSTM, give(X), give(D), k1=4, k2=6, reset=give(RESET), detach_h=give(~RESET))
    return [(w.trace.output, w.gradients) for w in made]


def windows_of_functions(give: Give) -> list[Any]:
    made = srnn.bptt.windows(
        LSTM, lambda start, stop: give(X[start:stop].copy()), lambda output, first: give(output), k1=4, k2=6, steps=T
    )
    return [(w.trace.output, w.gradients) for w in made]


def stream(give: Give) -> list[Any]:
    carried = srnn.bptt.Stream(LSTM)
    first = carried(give(X), give(RESET))
    trace = carried.forward(give(X))
    return [first, trace.output, carried.backward(trace, give(D))]


CALLS: dict[str, Callable[[Give], Any]] = {
    "windows": windows,
    "windows of functions": windows_of_functions,
    "Stream": stream,
    "truncated": lambda give: srnn.bptt.truncated(LSTM, give(X), give(D), k1=3, k2=6),
    "gradient_by_distance": lambda give: srnn.gradflow.gradient_by_distance(LSTM, TRACE, give(D[0])).input,
    "measure_decay": lambda give: srnn.gradflow.measure_decay(give(0.5 ** np.arange(20.0))).decay_time,
    "connectivity": lambda give: srnn.gradflow.connectivity(TRACE, readout=give(D[0][:, :H])).norm,
    "itemized": lambda give: srnn.gradflow.itemized(LSTM, TRACE, give(D)).h,
    "linearize_at": lambda give: srnn.gradflow.linearize_at(LSTM, give(X[0]), give(S)).state_jacobian(0),
    "jvp": lambda give: srnn.gradflow.Linearized(TRACE).jvp(3, give(JS), give(JX)),
    "vjp": lambda give: srnn.gradflow.Linearized(TRACE).vjp(3, give(JS.transpose(0, 2, 1))),
    "lyapunov_spectrum": lambda give: (
        srnn.gradflow.lyapunov_spectrum(RNN, give(X), warmup=2, warmup_q=2, rng=np.random.default_rng(1)).exponents
    ),
    "project": lambda give: srnn.dynamics.project(give(D[0] + D[1])).points,
    "transform": lambda give: srnn.dynamics.project(TRACE).transform(give(D[0])),
    "autocorrelation": lambda give: srnn.dynamics.autocorrelation(give(D), max_lag=4).by_lag,
    "fixed_points": lambda give: srnn.dynamics.fixed_points(RNN, give(D[0]), x=give(X[0, 0])).states,
    "position": lambda give: srnn.dynamics.position(RNN, give(X[0, 0]), state=give(D[0][:1]), run=60).states,
    "TaskProbe": lambda give: srnn.gradflow.TaskProbe(give(X), X[0]).inputs,
}


def arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from arrays(part)
    elif isinstance(value, Gradients):
        yield from arrays([value.input, value.state, list(value.parameters.values())])
    elif hasattr(value, "gradients"):
        yield from arrays(value.gradients)
    elif value is not None:
        yield np.asarray(value)


@pytest.mark.parametrize("how", GIVE)
@pytest.mark.parametrize("name", CALLS)
def test_the_same_numbers(name: str, how: str) -> None:
    want, got = list(arrays(CALLS[name](lambda a: a))), list(arrays(CALLS[name](GIVE[how])))
    assert want
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_windows_read_what_lies_there_when_they_are_reached() -> None:
    x = torch.from_numpy(X.copy())
    made = srnn.bptt.windows(LSTM, x, k1=6, k2=6)  # type: ignore[arg-type]
    next(made)
    x.zero_()
    assert not next(made).trace.trace[0].input.any()


def test_a_stream_says_which_rows_it_carries() -> None:
    carried = srnn.bptt.Stream(LSTM)
    carried(torch.from_numpy(X))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x: expected a batch of 2, whose state is carried; got a batch of 1"):
        carried(torch.from_numpy(X[:, :1]))  # type: ignore[arg-type]


def test_a_tensor_with_a_graph_behind_it_is_refused_by_name() -> None:
    readout, d = torch.ones(5, H, requires_grad=True), torch.ones(T, B, H, requires_grad=True)
    with pytest.raises(TypeError, match=r"requires grad: give readout\.detach\(\)"):
        srnn.gradflow.connectivity(TRACE, readout=readout)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"requires grad: give d_output\.detach\(\)"):
        next(srnn.bptt.windows(LSTM, X, d, k1=4, k2=4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"d_output: expected dtype float64; got float32"):
        next(srnn.bptt.windows(LSTM, X, torch.ones(T, B, H), k1=4, k2=4))  # type: ignore[arg-type]
