"""How long the cell state and the hidden state last.

Oracles: torch autograd in float64 (a cell loop, one sequence at a time), gates that are constants, and plain loops.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.dynamics import CellHidden, Claim, StateMemory, cell_hidden
from scratchrnn.dynamics.cell_hidden import _correlation
from scratchrnn.gradflow import measure_decay
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]
T, B, I, H = 12, 3, 4, 5
LENGTHS = [12, 5, 9]


def directions(seed: int, *shapes: tuple[int, int]) -> list[np.ndarray]:
    """u, in the documented order of draws."""
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(shape) for shape in shapes]
    return [u / np.linalg.norm(u, axis=1, keepdims=True) for u in drawn]


def torch_curves(layer: Any, x: np.ndarray, n: int, u_c: np.ndarray, u_h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """‖∂⟨u, c⟩/∂c_k‖ and the same of h, last step first, of layer n on one sequence x (T, I)."""
    w = {name: torch.tensor(value) for name, value in layer.parameters.items()}
    below = list(torch.tensor(x))
    hs: list[torch.Tensor] = []
    cs: list[torch.Tensor] = []
    for k in range(n + 1):
        h = torch.zeros(layer.output_size, dtype=torch.float64, requires_grad=True)
        c = torch.zeros(layer.hidden_size, dtype=torch.float64)
        hs, cs = [], []
        for x_t in below:
            a = w[f"weight_ih_l{k}"] @ x_t + w[f"bias_ih_l{k}"] + w[f"weight_hh_l{k}"] @ h + w[f"bias_hh_l{k}"]
            i, f, g, o = a.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            if layer.proj_size:
                h = w[f"weight_hr_l{k}"] @ h
            cs.append(c)
            hs.append(h)
        below = hs
    curves = []
    for states, u in ((cs, u_c), (hs, u_h)):
        d = torch.autograd.grad((states[-1] * torch.tensor(u)).sum(), states, retain_graph=True)
        curves.append(np.array([float(one.norm()) for one in d[::-1]]))
    return curves[0], curves[1]


def median_by_distance(curves: list[np.ndarray]) -> np.ndarray:
    return np.array([np.median([c[k] for c in curves if len(c) > k]) for k in range(max(map(len, curves)))])


OPTIONS: list[tuple[dict[str, Any], int]] = [
    ({}, -1),
    ({"num_layers": 2, "batch_first": True}, 0),
    ({"num_layers": 2}, 1),
    ({"proj_size": 2}, 0),
]


@pytest.mark.parametrize(("options", "index"), OPTIONS)
@pytest.mark.usefixtures("each_backend")
def test_memory_equals_torch(options: dict[str, Any], index: int, rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, **options, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, B, I))
    trace = lstm.forward(x.transpose(1, 0, 2) if lstm.batch_first else x, lengths=LENGTHS)
    found = cell_hidden(lstm, trace, rng=np.random.default_rng(4), layer_index=index)
    u_c, u_h = directions(4, (B, H), (B, lstm.output_size))
    n = index % lstm.num_layers
    curves = [torch_curves(lstm, x[:length, b], n, u_c[b], u_h[b]) for b, length in enumerate(LENGTHS)]
    assert_close("c", found.c.gradient, median_by_distance([c for c, _ in curves]), rel=EXACT)
    assert_close("h", found.h.gradient, median_by_distance([h for _, h in curves]), rel=EXACT)
    assert found.c.decay == measure_decay(found.c.gradient)
    assert found.h.decay == measure_decay(found.h.gradient)

    f = trace[n].f
    products = []
    for b, length in enumerate(LENGTHS):
        kept = [u_c[b] * np.prod(f[length - k : length, b], axis=0) for k in range(length)]
        products.append(np.linalg.norm(kept, axis=1))
    assert_close("gates alone", found.gates_gradient, median_by_distance(products), rel=EXACT)
    assert found.gates_decay == measure_decay(found.gates_gradient)


@pytest.mark.parametrize(("options", "index"), OPTIONS)
@pytest.mark.parametrize("minimal", [False, True])
def test_units_equal_plain_loops(options: dict[str, Any], index: int, minimal: bool, rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, **options, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, B, I))
    kept = {"trace": "minimal"} if minimal else {}
    trace = lstm.forward(x.transpose(1, 0, 2) if lstm.batch_first else x, lengths=LENGTHS, **kept)  # type: ignore[arg-type]
    found = cell_hidden(lstm, trace, rng=rng, layer_index=index)
    part = trace[index % lstm.num_layers]
    at = [(t, b) for b, length in enumerate(LENGTHS) for t in range(length)]

    def column(array: np.ndarray, j: int) -> np.ndarray:
        return np.array([array[t, b, j] for t, b in at])

    gates = {name: getattr(part, name) for name in "ifgo"}
    for j in range(H):
        i, f, g, o = (column(gates[name], j) for name in "ifgo")
        c, c_prev = column(part.c[1:], j), column(part.c[:-1], j)
        forget = np.prod(f) ** (1 / len(f))
        assert found.forget[j] == pytest.approx(forget, rel=EXACT)
        assert found.forget_time[j] == pytest.approx(1 / (1 - forget), rel=EXACT)
        assert found.output[j] == pytest.approx(o.mean(), rel=EXACT)
        old = np.abs(f * c_prev).sum()
        assert found.carried[j] == pytest.approx(old / (old + np.abs(i * g).sum()), rel=EXACT)
        r = np.corrcoef(c, o * np.tanh(c))[0, 1]
        assert found.correlation[j] == pytest.approx(r, rel=EXACT)
        assert found.exposed[j] == pytest.approx(r**2, rel=EXACT)
    for name, memory in (("h", found.h), ("c", found.c)):
        s = getattr(part, name)[1:]
        cosines = [
            s[t, b] @ s[t - 1, b] / np.linalg.norm(s[t, b]) / np.linalg.norm(s[t - 1, b]) for t, b in at if t > 0
        ]
        assert memory.cosine == pytest.approx(np.median(cosines), rel=EXACT), name
        again = srnn.dynamics.autocorrelation(s, LENGTHS)
        assert_close(name, memory.autocorrelation.units, again.units, rel=0)


def constant_gates(f: np.ndarray, o: float = 0.5) -> srnn.LSTM:
    """c_t = f c_{t-1} + 0.5 tanh(x_t), gates constant, nothing through h."""
    size = len(f)
    lstm = srnn.LSTM(size, size, dtype=np.float64)
    for weight in lstm.parameters.values():
        weight[:] = 0.0
    bias = lstm.parameters["bias_ih_l0"]
    bias[size : 2 * size] = np.log(f / (1 - f))
    bias[3 * size :] = np.log(o / (1 - o))
    lstm.parameters["weight_ih_l0"][2 * size : 3 * size] = np.eye(size)
    return lstm


def test_constant_gates_forget_as_they_say(rng: np.random.Generator) -> None:
    lstm = constant_gates(np.full(4, 0.95))
    trace = lstm.forward(rng.standard_normal((3000, 8, 4)))
    found = cell_hidden(lstm, trace, rng=rng, max_lag=60)
    assert_close("forget", found.forget, np.full(4, 0.95), rel=EXACT)
    assert_close("forget_time", found.forget_time, np.full(4, 20.0), rel=1e-11)
    powers = 0.95 ** np.arange(3000.0)
    assert_close("gates alone", found.gates_gradient, powers, rel=1e-11)  # of 3000 roundings
    assert_close("c", found.c.gradient, powers, rel=1e-11)  # the gates are all there is
    assert found.c.decay.horizon == 89  # floor(log 0.01 / log 0.95)
    assert found.h.decay.horizon == 0  # h goes nowhere
    # an AR(1): 1/e after -1 / log 0.95 = 19.5 steps; one standard error of 24000 steps in runs of 40 is about 1
    assert found.c.autocorrelation.time == pytest.approx(-1 / np.log(0.95), abs=4)
    holds = {claim.name: claim.holds for claim in found.claims()}
    assert holds["c mostly unchanged"]
    assert holds["c long-term"]
    assert holds["h short-term"]


def test_sequences_too_short_to_tell_are_told(rng: np.random.Generator) -> None:
    def claims(f: float, steps: int) -> dict[str, Claim]:
        lstm = constant_gates(np.full(4, f))
        found = cell_hidden(lstm, lstm.forward(rng.standard_normal((steps, 3, 4))), rng=rng)
        return {one.name: one for one in found.claims()}

    short, enough, fast = claims(0.95, 12), claims(0.95, 21), claims(0.5, 12)
    assert np.isnan(short["c long-term"].measured["horizon of c"])
    assert not short["c long-term"].holds
    assert enough["c long-term"].measured["horizon of c"] == 20  # at the end, which is far enough
    assert enough["c long-term"].holds
    assert fast["c long-term"].measured["horizon of c"] == 6  # known, and too short
    assert short["h short-term"].measured == {"horizon of c": 11, "horizon of h": 0}  # longer would only confirm it
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    found = cell_hidden(lstm, lstm.forward(rng.standard_normal((2, B, I))), rng=rng)
    assert found.h.decay.horizon == found.c.decay.horizon == 1
    assert np.isnan(claim(found, "h short-term").measured["horizon of c"])


def test_an_output_gate_that_flickers_hides_the_cell(rng: np.random.Generator) -> None:
    # the last input alone opens and closes o, at random: h is new at each step, and c is not
    lstm = constant_gates(np.full(3, 0.97))
    lstm.parameters["weight_ih_l0"][2 * 3 : 3 * 3, 2] = 0.0  # the third input moves no candidate
    lstm.parameters["weight_ih_l0"][3 * 3 :, 2] = 30.0
    x = rng.standard_normal((2000, 4, 3))
    found = cell_hidden(lstm, lstm.forward(x), rng=rng)
    claims = {claim.name: claim for claim in found.claims()}
    # h = b c with b a coin: r(k) = E[b]² / E[b²] r_c(k) = 0.97^k / 2, and r² of c and b c is the same 1/2
    assert found.c.autocorrelation.time == pytest.approx(-1 / np.log(0.97), rel=0.25)
    assert found.h.autocorrelation.time == pytest.approx(np.log(2 / np.e) / np.log(0.97), rel=0.25)
    assert claims["h more volatile"].holds
    assert claims["h recomputed"].measured["autocorrelation of h at lag 1"] == pytest.approx(0.485, abs=0.05)
    assert np.median(found.exposed[:2]) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(found.correlation[2])  # its cell never moves
    assert found.c.autocorrelation.left_out == 1


def test_an_untrained_lstm_forgets_half_at_each_step(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(10, 64, rng=rng)
    found = cell_hidden(lstm, lstm.forward(rng.standard_normal((200, 8, 10), np.float32)), rng=rng)
    holds = {claim.name: claim.holds for claim in found.claims()}
    assert not holds["c mostly unchanged"]
    assert not holds["c long-term"]
    assert np.median(found.forget) == pytest.approx(0.5, abs=0.05)
    srnn.init.forget_bias_(lstm, 4.0)
    found = cell_hidden(lstm, lstm.forward(rng.standard_normal((200, 8, 10), np.float32)), rng=rng)
    holds = {claim.name: claim.holds for claim in found.claims()}
    assert holds["c mostly unchanged"]
    assert holds["c long-term"]


def test_a_sequence_without_a_batch_is_a_batch_of_one(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, I))
    alone = cell_hidden(lstm, lstm.forward(x), rng=np.random.default_rng(1))
    batch = cell_hidden(lstm, lstm.forward(x[:, None]), rng=np.random.default_rng(1))
    assert_close("c", alone.c.gradient, batch.c.gradient, rel=0)
    assert_close("correlation", alone.correlation, batch.correlation, rel=0)
    two = cell_hidden(lstm, lstm.forward(x[:2]), rng=rng)
    assert two.c.gradient.shape == (2,)


@pytest.fixture(scope="module")
def found() -> CellHidden:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    return cell_hidden(lstm, lstm.forward(rng.standard_normal((30, B, I))), rng=rng)


def claim(found: CellHidden, name: str) -> Claim:
    (one,) = [one for one in found.claims() if one.name == name]
    return one


def test_each_claim_holds_where_its_criterion_is_met(found: CellHidden) -> None:
    def memory(
        of: StateMemory, *, horizon: int | None = None, time: float | None = None, next_step: float = 0.0
    ) -> Any:
        decay = of.decay if horizon is None else dataclasses.replace(of.decay, horizon=horizon)
        seen = of.autocorrelation
        by_lag = np.array([1.0, next_step])
        seen = dataclasses.replace(seen, by_lag=by_lag, time=seen.time if time is None else time)
        return dataclasses.replace(of, decay=decay, autocorrelation=seen)

    def holds(name: str, **changes: Any) -> bool:
        return claim(dataclasses.replace(found, **changes), name).holds

    for kept, expected in ((0.9, True), (0.89, False), (np.nan, False)):
        assert holds("c mostly unchanged", forget=np.array([0.0, kept, 1.0]) if kept == kept else np.full(3, kept)) == (
            expected
        )
    for horizon, expected in ((20, True), (19, False)):
        assert holds("c long-term", c=memory(found.c, horizon=horizon)) == expected
    for horizon, expected in ((10, True), (11, False)):
        c = memory(found.c, horizon=20)
        assert holds("h short-term", c=c, h=memory(found.h, horizon=horizon)) == expected
    for times, expected in (
        ((3.0, 2.7), True),
        ((3.0, 2.8), False),
        ((3.0, 3.0), False),
        ((np.inf, 3.0), True),
        ((np.inf, np.inf), False),
        ((3.0, np.nan), False),
    ):
        c, h = memory(found.c, time=times[0]), memory(found.h, time=times[1])
        assert holds("h more volatile", c=c, h=h) == expected
    for r, expected in ((0.49, True), (0.5, False), (-0.49, True), (-1.0, False), (np.nan, False)):
        assert holds("h recomputed", h=memory(found.h, next_step=r)) == expected
    for r, expected in ((-0.7, True), (0.71, False)):
        assert holds("stored unexposed", correlation=np.array([r, np.nan, r])) == expected


def test_claims_say_what_they_measured(found: CellHidden) -> None:
    claims = found.claims()
    assert len({one.name for one in claims}) == len(claims) == 6
    assert claim(found, "c mostly unchanged").measured["median forget gate"] == np.median(found.forget)
    for one in claims:
        assert one.statement.endswith(".")
        assert one.criterion
        assert isinstance(one.holds, bool)
        assert all(isinstance(value, (int, float)) for value in one.measured.values())


def test_states_that_are_not_finite_are_an_error(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, dtype=np.float64, rng=rng)
    x = rng.standard_normal((30, B, I))
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="trace: expected finite states; got nan or inf in slot 8 of layer 1"):
        cell_hidden(lstm, lstm.forward(x), rng=rng)


def test_bad_input(rng: np.random.Generator) -> None:
    lstm, rnn = srnn.LSTM(I, H, rng=rng), srnn.RNN(I, H, rng=rng)
    x = np.ones((T, B, I), np.float32)
    trace = lstm.forward(x)
    with pytest.raises(ValueError, match="layer: expected an LSTM; got an RNN, which has no cell state"):
        cell_hidden(rnn, rnn.forward(x), rng=rng)
    both = srnn.LSTM(I, H, bidirectional=True)
    with pytest.raises(ValueError, match="layer: expected one direction"):
        cell_hidden(both, both.forward(x), rng=rng)
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM layer"):
        cell_hidden(trace, trace, rng=rng)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trace: expected what forward of this layer returned"):
        cell_hidden(lstm, x, rng=rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer_index: expected an integer from -1 to 0; got 1"):
        cell_hidden(lstm, trace, rng=rng, layer_index=1)
    with pytest.raises(ValueError, match="trace: expected a sequence of at least two steps; got none"):
        cell_hidden(lstm, lstm.forward(x[:1]), rng=rng)
    with pytest.raises(ValueError, match="trace: expected a sequence of at least two steps; got none"):
        cell_hidden(lstm, lstm.forward(x[:, :0]), rng=rng)
    with pytest.raises(ValueError, match="max_lag: expected an integer from 1 to 11; got 12"):
        cell_hidden(lstm, trace, rng=rng, max_lag=12)
    with pytest.raises(TypeError, match="rng: expected"):
        cell_hidden(lstm, trace, rng=3)  # type: ignore[arg-type]


def test_correlation_of_a_unit_that_never_changes_is_nan(rng: np.random.Generator) -> None:
    a = rng.standard_normal((30, 3))
    a[:, 1] = 0.1  # whose mean is not exactly 0.1
    got = _correlation(a, 2 * a + 1)
    assert_close("others", got[[0, 2]], np.ones(2), rel=EXACT)
    assert np.isnan(got[1])
