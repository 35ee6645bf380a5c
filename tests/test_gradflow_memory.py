"""Gradient norms by distance, what is read off them, and how effective memory is made of them.

Oracles: torch autograd in float64 (a plain cell loop that retains every state's gradient), and nets whose decay is
known in closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.gradflow import effective_memory, gradient_by_distance, measure_decay
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]


def build(kind: str, *args: int, **options: Any) -> Any:
    if kind == "lstm":
        return srnn.LSTM(*args, **options)
    return srnn.RNN(*args, nonlinearity=kind, **options)


def torch_gradients(
    layer: Any, x: np.ndarray, d_last: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """dL/dx (T, B, I) and per layer dL/dh_t (T, B, P), dL/dc_t (T, B, H) of L = ⟨d_last, last output⟩."""
    w = {name: torch.tensor(value) for name, value in layer.parameters.items()}
    source = torch.tensor(x, requires_grad=True)
    below = list(source)
    states: list[list[torch.Tensor]] = []
    cells: list[list[torch.Tensor]] = []
    for n in range(layer.num_layers):
        h = torch.zeros(x.shape[1], layer.output_size, dtype=torch.float64)
        c = torch.zeros(x.shape[1], layer.hidden_size, dtype=torch.float64)
        hs, cs = [], []
        for x_t in below:
            a = x_t @ w[f"weight_ih_l{n}"].T + w[f"bias_ih_l{n}"] + h @ w[f"weight_hh_l{n}"].T + w[f"bias_hh_l{n}"]
            if layer.cell.kind == "lstm":
                i, f, g, o = a.chunk(4, dim=1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                c.retain_grad()
                cs.append(c)
                h = o.sigmoid() * c.tanh()
                if layer.proj_size:
                    h = h @ w[f"weight_hr_l{n}"].T
            else:
                h = a.tanh() if layer.cell.nonlinearity == "tanh" else a.relu()
            h.retain_grad()
            hs.append(h)
        states.append(hs)
        cells.append(cs)
        below = hs
    (below[-1] * torch.tensor(d_last)).sum().backward()

    def stack(tensors: list[torch.Tensor]) -> np.ndarray:
        # the last step of a layer below the top may reach the loss by no path
        return np.stack([np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in tensors])

    assert source.grad is not None
    return source.grad.numpy(), [stack(hs) for hs in states], [stack(cs) for cs in cells if cs]


def norms(d: np.ndarray) -> np.ndarray:
    """Median over the batch of the norms of d (T, B, ·), last step first."""
    return np.asarray(np.median(np.linalg.norm(d, axis=2), axis=1)[::-1])


LAYERS = [
    ("tanh", {}),
    ("relu", {"num_layers": 2}),
    ("lstm", {}),
    ("lstm", {"num_layers": 3, "batch_first": True}),
    ("lstm", {"num_layers": 2, "proj_size": 4}),
    ("tanh", {"num_layers": 2, "batch_first": True}),
]


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_equal_to_torch_autograd(kind: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    steps, trials, inputs, hidden = 13, 5, 3, 7
    layer = build(kind, inputs, hidden, **options, dtype=np.float64, rng=rng)
    memory = effective_memory(layer, seq_length=steps, num_trials=trials, rng=np.random.default_rng(3))

    again = np.random.default_rng(3)  # the order of draws is documented
    x = again.standard_normal((steps, trials, inputs))
    direction = again.standard_normal((trials, layer.output_size))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)

    summed = np.linalg.norm(torch_gradients(layer, x, np.ones_like(direction))[0], axis=2)
    assert_close("gradient_norms", memory.gradient_norms, summed.mean(axis=1), rel=EXACT)
    dx, dh, dc = torch_gradients(layer, x, direction)
    assert_close("by_distance", memory.by_distance, norms(dx), rel=EXACT)
    assert_close("state_by_distance", memory.state_by_distance, norms(dh[-1]), rel=EXACT)
    assert memory.state_by_distance[0] == pytest.approx(1.0, abs=1e-14)
    if kind == "lstm":
        assert memory.cell_by_distance is not None
        assert_close("cell_by_distance", memory.cell_by_distance, norms(dc[-1]), rel=EXACT)
    else:
        assert memory.cell_by_distance is None


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_on_a_trace_with_lengths_each_sequence_counts_from_its_own_end(
    kind: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    lengths = [4, 11, 1, 7]
    layer = build(kind, 3, 6, **options, dtype=np.float64, rng=rng)
    x = rng.standard_normal((12, 4, 3))  # one step longer than the longest sequence
    d_last = rng.standard_normal((4, layer.output_size))
    trace = layer.forward(x.transpose(1, 0, 2) if layer.batch_first else x, lengths=lengths)
    got = gradient_by_distance(layer, trace, d_last)

    parts = [torch_gradients(layer, x[:n, [b]], d_last[[b]]) for b, n in enumerate(lengths)]

    def median(pick: Any) -> np.ndarray:
        curves = [norms(pick(part)) for part in parts]
        return np.array([np.median([curve[k] for curve in curves if len(curve) > k]) for k in range(11)])

    assert got.count.tolist() == [4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1]
    assert_close("input", got.input, median(lambda part: part[0]), rel=EXACT)
    for n in range(layer.num_layers):
        assert_close(f"h[{n}]", got.h[n], median(lambda part, n=n: part[1][n]), rel=EXACT)
        if got.c is not None:
            assert_close(f"c[{n}]", got.c[n], median(lambda part, n=n: part[2][n]), rel=EXACT)
    assert (got.c is None) == (kind != "lstm")


def test_a_sequence_without_a_batch_is_a_batch_of_one(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 5, num_layers=2, dtype=np.float64, rng=rng)
    x, d_last = rng.standard_normal((9, 3)), rng.standard_normal(5)
    alone = gradient_by_distance(lstm, lstm.forward(x), d_last)
    batch = gradient_by_distance(lstm, lstm.forward(x[:, None]), d_last[None])
    assert_close("input", alone.input, batch.input, rel=0)
    assert_close("h", alone.h, batch.h, rel=0)
    assert alone.c is not None
    assert_close("c", alone.c, batch.c, rel=0)


# What the decay must be, in closed form


def linear_rnn(scale: float, size: int, rng: np.random.Generator) -> srnn.RNN:
    """A relu RNN whose units are all active, so that dh_t/dh_{t-1} = scale · orthogonal, exactly."""
    rnn = srnn.RNN(size, size, nonlinearity="relu", dtype=np.float64, rng=rng)
    srnn.init.orthogonal_(rnn.parameters["weight_hh_l0"], scale, rng)
    srnn.init.orthogonal_(rnn.parameters["weight_ih_l0"], 1.0, rng)
    rnn.parameters["weight_ih_l0"] *= 1e-3
    # a fixed point far above zero: h* = W h* + b with h* = 10
    weight = rnn.parameters["weight_hh_l0"]
    rnn.parameters["bias_ih_l0"][:] = 10.0
    rnn.parameters["bias_hh_l0"][:] = -weight @ np.full(size, 10.0)
    return rnn


@pytest.mark.parametrize("scale", [0.3, 0.9, 0.93, 1.0])
def test_decay_of_a_linear_net_is_known(scale: float, rng: np.random.Generator) -> None:
    rnn = linear_rnn(scale, 6, rng)
    # from h_0 = 0 the first step leaves the fixed point's neighbourhood: start there instead
    trace = rnn.forward(rng.standard_normal((80, 4, 6)), np.full((1, 4, 6), 10.0))
    d_last = rng.standard_normal((4, 6))
    d_last /= np.linalg.norm(d_last, axis=1, keepdims=True)
    got = gradient_by_distance(rnn, trace, d_last)
    powers = scale ** np.arange(80.0)
    assert_close("h", got.h[0], powers, rel=1e-13)
    assert_close("input", got.input, 1e-3 * powers, rel=1e-13)

    decay = measure_decay(got.input)
    assert decay.decay_factor == pytest.approx(scale, rel=1e-12)
    if scale < 1:
        assert decay.decay_time == pytest.approx(-1 / np.log(scale), rel=1e-9)
    assert decay.horizon == {0.3: 3, 0.9: 43, 0.93: 63, 1.0: 79}[scale]  # floor(log 0.01 / log scale), or the window
    assert decay.censored == (scale == 1.0)
    assert not decay.exploding


@pytest.mark.parametrize(("scale", "exploding"), [(1.05, False), (1.07, True)])  # 1.05^79 = 47, 1.07^79 = 209
def test_growth_beyond_one_over_threshold_is_exploding(scale: float, exploding: bool, rng: np.random.Generator) -> None:
    decay = measure_decay(scale ** np.arange(80.0))
    assert decay.exploding == exploding
    assert decay.censored
    assert decay.decay_time == np.inf
    assert decay.decay_factor == pytest.approx(scale)


def test_the_fit_stops_where_digits_are_lost() -> None:
    curve = 0.01 ** np.arange(30.0)
    curve[curve < 1e-31] = 1e-40  # the subnormal end of float32
    assert measure_decay(curve, dtype=np.float32).decay_factor == pytest.approx(0.01)
    assert measure_decay(curve).decay_factor > 0.02


def test_measure_decay_of_odd_curves() -> None:
    nothing = measure_decay(np.zeros(5))
    assert (nothing.horizon, nothing.censored, nothing.exploding, nothing.decay_time) == (0, False, False, 0.0)
    cut = measure_decay(np.array([2.0, 0.0, 0.0]))  # no recurrence at all
    assert (cut.horizon, cut.censored, cut.decay_factor, cut.decay_time) == (0, False, 0.0, 0.0)
    hump = measure_decay(np.array([1.0, 3.0, 0.5, 0.002, 0.03, 0.001]))
    assert (hump.horizon, hump.censored, hump.exploding) == (4, False, False)
    assert measure_decay(np.array([1.0, 0.5]), threshold=0.5).horizon == 1  # at least, not more than
    assert measure_decay(np.array([1e-310, 1.0])).exploding  # a ratio beyond float64 is no warning
    steep = measure_decay(np.array([1e300, 1e299, 1e-290, 1e-291]))  # nor is one that float64 takes for 0
    assert (steep.horizon, steep.exploding) == (1, False)
    assert steep.decay_factor == pytest.approx(0.1)
    for bad in (np.inf, np.nan):
        overflow = measure_decay(np.array([1.0, 4.0, 16.0, bad]))
        assert (overflow.exploding, overflow.censored, overflow.horizon) == (True, True, 3)
        assert overflow.decay_factor == pytest.approx(4.0)


def test_one_sequence_does_not_make_the_curve() -> None:
    # a relu net whose third unit multiplies a gradient by 1.5 and works in one sequence of five only
    rnn = srnn.RNN(3, 3, nonlinearity="relu", dtype=np.float64)
    for weight in rnn.parameters.values():
        weight[:] = 0.0
    rnn.parameters["weight_ih_l0"][:] = np.eye(3)
    rnn.parameters["weight_hh_l0"][:] = np.diag([0.8, 0.7, 1.5])
    x = np.ones((30, 5, 3))
    x[:, 1:, 2] = -1.0
    got = gradient_by_distance(rnn, rnn.forward(x), np.ones((5, 3)))
    usual = np.hypot(0.8 ** np.arange(30.0), 0.7 ** np.arange(30.0))
    assert_close("input", got.input, usual, rel=1e-13)
    assert measure_decay(got.input).horizon < 29
    assert 1.5**29 / 5 > 1e4  # what a mean would end with


# Bad input


def test_both_directions_are_refused(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 4, bidirectional=True, rng=rng)
    with pytest.raises(ValueError, match=r"layer: expected one direction; .* reverse direction has read only the last"):
        effective_memory(lstm)
    trace = lstm.forward(np.zeros((5, 2, 3), np.float32))
    with pytest.raises(ValueError, match="layer: expected one direction"):
        gradient_by_distance(lstm, trace, np.zeros((2, 8), np.float32))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seq_length": 1}, ValueError, "seq_length: expected an integer of at least 2; got 1"),
        ({"num_trials": 0}, ValueError, "num_trials"),
        ({"num_trials": 2.0}, TypeError, "num_trials"),
        ({"threshold": 0.0}, ValueError, "threshold"),
        ({"threshold": 1.0}, ValueError, "threshold: expected a number below 1"),
        ({"rng": 3}, TypeError, "rng"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        effective_memory(srnn.RNN(2, 3), **options)


def test_bad_layers_traces_and_cotangents(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(2, 3, rng=rng)
    trace = rnn.forward(np.zeros((5, 4, 2), np.float32))
    good = np.zeros((4, 3), np.float32)
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM layer"):
        effective_memory(srnn.RNNCell(2, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trace"):
        gradient_by_distance(rnn, trace.output, good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"d_last: expected shape \(4, 3\).*got \(5, 4, 3\)"):
        gradient_by_distance(rnn, trace, np.zeros((5, 4, 3), np.float32))
    with pytest.raises(TypeError, match="d_last: expected dtype float32; got float64"):
        gradient_by_distance(rnn, trace, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="trace"):
        gradient_by_distance(srnn.RNN(2, 3, num_layers=2), trace, good)
    empty = rnn.forward(np.zeros((5, 0, 2), np.float32))
    with pytest.raises(ValueError, match="trace: expected at least one sequence; got a batch of 0"):
        gradient_by_distance(rnn, empty, np.zeros((0, 3), np.float32))
    rnn.parameters["bias_ih_l0"][0] = np.nan
    with pytest.raises(ValueError, match="hidden states that stay finite in float32; got nan or inf at step 0 of 100"):
        effective_memory(rnn)


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        (np.ones(1), "at least two distances"),
        (np.ones((3, 2)), "at least two distances"),
        (np.array([1.0, -1.0]), "none below 0"),
        (np.array([np.inf, 1.0]), "a finite norm above 0 at distance 0"),
        (np.array([0.0, 1.0]), "a finite norm above 0 at distance 0"),
    ],
)
def test_bad_curves(norms: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_decay(norms)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_norms_neither_underflow_nor_overflow(size: float) -> None:
    # the last output is a sum of 0.3 x + 0.4 y: its gradient has the norm 0.5 of d_last, whatever that is
    rnn = srnn.RNN(2, 3, nonlinearity="relu", dtype=np.float64)
    for weight in rnn.parameters.values():
        weight[:] = 0.0
    rnn.parameters["weight_ih_l0"][0] = [0.3, 0.4]
    rnn.parameters["weight_hh_l0"][0, 0] = 0.5
    d_last = np.zeros((5, 3))
    d_last[:, 0] = -size
    for lengths in (None, [4, 4, 2, 3, 4]):
        got = gradient_by_distance(rnn, rnn.forward(np.ones((4, 5, 2)), lengths=lengths), d_last)
        assert_close("input", got.input / size, 0.5 * 0.5 ** np.arange(4.0), rel=1e-15)
        assert_close("h", got.h[0] / size, 0.5 ** np.arange(4.0), rel=1e-15)
