"""Fixed points: nets solved by hand, torch's autograd at what was found, and the published flip-flop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

import scratchrnn as srnn
from scratchrnn import data, losses, models, optim, train
from scratchrnn.dynamics import FixedPoints, connections, fixed_points
from scratchrnn.testing import TOLERANCE, assert_close

I, H, P = 3, 5, 4
REL = TOLERANCE["float64"]
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (srnn.RNN, {}),
    "rnn2": (srnn.RNN, {"num_layers": 2, "batch_first": True}),
    "lstm": (srnn.LSTM, {}),
    "lstm2": (srnn.LSTM, {"num_layers": 2}),
    "proj": (srnn.LSTM, {"proj_size": P, "batch_first": True}),
}


def make(name: str, rng: np.random.Generator, **changes: Any) -> Any:
    kind, options = CASES[name]
    layer = kind(I, H, rng=rng, **({"dtype": np.float64} | options | changes))
    for n in range(layer.num_layers):  # units that hold themselves: several points, saddles among them
        weight = layer.parameters[f"weight_hh_l{n}"]
        rows = slice(2 * H, 3 * H) if layer.cell.has_c else slice(0, H)  # the candidate's, of an LSTM
        weight[rows] += (8 if layer.cell.has_c else 2) * np.eye(H, layer.output_size, dtype=layer.dtype)
    if layer.cell.has_c and layer.proj_size:
        layer.weight_hr_l0 = np.eye(P, H, dtype=layer.dtype)
    return layer


def one_unit(w: float, b: float = 0.0, nonlinearity: str = "tanh") -> srnn.RNN:
    rnn = srnn.RNN(1, 1, nonlinearity=nonlinearity, dtype=np.float64)
    for name, value in {"weight_ih_l0": [[0.0]], "weight_hh_l0": [[w]], "bias_ih_l0": [b], "bias_hh_l0": [0.0]}.items():
        setattr(rnn, name, np.array(value))
    return rnn


# Solved by hand


def test_one_unit_has_three_points() -> None:
    points = fixed_points(one_unit(2.0), np.linspace(-2, 2, 21)[:, None])
    outer = 0.9575040240772687  # tanh(2 s) = s
    assert len(points) == 3
    np.testing.assert_allclose(np.sort(points.states[:, 0]), [-outer, 0, outer], rtol=0, atol=1e-14)
    assert points.stable.tolist() == [True, True, False]
    assert points.unstable_directions.tolist() == [0, 0, 1]
    assert points.states[2, 0] == pytest.approx(0, abs=1e-14)
    slope = 2 * (1 - outer**2)
    np.testing.assert_allclose(points.eigenvalues[:, 0], [slope, slope, 2], rtol=1e-13)
    np.testing.assert_allclose(points.spectral_radius, [slope, slope, 2], rtol=1e-13)
    assert (points.candidates, points.unconverged, points.found.sum()) == (21, 0, 21)


def test_candidates_are_counted_by_the_point_they_came_to() -> None:
    start = np.repeat([[0.0], [0.9], [-0.9]], [5, 2, 3], axis=0)
    points = fixed_points(one_unit(2.0), start)
    counts = {int(np.sign(round(s, 6))): int(n) for s, n in zip(points.states[:, 0], points.found, strict=True)}
    assert counts == {0: 5, 1: 2, -1: 3}


def test_linear_part_of_relu_is_a_linear_system(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(I, H, nonlinearity="relu", dtype=np.float64, rng=rng)
    for weight in rnn.parameters.values():
        weight[...] = np.abs(weight) / 2  # every unit stays above 0
    x = np.array([0.5, 1.0, 2.0])
    points = fixed_points(rnn, rng.uniform(0, 1, (7, H)), x=x)
    drive = rnn.weight_ih_l0 @ x + rnn.bias_ih_l0 + rnn.bias_hh_l0
    want = np.linalg.solve(np.eye(H) - rnn.weight_hh_l0, drive)
    assert_close("states", points.states, want[None], rel=REL)
    assert_close("jacobian", points.jacobians[0], rnn.weight_hh_l0, rel=REL)
    assert points.found.tolist() == [7]
    assert_close("x", points.x, x, rel=0)


def test_every_state_at_rest_is_a_point_of_its_own() -> None:
    points = fixed_points(one_unit(1.0, nonlinearity="relu"), np.arange(1.0, 5.0)[:, None])  # h' = h where h > 0
    np.testing.assert_array_equal(np.sort(points.states[:, 0]), [1, 2, 3, 4])
    assert not points.stable.any()
    assert not points.unstable_directions.any()


def test_candidates_that_come_to_nothing_are_counted() -> None:
    drift = one_unit(1.0, 1.0, "relu")  # h' = h + 1: J - I = 0
    points = fixed_points(drift, np.array([[1.0], [2.0], [np.nan], [np.inf]]))
    assert (len(points), points.candidates, points.unconverged) == (0, 4, 4)
    assert points.states.shape == (0, 1)
    assert points.jacobians.shape == (0, 1, 1)
    assert points.eigenvalues.shape == (0, 1)
    assert points.stable.shape == points.unstable_directions.shape == points.found.shape == (0,)
    empty = connections(drift, points)
    assert empty.paths.shape == (0, 2, 501, 1)
    assert empty.end.shape == (0, 2)


def test_too_few_iterations_are_no_convergence(rng: np.random.Generator) -> None:
    lstm = make("lstm", rng)
    start = rng.standard_normal((20, 2 * H))
    assert fixed_points(lstm, start, max_iterations=1).unconverged > 15
    assert fixed_points(lstm, start).unconverged < 10


def test_slow_point_is_where_speed_is_least() -> None:
    net = one_unit(1.5, 0.23)  # two of three points have met and vanished: b is a little beyond the fold, 0.2068
    ghost = minimize_scalar(lambda s: 0.5 * (np.tanh(1.5 * s + 0.23) - s) ** 2, bounds=(-0.8, -0.3), method="bounded")
    start = np.linspace(-0.8, -0.4, 9)[:, None]
    points = fixed_points(net, start, slow=1e-2)
    np.testing.assert_allclose(points.slow_states, [[ghost.x]], atol=1e-5)
    np.testing.assert_allclose(points.slow_speed, [ghost.fun], rtol=1e-6)
    assert points.unconverged >= 1
    without = fixed_points(net, start)
    assert without.slow_states.shape == (0, 1)
    assert without.unconverged == points.unconverged
    assert fixed_points(net, start, slow=ghost.fun / 2).slow_states.shape == (0, 1)


# Against torch


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_and_eigenvalues_are_torchs(name: str, dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    layer = make(name, rng, dtype=dtype)
    module = srnn.interop.torch.to_module(layer).double()
    x = rng.uniform(-0.2, 0.2, I).astype(dtype)
    state = tuple(rng.uniform(-1, 1, (len(a), 20, a.shape[1])).astype(dtype) for a in states_of(layer))
    inputs = np.broadcast_to(x, (20, 8, I) if layer.batch_first else (8, 20, I))
    points = fixed_points(layer, layer.forward(inputs, state if len(state) == 2 else state[0]), x=x)
    assert points.stable.sum() > 1
    assert not points.stable.all()
    for array in (points.states, points.speed, points.jacobians, points.x):
        assert array.dtype == np.float64
    assert points.eigenvalues.dtype == np.complex128

    def step(s: torch.Tensor) -> torch.Tensor:
        parts, at = [], 0
        for n in range(layer.num_layers):
            for array in states_of(layer):
                parts.append((n, s[at : at + array.shape[1]]))
                at += array.shape[1]
        per_layer = len(states_of(layer))
        state = tuple(torch.stack([part for _, part in parts[k::per_layer]]) for k in range(per_layer))
        _, after = module(torch.from_numpy(x).double()[None], state if per_layer == 2 else state[0])
        after = after if isinstance(after, tuple) else (after,)
        return torch.cat([array[n] for n in range(layer.num_layers) for array in after])

    for k, s in enumerate(points.states):
        at = torch.from_numpy(s)
        assert_close("F(s)", step(at).detach().numpy(), s, rel=1e-9)  # q <= 1e-20, and torch's own rounding
        jacobian = torch.autograd.functional.jacobian(step, at).numpy()
        assert_close("jacobian", points.jacobians[k], jacobian, rel=REL)
        want = np.linalg.eigvals(jacobian)
        assert_close("radius", points.spectral_radius[k], np.abs(want).max(), rel=1e-8)
        assert points.unstable_directions[k] == (np.abs(want) > 1).sum()
        assert_close("trace", points.eigenvalues[k].sum().real, np.trace(jacobian), rel=1e-9)
        assert (np.diff(np.abs(points.eigenvalues[k])) <= 1e-12).all()
    assert (np.diff(points.unstable_directions) >= 0).all()
    for a, b in itertools.combinations(points.states, 2):
        assert np.abs(a - b).max() > 1e-4
    assert points.found.sum() + points.unconverged == points.candidates == 160


def states_of(layer: Any) -> list[np.ndarray]:
    """h_0 (L, P), and c_0 (L, H) of an LSTM."""
    h = np.zeros((layer.num_layers, layer.output_size))
    return [h, np.zeros((layer.num_layers, layer.hidden_size))] if layer.cell.has_c else [h]


# Candidates of a trace


def test_candidates_of_a_trace_are_its_states_without_padding(rng: np.random.Generator) -> None:
    layer = make("lstm2", rng)
    lengths = [4, 6]
    trace = layer.forward(rng.standard_normal((6, 2, I)), lengths=lengths)
    own = [
        np.concatenate([trace[n].h[t + 1, b] if part == "h" else trace[n].c[t + 1, b] for n in (0, 1) for part in "hc"])
        for t in range(6)
        for b in range(2)
        if t < lengths[b]
    ]
    by_trace, by_array = fixed_points(layer, trace), fixed_points(layer, np.array(own))
    assert by_trace.candidates == 10
    assert_close("states", by_trace.states, by_array.states, rel=0)
    drawn = [fixed_points(layer, trace, count=4, rng=np.random.default_rng(n)) for n in (0, 0, 1)]
    assert [points.candidates for points in drawn] == [4, 4, 4]
    assert_close("states", drawn[0].states, drawn[1].states, rel=0)


def test_noise_is_drawn_from_the_generator(rng: np.random.Generator) -> None:
    net, start = one_unit(2.0), np.zeros((40, 1))
    assert len(fixed_points(net, start)) == 1  # 0, where it stays
    noisy = [fixed_points(net, start, noise=1.0, rng=np.random.default_rng(n)) for n in (3, 3)]
    assert len(noisy[0]) == 3
    assert_close("states", noisy[0].states, noisy[1].states, rel=0)


def test_nothing_is_changed(rng: np.random.Generator) -> None:
    layer = make("lstm2", rng, dropout=0.5)
    start = rng.standard_normal((6, 4 * H))
    before, generator = layer.state_dict(), layer.rng.bit_generator.state
    kept = start.copy()
    points = fixed_points(layer, start)
    connections(layer, points)
    np.testing.assert_array_equal(start, kept)
    for name, array in layer.parameters.items():
        np.testing.assert_array_equal(array, before[name])
    assert layer.rng.bit_generator.state == generator


# The flip-flop


def flip_flop_net(seed: int) -> tuple[models.EveryStep, float, FixedPoints]:
    """An LSTM of 16 units that has learned three bits, its last loss, and its points."""
    rng = np.random.default_rng(seed)
    model = models.EveryStep(srnn.LSTM(3, 16, rng=rng), 3, rng=rng)
    task = train.Sampled(model, lambda r: data.flip_flop(32, 32, r, probability=0.25), losses.mse_loss, rng=rng)
    trainer = train.Trainer(task, optim.Adam(model.parameters, lr=0.01), steps=600, progress=False)
    loss = [step.loss for step in trainer][-1]
    inputs, _ = data.flip_flop(64, 64, rng, probability=0.25)
    return model, loss, fixed_points(model.rnn, model.rnn.forward(inputs), noise=0.5, rng=rng)


def patterns(model: models.EveryStep, points: FixedPoints) -> np.ndarray:
    """What the readout says at each point: (K, 3)."""
    return points.states[:, points.output] @ model.decoder.weight.T.astype(np.float64) + model.decoder.bias


def assert_a_cube(model: models.EveryStep, points: FixedPoints) -> None:
    said = patterns(model, points)
    stable = {tuple(np.sign(row)) for row in said[points.stable]}
    assert points.stable.sum() == 8
    assert stable == set(itertools.product((-1, 1), repeat=3))
    np.testing.assert_allclose(np.abs(said[points.stable]), 1, atol=0.1)


@pytest.fixture(scope="module")
def flip_flop() -> tuple[models.EveryStep, float, FixedPoints]:
    return flip_flop_net(0)


def test_flip_flop_has_a_stable_point_for_each_pattern(flip_flop: Any) -> None:
    model, loss, points = flip_flop
    assert loss < 1e-3 < data.flip_flop_baseline(32, 0.25) / 500
    assert_a_cube(model, points)
    assert points.unconverged == 0
    counts = np.bincount(points.unstable_directions).tolist()
    assert counts[1] == 12  # one for each edge of the cube,
    assert 1 <= counts[2] <= 6  # at most one for each face,
    assert sum(counts[3:]) <= 1  # and one for its inside


def test_connections_are_the_edges_of_the_cube(flip_flop: Any) -> None:
    model, _, points = flip_flop
    found = connections(model.rnn, points)
    said = np.sign(patterns(model, points))
    assert found.paths.shape == (12, 2, 501, 32)
    np.testing.assert_array_equal(found.saddle, np.flatnonzero(points.unstable_directions == 1))
    for saddle, end, paths in zip(found.saddle, found.end, found.paths, strict=True):
        assert points.stable[end].all()
        assert (said[end[0]] != said[end[1]]).sum() == 1  # one bit apart
        for side in (0, 1):
            assert np.linalg.norm(paths[side, 0] - points.states[saddle]) == pytest.approx(1e-3, rel=1e-9)
            np.testing.assert_allclose(paths[side, -1], points.states[end[side]], atol=1e-3)
        np.testing.assert_allclose(paths[:, 0].mean(axis=0), points.states[saddle], atol=1e-12)
    edges = {tuple(sorted(end)) for end in found.end.tolist()}
    assert len(edges) == 12
    short = connections(model.rnn, points, steps=1)
    assert (short.end == -1).all()


def test_a_path_is_the_nets_own(flip_flop: Any) -> None:
    model, _, points = flip_flop
    found = connections(model.rnn, points, steps=5)
    module = srnn.interop.torch.to_module(model.rnn).double()
    start = torch.from_numpy(found.paths[3, 1, 0])
    output, _ = module(torch.zeros(5, 3, dtype=torch.float64), (start[None, :16], start[None, 16:]))
    assert_close("h", found.paths[3, 1, 1:, :16], output.detach().numpy(), rel=REL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_flip_flop_over_seeds(seed: int) -> None:
    model, _, points = flip_flop_net(seed)
    assert_a_cube(model, points)
    assert np.count_nonzero(points.unstable_directions == 1) == 12


# Errors

NET = srnn.LSTM(I, H, rng=np.random.default_rng(0))
START = np.zeros((2, 2 * H), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fixed_points(srnn.Linear(2, 2), START), TypeError, "layer: expected an RNN or LSTM; got Linear"),  # type: ignore[arg-type]
        (lambda: fixed_points(srnn.RNN(I, H, bidirectional=True), START), ValueError, "one direction"),
        (lambda: fixed_points(NET, [[0.0]]), TypeError, "candidates: expected an array (N, S) or a trace; got list"),  # type: ignore[arg-type]
        (lambda: fixed_points(NET, START[:, 1:]), ValueError, "candidates: expected shape (N, 10), states of all"),
        (lambda: fixed_points(NET, START[0]), ValueError, "candidates: expected shape (N, 10)"),
        (lambda: fixed_points(NET, START.astype(int)), TypeError, "candidates: expected dtype float32 or float64"),
        (
            lambda: fixed_points(NET, srnn.RNN(I, H).forward(np.zeros((2, 1, I), np.float32))),
            ValueError,
            "candidates: expected a trace of LSTM",
        ),
        (lambda: fixed_points(NET, START, x=np.zeros((1, I))), ValueError, "x: expected shape (3,) for one constant"),
        (lambda: fixed_points(NET, START, count=0), ValueError, "count: expected an integer of at least 1"),
        (lambda: fixed_points(NET, START, noise=-1.0), ValueError, "noise: expected a finite number of at least 0"),
        (lambda: fixed_points(NET, START, tolerance=0.0), ValueError, "tolerance: expected a finite number above 0"),
        (lambda: fixed_points(NET, START, same=0.0), ValueError, "same: expected a finite number above 0"),
        (lambda: fixed_points(NET, START, slow=1e-21), ValueError, "slow: expected a finite number above 1e-20"),
        (lambda: fixed_points(NET, START, max_iterations=0), ValueError, "max_iterations"),
        (lambda: fixed_points(NET, START, rng=0), TypeError, "rng"),  # type: ignore[arg-type]
        (lambda: connections(NET, START), TypeError, "points: expected what fixed_points() returned"),  # type: ignore[arg-type]
        (lambda: connections(srnn.RNN(I, H), fixed_points(NET, START)), ValueError, "points: expected those of RNN"),
    ],
)
def test_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
