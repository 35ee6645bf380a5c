"""Lyapunov spectra: against torch's Jacobians, eigenvalues, determinants, and published figures of random nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import scratchrnn as srnn
from scratchrnn._typing import FloatArray as Array
from scratchrnn.gradflow import LyapunovSpectrum, lyapunov_spectrum, mean_field_exponent
from scratchrnn.gradflow.linearize import unflatten_state
from scratchrnn.testing import TOLERANCE, assert_close


def random_net(g: float, units: int, rng: np.random.Generator) -> srnn.RNN:
    """h' = tanh(W h), W from N(0, g²/N): with h = tanh(x) the same orbits as x' = W tanh(x)."""
    rnn = srnn.RNN(1, units, bias=False, dtype=np.float64, rng=rng)
    rnn.weight_hh_l0 = rng.standard_normal((units, units)) * g / np.sqrt(units)
    return rnn


def loud(layer: Any, by: float = 2.0) -> Any:
    for weight in layer.parameters.values():
        weight *= by
    return layer


# Against torch


def torch_step(layer: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """F(x (I,), s (S,)) by torch's own cells."""
    module = srnn.interop.torch.to_module(layer)

    def step(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        sizes = [layer.output_size, layer.hidden_size] if layer.cell.has_c else [layer.output_size]
        parts = torch.split(s, sizes * layer.num_layers)
        states = [torch.stack(parts[n :: len(sizes)]) for n in range(len(sizes))]
        out = module(x[None], tuple(states) if len(states) == 2 else states[0])[1]
        after = out if isinstance(out, tuple) else (out,)
        return torch.cat([array[n] for n in range(layer.num_layers) for array in after])

    return step


def reference(layer: Any, x: Array, rng: np.random.Generator, warmup: int, warmup_q: int, count: int) -> Array:
    """log R_ii (N, B, K) of Jacobians by autograd and NumPy's QR, in plain loops."""
    step = torch_step(layer)
    steps, batch, _ = x.shape
    size = sum(w.shape[1] for name, w in layer.parameters.items() if name.startswith("weight_hh"))
    size += layer.num_layers * layer.hidden_size if layer.cell.has_c else 0
    start = rng.uniform(-1, 1, (batch, size))
    q_0 = np.linalg.qr(rng.standard_normal((size, count)))[0]
    growth = np.empty((steps - warmup - warmup_q, batch, count))
    for b in range(batch):
        s, q = torch.tensor(start[b]), q_0
        for t in range(steps):
            u = torch.tensor(x[t, b])
            if t >= warmup:
                jacobian = torch.autograd.functional.jacobian(lambda s, u=u: step(u, s), s).numpy()
                q, r = np.linalg.qr(jacobian @ q)
                if t >= warmup + warmup_q:
                    growth[t - warmup - warmup_q, b] = np.log(np.abs(np.diag(r)))
            s = step(u, s).detach()
    return growth


LAYERS = {
    "rnn": lambda rng: srnn.RNN(3, 5, dtype=np.float64, rng=rng),
    "rnn stack": lambda rng: srnn.RNN(3, 4, 2, dtype=np.float64, rng=rng),
    "lstm": lambda rng: srnn.LSTM(3, 4, dtype=np.float64, rng=rng),
    "lstm stack": lambda rng: srnn.LSTM(3, 3, 2, dtype=np.float64, rng=rng),
    "lstm projected": lambda rng: srnn.LSTM(3, 4, 2, proj_size=2, dtype=np.float64, rng=rng),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("few", [False, True])
def test_growth_is_that_of_autograd_jacobians(name: str, few: bool, rng: np.random.Generator) -> None:
    layer = loud(LAYERS[name](rng))
    x = rng.standard_normal((30, 2, 3))
    count = 2 if few else max(s.stop for s in srnn.gradflow.Linearized(layer.forward(x)).slices.values())
    seed = int(rng.integers(2**31))
    want = reference(layer, x, np.random.default_rng(seed), warmup=5, warmup_q=4, count=count)
    got = lyapunov_spectrum(layer, x, warmup=5, warmup_q=4, exponents=count, rng=np.random.default_rng(seed))
    assert (got.steps, got.growth.shape) == (21, (21, 2, count))
    order = np.argsort(-want.mean(axis=(0, 1)))
    assert_close("growth", got.growth, want[:, :, order], rel=1e-10)
    assert_close("exponents", got.exponents, want.mean(axis=(0, 1))[order], rel=1e-10)
    assert_close("by_trajectory", got.by_trajectory, want.mean(axis=0)[:, order], rel=1e-10)
    assert_close("running", got.running[6], want[:7].mean(axis=(0, 1))[order], rel=1e-10)


def test_sum_of_exponents_is_the_mean_log_determinant(rng: np.random.Generator) -> None:
    lstm = loud(srnn.LSTM(3, 6, dtype=np.float64, rng=rng))
    x = rng.standard_normal((90, 1, 3))
    seed = 7
    got = lyapunov_spectrum(lstm, x, warmup=10, warmup_q=20, rng=np.random.default_rng(seed))
    start = unflatten_state(lstm, np.random.default_rng(seed).uniform(-1, 1, (1, 12)))
    linear = srnn.gradflow.Linearized(lstm.forward(x, start))
    volume = [np.linalg.slogdet(linear.state_jacobian(t))[1] for t in range(30, 90)]
    assert_close("sum", got.exponents.sum(), np.mean(volume), rel=TOLERANCE["float64"])


def test_factoring_less_often_gives_the_same(rng: np.random.Generator) -> None:
    rnn = loud(srnn.RNN(2, 6, dtype=np.float64, rng=rng))
    x = rng.standard_normal((83, 2, 2))
    each, third = (
        lyapunov_spectrum(rnn, x, steps=60, warmup=10, warmup_q=11, qr_every=n, rng=np.random.default_rng(3))
        for n in (1, 3)
    )
    assert third.growth.shape == (20, 2, 6)
    assert_close("growth", third.growth, each.growth.reshape(20, 3, 2, 6).mean(axis=1), rel=1e-10)


def test_layouts_and_dtypes(rng: np.random.Generator, each_backend: str) -> None:
    lstm = loud(srnn.LSTM(2, 3, num_layers=2, dropout=0.5, rng=rng))
    swapped = srnn.LSTM(2, 3, num_layers=2, dropout=0.5, batch_first=True)
    swapped.load_state_dict(lstm.state_dict())
    before = lstm.state_dict()
    x = rng.standard_normal((70, 2, 2)).astype(np.float32)

    def measure(layer: Any, x: Array) -> LyapunovSpectrum:
        return lyapunov_spectrum(layer, x, warmup=5, warmup_q=0, rng=np.random.default_rng(1))

    got = measure(lstm, x)
    assert got.exponents.dtype == got.growth.dtype == np.float64
    assert_close("batch_first", measure(swapped, x.transpose(1, 0, 2).copy()).growth, got.growth, rel=0)
    alone = lyapunov_spectrum(lstm, x[:, 0], warmup=5, warmup_q=0, exponents=1, rng=np.random.default_rng(1))
    assert alone.growth.shape == (65, 1, 1)
    for name, weight in before.items():
        assert_close(name, lstm.parameters[name], weight, rel=0)


# Against theory and published figures


def test_trivial_fixed_point_has_the_eigenvalues(rng: np.random.Generator) -> None:
    rnn = random_net(0.7, 24, rng)
    got = lyapunov_spectrum(rnn, steps=1500, rng=rng)
    want = np.sort(np.log(np.abs(np.linalg.eigvals(rnn.weight_hh_l0))))[::-1]
    np.testing.assert_allclose(got.exponents, want, atol=1e-2)
    assert (got.entropy, got.kaplan_yorke_dimension) == (0.0, 0.0)


def test_chaotic_net_has_the_published_spectrum() -> None:
    # Clark, Lyapunov spectrum of random neural networks, data of its figures at N = 4096, g = 3, δ = 1
    rng = np.random.default_rng(0)
    got = lyapunov_spectrum(random_net(3, 256, rng), steps=250, warmup_q=50, rng=rng)
    assert got.exponents.mean() == pytest.approx(-2.2739, abs=0.02)
    assert got.entropy / 256 == pytest.approx(0.02511, abs=0.002)
    assert got.kaplan_yorke_dimension / 256 == pytest.approx(0.2872, abs=0.01)
    assert (np.diff(got.exponents) <= 0).all()


def test_largest_exponent_approaches_the_mean_field() -> None:
    # ten nets of 256 units: 0.3004, scattered by 0.0013; four of 1024: 0.3073, by 0.0009; Clark, 4096 units: 0.30958
    shortfall = []
    for units, steps in ((256, 3000), (1024, 1200)):
        rng = np.random.default_rng(2)
        got = lyapunov_spectrum(random_net(3, units, rng), steps=steps, exponents=1, rng=rng)
        assert got.exponents[0] == pytest.approx(0.31, abs=0.01)
        assert got.standard_error[0] < 0.003
        shortfall.append(mean_field_exponent(3) - got.exponents[0])
    assert shortfall[0] > shortfall[1] > 0


@pytest.mark.parametrize(
    ("g", "want"), [(1.2, 0.01648), (1.5, 0.06522), (2, 0.15472), (3, 0.31025), (5, 0.5324), (0.5, -0.69315)]
)
def test_mean_field_exponent(g: float, want: float) -> None:
    assert mean_field_exponent(g) == pytest.approx(want, abs=5e-5)


def test_mean_field_exponent_by_other_quadrature() -> None:
    """Adaptive quadrature with q as published, 6.3054 for g = 3; and λ_1 grows from g = 1 on without a jump."""
    q = 6.3054

    def mean(f: Callable[[float], float]) -> float:
        return quad(lambda z: f(np.sqrt(q) * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -12, 12, points=[0])[0]

    assert 9 * mean(lambda y: np.tanh(y) ** 2) == pytest.approx(q, abs=1e-4)
    assert mean_field_exponent(3) == pytest.approx(np.log(9 * mean(lambda y: np.cosh(y) ** -4.0)) / 2, abs=1e-5)
    values = [mean_field_exponent(g) for g in (0.99, 1.0, 1.0001, 1.01, 1.1, 4, 20, 60)]
    assert (np.diff(values) > 0).all()
    assert abs(values[2]) < 1e-3


def test_standard_error_is_the_scatter_of_repetitions(rng: np.random.Generator) -> None:
    rnn = random_net(3, 40, rng)
    runs = [lyapunov_spectrum(rnn, steps=400, exponents=1, rng=rng) for _ in range(30)]
    scatter = np.std([run.exponents[0] for run in runs])
    stated = np.mean([run.standard_error[0] for run in runs])
    assert stated == pytest.approx(scatter, rel=0.5)
    many = lyapunov_spectrum(rnn, steps=400, exponents=1, trajectories=9, rng=rng)
    assert many.by_trajectory.shape == (9, 1)
    assert many.standard_error[0] == pytest.approx(stated / 3, rel=0.6)
    assert np.isnan(lyapunov_spectrum(rnn, steps=19, exponents=2, rng=rng).standard_error).all()


# Directions that die


def test_dead_units_give_minus_infinity(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(1, 4, nonlinearity="relu", dtype=np.float64, rng=rng)
    rnn.weight_hh_l0 = np.array([[0.5, 0.1, 0, 0.2], [0.2, 0.6, 0.1, 0], [0, 0, 0.3, 0], [0.1, 0, 0, 0.1]])
    rnn.bias_ih_l0 = np.array([1.0, 1.0, -9.0, 1.0])  # unit 2 never fires
    rnn.bias_hh_l0 = np.zeros(4)
    got = lyapunov_spectrum(rnn, steps=400, rng=rng)
    alive = [0, 1, 3]
    want = np.sort(np.log(np.abs(np.linalg.eigvals(rnn.weight_hh_l0[np.ix_(alive, alive)]))))[::-1]
    np.testing.assert_allclose(got.exponents[:3], want, atol=1e-2)
    assert got.exponents[3] == -np.inf
    assert np.isnan(got.standard_error[3])
    assert np.isfinite(got.standard_error[:3]).all()
    few = lyapunov_spectrum(rnn, steps=400, exponents=2, rng=rng)
    np.testing.assert_allclose(few.exponents, want[:2], atol=1e-2)


def test_units_that_die_in_turn_leave_what_passes_all_steps(rng: np.random.Generator) -> None:
    """Input turns unit 0 off at even steps and unit 1 at odd ones: only what goes round through unit 2 is left."""
    rnn = srnn.RNN(1, 3, nonlinearity="relu", bias=False, dtype=np.float64, rng=rng)
    rnn.weight_hh_l0 = np.array([[0.5, 0.0, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.7]])
    rnn.weight_ih_l0 = np.array([[10.0], [-10.0], [0.0]])
    x = (-1.0) ** np.arange(60).reshape(60, 1, 1)
    rnn.weight_hh_l0[2, 0] = rnn.weight_hh_l0[2, 1] = 0.1
    got = lyapunov_spectrum(rnn, x, warmup=0, warmup_q=6, rng=rng)
    assert got.exponents[0] == pytest.approx(np.log(0.7), abs=1e-2)
    assert (got.exponents[1:] == -np.inf).all()


def test_all_dead(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(1, 3, nonlinearity="relu", bias=False, rng=rng)
    rnn.weight_hh_l0 = -np.ones((3, 3), np.float32)
    got = lyapunov_spectrum(rnn, steps=30, rng=rng)
    assert (got.exponents == -np.inf).all()
    assert (got.entropy, got.kaplan_yorke_dimension) == (0.0, 0.0)


def test_saturated_units_are_not_taken_for_dead() -> None:
    """At g = 5 a step shrinks some direction by e^-36, eps; the volume is known from det J = det W · Π (1 - h²)."""
    rng = np.random.default_rng(1)
    rnn = random_net(5, 100, rng)
    got = lyapunov_spectrum(rnn, steps=120, warmup=0, warmup_q=30, rng=np.random.default_rng(2))
    h = rnn.forward(np.zeros((150, 1, 1)), np.random.default_rng(2).uniform(-1, 1, (1, 1, 100))).h[31:, 0]
    volume = np.log1p(-(h**2)).sum(axis=1).mean() + np.linalg.slogdet(rnn.weight_hh_l0)[1]
    assert got.growth.min() < -30
    assert_close("sum", got.exponents.sum(), volume, rel=TOLERANCE["float64"])


def test_a_singular_weight_matrix_kills_one_direction(rng: np.random.Generator) -> None:
    rnn = random_net(0.9, 12, rng)
    rnn.weight_hh_l0[3] = rnn.weight_hh_l0[5] - 0.5 * rnn.weight_hh_l0[0]
    got = lyapunov_spectrum(rnn, steps=100, rng=rng)
    assert (got.exponents == -np.inf).tolist() == [False] * 11 + [True]


# What follows from the exponents


def of(exponents: list[float], size: int) -> LyapunovSpectrum:
    values = np.array(exponents)
    return LyapunovSpectrum(values, values, values[None, None], size, 1, 0, 0, 1)


@pytest.mark.parametrize(
    ("exponents", "size", "dimension", "entropy"),
    [
        ([0.603, 0.0, -2.34], 3, 2 + 0.603 / 2.34, 0.603),  # Lorenz as a flow: 2.26
        ([0.41922, -1.62319], 2, 1.25827, 0.41922),  # the Hénon map, Sprott 2003
        ([-0.1, -0.2], 2, 0.0, 0.0),
        ([0.0, -1.0], 2, 1.0, 0.0),
        ([0.3, -0.3, -1.0], 3, 2.0, 0.3),
        ([0.3, 0.1], 2, 2.0, 0.4),
        ([0.3, 0.1], 3, np.nan, np.nan),
        ([0.3, -0.1], 3, np.nan, 0.3),
        ([0.3, -0.4], 9, 1.75, 0.3),
        ([0.3, -np.inf], 2, 1.0, 0.3),
        ([0.5], 1, 1.0, 0.5),
    ],
)
def test_dimension_and_entropy(exponents: list[float], size: int, dimension: float, entropy: float) -> None:
    got = of(exponents, size)
    np.testing.assert_allclose([got.kaplan_yorke_dimension, got.entropy], [dimension, entropy], rtol=1e-5)


# Bad input

LSTM = srnn.LSTM(2, 3, dtype=np.float64)
X = np.zeros((20, 4, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": srnn.LSTM(2, 3, bidirectional=True)}, ValueError, "layer: expected one direction"),
        ({"layer": srnn.Linear(2, 3)}, TypeError, "layer: expected an RNN or LSTM"),
        ({"x": X.astype(np.float32)}, TypeError, "x: expected dtype float64"),
        ({"x": X[..., :1]}, ValueError, "x: expected a last axis of input_size=2"),
        ({"x": X}, ValueError, r"x: expected at least 301 time steps, 300 of warm-up and 1 to count; got 20"),
        ({"x": X, "steps": 11, "warmup": 5, "warmup_q": 5}, ValueError, "at least 21 time steps, 10 of .* got 20"),
        ({"x": X, "trajectories": 4}, ValueError, "trajectories: expected None with x"),
        ({"x": X[:, :0], "warmup": 0, "warmup_q": 0}, ValueError, "x: expected at least one sequence"),
        ({"steps": 0}, ValueError, "steps: expected an integer of at least 1; got 0"),
        ({"steps": 10, "qr_every": 3}, ValueError, "steps: expected a multiple of qr_every=3; got 10"),
        ({"qr_every": 0}, ValueError, "qr_every"),
        ({"warmup": -1}, ValueError, "warmup: expected an integer of at least 0"),
        ({"warmup_q": 1.5}, TypeError, "warmup_q: expected an integer"),
        ({"exponents": 7}, ValueError, "exponents: expected an integer from 1 to 6; got 7"),
        ({"trajectories": 0}, ValueError, "trajectories"),
        ({"rng": 3}, TypeError, "rng"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lyapunov_spectrum(**({"layer": LSTM} | arguments))


def test_states_that_overflow_are_reported(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(1, 2, nonlinearity="relu", bias=False, dtype=np.float64, rng=rng)
    rnn.weight_hh_l0 = np.array([[1e3, 0.0], [0.0, 1e3]])
    rnn.weight_ih_l0 = np.ones((2, 1))
    with pytest.raises(ValueError, match=r"layer: expected states that stay finite; got nan or inf at step 10[234]"):
        lyapunov_spectrum(rnn, np.ones((400, 1, 1)), rng=rng)


@pytest.mark.parametrize(("g", "error"), [(0, ValueError), (np.inf, ValueError), ("3", TypeError)])
def test_bad_gain(g: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="g: expected"):
        mean_field_exponent(g)
