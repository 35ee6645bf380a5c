"""Position under constant input: against torch, and on nets built to rest, to circle, to be chaotic and to grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.dynamics import Position, position
from scratchrnn.rng import torch_manual_seed
from scratchrnn.testing import TOLERANCE, assert_close

I, H, P, T = 3, 6, 4, 17
REL = TOLERANCE["float64"]
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (srnn.RNN, {}),
    "relu": (srnn.RNN, {"nonlinearity": "relu"}),
    "rnn2": (srnn.RNN, {"num_layers": 2, "batch_first": True}),
    "lstm": (srnn.LSTM, {}),
    "lstm2": (srnn.LSTM, {"num_layers": 2, "proj_size": P, "batch_first": True}),
}


def net(weight_hh: Any, nonlinearity: str = "tanh", drive: float = 0.0) -> srnn.RNN:
    """h' = φ(W h + drive x), one input."""
    weight = np.array(weight_hh, np.float64)
    rnn = srnn.RNN(1, len(weight), nonlinearity=nonlinearity, bias=False, dtype=np.float64)
    rnn.weight_hh_l0 = weight
    rnn.weight_ih_l0 = np.full((len(weight), 1), drive)
    return rnn


def rotation(gain: float, angle: float) -> srnn.RNN:
    return net(gain * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


START = np.array([[0.3, 0.1]])


# Against torch


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_states_and_distances_are_torchs(name: str, dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    kind, options = CASES[name]
    layer = kind(I, H, dtype=dtype, rng=rng, **options)
    x = rng.standard_normal(I).astype(dtype)
    shapes = layer._state_shapes(1, False)
    start = tuple(rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes)
    found = position(layer, x, seq_length=T, state=start if len(start) == 2 else start[0])
    last = layer.num_layers - 1

    module = srnn.interop.torch.to_module(layer).double().requires_grad_(False)
    state: Any = tuple(torch.from_numpy(a).double() for a in start)
    hs, cs = [state[0]], [state[-1]]
    for _ in range(T + 1000):
        _, after = module(torch.from_numpy(x).double()[None], state if len(state) == 2 else state[0])
        state = after if isinstance(after, tuple) else (after,)
        hs.append(state[0])
        cs.append(state[-1])
    h = torch.stack(hs)[:, last]
    assert_close("states", found.states[:, found.slices[last, "h"]], h[: T + 1].numpy(), rel=REL)
    assert_close("distances", found.distances, torch.cdist(h[: T + 1], h[: T + 1]).numpy(), rel=1e-7)  # cdist expands
    gap = (h - h[-1]).norm(dim=1).numpy()  # after 1000 steps it rests
    assert found.verdict == "fixed point"
    assert_close("fixed point", found.fixed_point[found.slices[last, "h"]], h[-1].numpy(), rel=1e-12)  # type: ignore[index]
    np.testing.assert_allclose(found.to_fixed_point, gap[: T + 1], rtol=1e-9, atol=1e-13)
    settled = [t for t in range(T + 1000) if (gap[t:] <= 0.01 * gap[0]).all()][0]  # noqa: RUF015
    assert found.settling_time == settled

    def step(s: torch.Tensor) -> torch.Tensor:
        pieces = {part: s[columns] for part, columns in found.slices.items()}
        names = "hc" if layer.cell.has_c else "h"
        parts = tuple(torch.stack([pieces[n, name] for n in range(layer.num_layers)]) for name in names)
        _, after = module(torch.from_numpy(x).double()[None], parts if len(parts) == 2 else parts[0])
        after = after if isinstance(after, tuple) else (after,)
        return torch.cat([array[n] for n in range(layer.num_layers) for array in after])

    jacobian = torch.autograd.functional.jacobian(step, torch.from_numpy(found.fixed_point)).numpy()
    assert_close("radius", found.spectral_radius, np.abs(np.linalg.eigvals(jacobian)).max(), rel=1e-9)
    assert found.lyapunov == pytest.approx(np.log(found.spectral_radius), abs=0.02)

    everything = position(layer, x, seq_length=T, state=start if len(start) == 2 else start[0], part="all")
    assert_close("all", everything.distances[0, -1], np.linalg.norm(found.states[0] - found.states[-1]), rel=REL)
    if layer.cell.has_c:
        of_c = position(layer, x, seq_length=T, state=start, part=(last, "c"))
        c = torch.stack(cs)[: T + 1, last]
        assert_close("c", of_c.distances, torch.cdist(c, c).numpy(), rel=1e-7)
        assert (of_c.verdict, of_c.spectral_radius) == (found.verdict, found.spectral_radius)


def test_default_nets_lose_position_within_ten_steps() -> None:
    def settle(kind: Any, hidden: int, seed: int) -> Position:
        return position(kind(1, hidden, rng=torch_manual_seed(seed)))  # the weights that torch gives

    rnn = [settle(srnn.RNN, hidden, seed) for hidden in (16, 32, 64, 128) for seed in range(6)]
    assert {found.verdict for found in rnn} == {"fixed point"}
    times = [found.settling_time for found in rnn]
    assert 5 <= min(times) <= np.median(times) <= 9  # type: ignore[type-var]
    assert max(times) <= 11  # type: ignore[type-var]
    lstm = [settle(srnn.LSTM, 32, seed) for seed in range(6)]
    assert {found.verdict for found in lstm} == {"fixed point"}
    for found in rnn + lstm:
        assert found.contraction == pytest.approx(found.spectral_radius, rel=0.1)  # complex pairs make distances swing
        assert found.distances[30, 50] < 1e-3 * found.distances[0, 50]  # distant steps do not diverge


# Built to rest


def test_rate_of_a_real_eigenvalue() -> None:
    found = position(net(np.diag([0.8, 0.5, -0.3]), "relu", 1.0), np.array([2.0]))
    np.testing.assert_allclose(found.fixed_point, [10.0, 4.0, 2 / 1.3], rtol=1e-13)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.eigenvalues, [0.8, 0.5, -0.3], rtol=1e-13)  # type: ignore[arg-type]
    assert found.spectral_radius == pytest.approx(0.8, rel=1e-13)
    assert found.contraction == pytest.approx(0.8, rel=1e-6)
    assert found.lyapunov == pytest.approx(np.log(0.8), rel=1e-6)
    gap = np.sqrt(
        (10 * 0.8 ** np.arange(51)) ** 2 + (4 * 0.5 ** np.arange(51)) ** 2 + (2 / 1.3 * 0.3 ** np.arange(51)) ** 2
    )
    np.testing.assert_allclose(found.to_fixed_point, gap, rtol=1e-9)
    assert found.settling_time == int(np.argmax(gap <= 0.01 * gap[0]))


def test_settling_and_rate_go_on_after_the_steps_asked_for() -> None:
    found = position(net([[0.98]], "relu", 1.0), seq_length=3)
    assert found.verdict == "fixed point"
    assert found.settling_time == 228  # 0.98^t <= 0.01
    assert found.contraction == pytest.approx(0.98, rel=1e-6)
    assert found.states.shape == (4, 1)


def test_small_gain_is_a_fixed_point_at_the_origin(rng: np.random.Generator) -> None:
    weight = 0.5 * rng.standard_normal((100, 100)) / 10
    found = position(net(weight), state=rng.standard_normal((1, 100)))
    assert (found.verdict, found.period) == ("fixed point", None)
    np.testing.assert_allclose(found.fixed_point, 0, atol=1e-12)  # type: ignore[arg-type]
    want = np.abs(np.linalg.eigvals(weight)).max()
    assert found.spectral_radius == pytest.approx(want, rel=1e-9)
    assert found.contraction == pytest.approx(want, rel=0.05)
    assert found.lyapunov == pytest.approx(np.log(want), abs=0.01)


def test_a_state_that_starts_at_rest(rng: np.random.Generator) -> None:
    found = position(rotation(0.9, 1.0))
    assert (found.verdict, found.settling_time) == ("fixed point", 0)
    assert np.isnan(found.contraction)
    assert not found.distances.any()
    dead = position(net([[-1.0]], "relu", -1.0))  # h = 0 whatever comes: J = 0
    assert (dead.verdict, dead.spectral_radius, dead.lyapunov) == ("fixed point", 0.0, -np.inf)


def test_rest_on_an_unstable_point_is_undecided() -> None:
    found = position(rotation(1.5, 1.0))  # stays at 0, where nothing holds it
    assert (found.verdict, found.settling_time) == ("undecided", None)
    assert found.spectral_radius == pytest.approx(1.5)
    assert found.lyapunov == pytest.approx(np.log(1.5))


def test_too_short_a_run_is_undecided() -> None:
    slow = net([[0.999]], "relu", 1.0)
    assert position(slow, run=2000).verdict == "undecided"
    assert position(slow, run=20_000).verdict == "fixed point"


def test_a_slow_rate_is_a_fixed_point_once_it_is_seen_to_hold() -> None:
    found = position(net([[0.995]]), state=np.array([[0.5]]))
    assert (found.verdict, found.settling_time) == ("fixed point", 633)
    assert abs(found.states[-1, 0]) > 0.1  # far from rest
    assert found.contraction == pytest.approx(0.995, rel=1e-5)
    turning = position(rotation(0.995, 1.0), state=START)
    assert turning.verdict == "fixed point"


def test_no_fixed_point_where_the_jacobian_holds_nothing() -> None:
    found = position(net([[-1.0]]), state=np.array([[0.5]]))  # ρ = 1: falls as 1/√t
    assert found.verdict == "undecided"


def test_from_the_fixed_point_itself() -> None:
    layer = net([[0.5]], "tanh", 1.0)
    s = position(layer).fixed_point
    assert s is not None
    found = position(layer, state=s[None])
    assert (found.verdict, found.settling_time) == ("fixed point", 0)


def test_a_large_fixed_point_is_found() -> None:
    found = position(net([[0.999]], "relu", 1e6))  # at 1e9, known to no more than 1e-7
    assert found.fixed_point is not None
    assert found.fixed_point[0] == pytest.approx(1e9, rel=1e-9)
    assert found.spectral_radius == pytest.approx(0.999)


def test_lyapunov_exponent_is_the_growth_after_the_first_steps(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((5, 5))
    found = position(net(weight), state=rng.standard_normal((1, 5)), seq_length=30, run=40)
    s, v, growth = found.states[-1], np.cos(np.arange(1.0, 6)), []
    for _ in range(40):
        s = np.tanh(weight @ s)
        v = (1 - s**2) * (weight @ v)
        growth.append(np.log(np.linalg.norm(v)))
        v /= np.linalg.norm(v)
    assert found.lyapunov == pytest.approx(np.mean(growth[10:]), rel=1e-9)
    means = np.reshape(growth[10:], (10, 3)).mean(axis=1)
    assert found.lyapunov_error == pytest.approx(np.std(means, ddof=1) / np.sqrt(10), rel=1e-6)


# Built to circle


def test_a_quarter_turn_is_a_cycle_of_four() -> None:
    found = position(rotation(1.5, np.pi / 2), state=START)
    assert (found.verdict, found.period, found.settling_time) == ("cycle", 4, None)
    size = 0.8586  # tanh(1.5 s) = s, in each component
    np.testing.assert_allclose(np.abs(found.states[-4:]), size, atol=1e-4)
    np.testing.assert_allclose(found.distances[-1, -5], 0, atol=1e-6)
    assert found.distances[-1, -3] == pytest.approx(2 * np.sqrt(2) * size, rel=1e-4)
    assert found.spectral_radius == pytest.approx(1.5)  # at 0, where the search for s* ends and the state does not go
    assert found.lyapunov == pytest.approx(np.log(1.5 * (1 - size**2)), abs=2e-3)


@pytest.mark.parametrize("period", [2, 3, 7])
def test_a_ring_is_a_cycle_of_its_length(period: int) -> None:
    ring = net(3 * np.roll(np.eye(period), 1, axis=0))  # each unit hands its state on
    found = position(ring, state=2 * np.eye(period)[:1] - 1)
    assert (found.verdict, found.period) == ("cycle", period)
    loose = position(ring, state=np.eye(period)[:1])  # all others rest at 0, where nothing holds them
    assert (loose.verdict, loose.period) == ("undecided", None)
    assert loose.lyapunov == pytest.approx(np.log(3), abs=1e-3)


def test_swinging_that_dies_away_is_no_cycle() -> None:
    for weight in (-0.999, -1.001):  # the second one grows, as slowly
        start = np.array([[1e-3 if weight > -1 else 1e-6]])
        assert position(net([[weight]]), state=start).verdict == "undecided"


def test_other_turns_circle_without_return() -> None:
    found = position(rotation(1.2, 1.0), state=START)
    assert (found.verdict, found.period) == ("undecided", None)
    assert abs(found.lyapunov) < 1e-3  # on a closed curve, neighbours stay neighbours
    assert np.linalg.norm(found.states[-1]) > 0.5
    rests = position(rotation(3.0, 0.3), state=START)  # so strong a gain stops the turning
    assert rests.verdict == "fixed point"


# Built to be chaotic, and to grow


@pytest.mark.parametrize("seed", range(3))
def test_large_gain_is_chaos(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = position(net(3 * rng.standard_normal((128, 128)) / np.sqrt(128)), state=rng.standard_normal((1, 128)))
    assert (found.verdict, found.settling_time, found.period) == ("chaos", None, None)
    assert found.lyapunov == pytest.approx(0.31, abs=0.06)  # 0.3096 for N = 4096 (Clark)
    assert 0 < found.lyapunov_error < 0.02


@pytest.mark.parametrize("layer", [net([[1.001]]), net([[-1.001]]), net([[1.0005]], "relu"), rotation(1.001, 1.0)])
def test_leaving_an_unstable_point_is_no_chaos(layer: srnn.RNN) -> None:
    found = position(layer, state=np.full((1, layer.hidden_size), 1e-3))
    assert found.lyapunov > 10 * found.lyapunov_error > -1  # it does grow all the way
    assert found.verdict == "undecided"


def test_a_cell_that_adds_up_grows() -> None:
    lstm = srnn.LSTM(1, 2, dtype=np.float64, rng=np.random.default_rng(0))
    for array in lstm.parameters.values():
        array[:] = 0
    lstm.bias_ih_l0 = np.repeat([0.0, 10.0, 0.5, 0.0], 2)  # i, f, g, o
    found = position(lstm)  # c goes to i g / (1 - f) = 5090, with a time of 22,000 steps
    assert (found.verdict, found.settling_time) == ("grows", None)
    assert found.spectral_radius == pytest.approx(1 / (1 + np.exp(-10)))
    lstm.bias_ih_l0 = np.repeat([0.0, 5.0, 0.5, 0.0], 2)
    assert position(lstm).verdict == "fixed point"


@pytest.mark.parametrize(("slope", "verdict"), [(1.9, "chaos"), (1.2, "chaos"), (1.02, "undecided")])
def test_a_tent_has_the_exponent_of_its_slope(slope: float, verdict: str) -> None:
    # x' = m x below 1/2, m (1 - x) above; at 1.02 x stays so near 1/2 that it seems to return
    tent = srnn.RNN(1, 2, nonlinearity="relu", dtype=np.float64, rng=np.random.default_rng(0))
    for name, value in (("weight_hh_l0", [[slope, -2 * slope]] * 2), ("bias_hh_l0", [0.0, -0.5])):
        tent.parameters[name][:] = value
    for name in ("weight_ih_l0", "bias_ih_l0"):
        tent.parameters[name][:] = 0
    found = position(tent, state=np.array([[0.3, 0.0]]))
    assert found.lyapunov == pytest.approx(np.log(slope), rel=1e-2)
    assert found.verdict == verdict


def test_a_closed_curve_is_no_chaos_for_lack_of_error() -> None:
    rng = np.random.default_rng(66)
    curve = net(1.2 * rng.standard_normal((8, 8)) / np.sqrt(8))
    found = position(curve, state=rng.standard_normal((1, 8)))
    assert 1e-3 > found.lyapunov > 4 * found.lyapunov_error  # one in 200 such nets
    assert found.verdict == "undecided"


@pytest.mark.parametrize(
    ("gain", "verdict"), [(1.0, "grows"), (1.001, "diverges"), (1.01, "diverges"), (1.4, "diverges"), (3.0, "diverges")]
)
def test_growth_is_no_chaos(gain: float, verdict: str) -> None:
    found = position(net(gain * np.eye(2), "relu", 1.0))  # 1.4: 1e299 in the end; 3: not finite
    assert (found.verdict, found.fixed_point, found.eigenvalues) == (verdict, None, None)
    assert np.isnan(found.to_fixed_point).all()
    assert np.isnan(found.spectral_radius)


def test_distances_of_states_that_overflow() -> None:
    found = position(net([[3.0]], "relu", 1.0), seq_length=700)  # infinite from step 646 on
    assert found.verdict == "diverges"
    assert found.distances[0, 500] == found.states[500, 0] > 1e200  # the square of which is too large
    assert found.distances[0, 699] == np.inf
    assert np.isnan(found.distances[690, 699])


def test_nan_weights_diverge() -> None:
    broken = net([[np.nan]])
    found = position(broken)
    assert found.verdict == "diverges"
    assert np.isnan(found.lyapunov)


# Arguments


def test_input_defaults_to_ones(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, rng=rng)
    assert_close("states", position(layer).states, position(layer, np.ones(I)).states, rel=0)


def test_one_step(rng: np.random.Generator) -> None:
    found = position(srnn.RNN(I, H, rng=rng), seq_length=1)
    assert found.distances.shape == (2, 2)


def test_arrays_are_float64_and_nothing_is_changed(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, num_layers=2, dropout=0.5, rng=rng)
    generator = rng.bit_generator.state
    found = position(layer)
    for array in (found.states, found.distances, found.to_fixed_point, found.fixed_point, found.x):
        assert array is not None
        assert array.dtype == np.float64
    assert found.eigenvalues is not None
    assert found.eigenvalues.dtype == np.complex128
    assert layer.rng.bit_generator.state == generator


NET = srnn.LSTM(I, H, rng=np.random.default_rng(0))
F32 = np.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: position(srnn.Linear(2, 2)), TypeError, "layer: expected an RNN or LSTM; got Linear"),  # type: ignore[arg-type]
        (lambda: position(srnn.RNN(1, 2, bidirectional=True)), ValueError, "one direction"),
        # the shape of the usual recipe, (1, T, 1), is read as T = 1 by a layer that wants time first
        (lambda: position(NET, np.ones((1, 50, 3))), ValueError, "x: expected shape (3,) for one constant input"),
        (lambda: position(NET, np.ones((2, 3))), ValueError, "x: expected shape (3,) for one constant input"),
        (lambda: position(NET, np.ones(4)), ValueError, "x: expected shape (3,)"),
        (lambda: position(NET, [1.0, 1.0, 1.0]), TypeError, "x: expected a NumPy array; got list"),  # type: ignore[arg-type]
        (lambda: position(NET, seq_length=0), ValueError, "seq_length: expected an integer of at least 1; got 0"),
        (lambda: position(NET, run=39), ValueError, "run: expected an integer of at least 40; got 39"),
        (lambda: position(NET, part="h"), ValueError, "part: expected 'all' or one of (0, 'h'), (0, 'c'); got 'h'"),
        (lambda: position(NET, part=(1, "h")), ValueError, "part: expected 'all' or one of"),
        (lambda: position(NET, part=[0]), ValueError, "part: expected 'all' or one of"),  # type: ignore[arg-type]
        (lambda: position(NET, state=np.zeros((1, H), F32)), TypeError, "state: expected a pair (h_0, c_0)"),
        (lambda: position(NET, state=(np.zeros((1, H)),) * 2), TypeError, "state: expected dtype float32; got float64"),
        (lambda: position(NET, state=(np.zeros((1, 2, H), F32),) * 2), ValueError, "h_0: expected shape (1, 6)"),
    ],
)
def test_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
