"""Principal components of states against scikit-learn, and against data whose components are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

import scratchrnn as srnn
from scratchrnn.dynamics import project
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]
LENGTHS = (4, 11, 1, 11, 3, 7)
T, B, I, H = 11, 6, 3, 8


def by_sklearn(states: np.ndarray, components: int) -> tuple[PCA, np.ndarray, np.ndarray]:
    """Fitted, with the signs of our rule: (pca, components, points)."""
    pca = PCA(components, svd_solver="full").fit(states.astype(np.float64))
    largest = np.argmax(np.abs(pca.components_), axis=1)
    signs = np.sign(pca.components_[np.arange(components), largest])[:, None]
    return pca, pca.components_ * signs, pca.transform(states.astype(np.float64)) * signs.T


def compare(got: Any, states: np.ndarray, components: int) -> None:
    pca, directions, points = by_sklearn(states, components)
    assert_close("components", got.components, directions, rel=100 * EXACT)  # directions lose what variances lie close
    assert_close("points", got.points, points, rel=100 * EXACT)
    assert_close("mean", got.mean, pca.mean_, rel=EXACT)
    assert_close("variance", got.explained_variance, pca.explained_variance_, rel=EXACT)
    assert_close("ratio", got.explained_variance_ratio, pca.explained_variance_ratio_, rel=EXACT)
    others = np.random.default_rng(1).standard_normal((2, 3, states.shape[1]))
    moved = pca.transform(others.reshape(6, -1)) * np.sign((directions * pca.components_).sum(axis=1))
    assert_close("transform", got.transform(others), moved.reshape(2, 3, components), rel=100 * EXACT)
    assert_close("transform of the states", got.transform(states), got.points, rel=100 * EXACT)


@pytest.mark.parametrize(("shape", "components"), [((40, 7), 3), ((5, 9), 2), ((2, 4), 1), ((30, 1), 1), ((9, 4), 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays(shape: tuple[int, int], components: int, dtype: Any, rng: np.random.Generator) -> None:
    states = (rng.standard_normal(shape) * rng.uniform(0.1, 3, shape[1]) + 2).astype(dtype)
    before = states.copy()
    got = project(states, components=components)
    compare(got, states, components)
    np.testing.assert_array_equal(states, before)
    assert got.sample.tolist() == list(range(len(states)))
    assert not got.step.any()
    largest = np.take_along_axis(got.components, np.abs(got.components).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()


@pytest.mark.parametrize("part", ["h", "c"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("layer", [0, 1])
def test_final_states_are_those_at_each_sequences_own_end(
    part: str, direction: str, layer: int, rng: np.random.Generator
) -> None:
    lstm = srnn.LSTM(I, H, 2, bidirectional=True, proj_size=5, dtype=np.float64, rng=rng)
    x = 2 * rng.standard_normal((T, B, I))
    trace = lstm.forward(x, lengths=LENGTHS)
    got = project(trace, components=3, layer=layer, direction=direction, part=part)
    row = 2 * layer + (direction == "reverse")
    # each sequence run alone, without padding
    alone = [lstm(x[:n, b : b + 1])[1][part == "c"][row, 0] for b, n in enumerate(LENGTHS)]
    compare(got, np.stack(alone), 3)
    assert got.sample.tolist() == list(range(B))
    assert got.step.tolist() == ([0] * B if direction == "reverse" else [n - 1 for n in LENGTHS])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_every_step_is_in_the_inputs_order_without_padding(direction: str, rng: np.random.Generator) -> None:
    rnn = srnn.RNN(I, H, 1, bidirectional=True, dtype=np.float64, batch_first=True, rng=rng)
    trace = rnn.forward(rng.standard_normal((B, T, I)), lengths=LENGTHS)
    got = project(trace, layer=0, direction=direction, at="every step")
    half = slice(H, None) if direction == "reverse" else slice(H)
    states = np.concatenate([trace.output[b, :n, half] for b, n in enumerate(LENGTHS)])
    compare(got, states, 2)
    assert got.sample.tolist() == [b for b, n in enumerate(LENGTHS) for _ in range(n)]
    assert got.step.tolist() == [t for n in LENGTHS for t in range(n)]


def test_constructed_plane() -> None:
    # three points of a line along (3, -4)/5 and one beside it along (4, 3)/5: variances by hand
    along, beside = np.array([0.6, -0.8]), np.array([0.8, 0.6])
    states = 7 + np.stack([-2 * along, 0 * along, 2 * along, 0 * along]) + np.outer([1, -1, 1, -1], beside)
    got = project(states)
    np.testing.assert_allclose(got.components, [-along, beside], atol=1e-14)  # -0.8 is the largest: turned round
    np.testing.assert_allclose(got.explained_variance, [8 / 3, 4 / 3], rtol=1e-14)
    np.testing.assert_allclose(got.explained_variance_ratio, [2 / 3, 1 / 3], rtol=1e-14)
    np.testing.assert_allclose(got.points, [[2, 1], [0, -1], [-2, 1], [0, -1]], atol=1e-14)
    np.testing.assert_allclose(got.mean, [7, 7], rtol=1e-14)


def test_bad_input(rng: np.random.Generator) -> None:
    lstm, rnn = srnn.LSTM(I, H, rng=rng), srnn.RNN(I, H, 2, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    states = rng.standard_normal((5, 3))
    bad = states.copy()
    bad[3, 1] = np.nan
    trace = lstm.forward(x)
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (trace.output.tolist(), {}, TypeError, "states: expected an array .* got list"),
        (x, {}, ValueError, r"states: expected shape \(N, H\), one state in each row; got \(11, 6, 3\)"),
        (states[:1], {}, ValueError, "states: expected at least two.*; got 1"),
        (states, {"components": 4}, ValueError, "components: expected at most 3 for 5 states of 3 units; got 4"),
        (states, {"components": 0}, ValueError, "components: expected an integer of at least 1"),
        (bad, {}, ValueError, "states: expected finite values; got nan in unit 1 of sample 3"),
        (np.ones((4, 3)), {}, ValueError, "states: expected at least two that differ; got 4 equal ones"),
        (states, {"layer": 0}, ValueError, "expected only with a trace"),
        (states, {"part": "c"}, ValueError, "expected only with a trace"),
        (states.astype(int), {}, TypeError, "states: expected dtype float32 or float64; got int64"),
        (trace, {"part": "a"}, ValueError, "part: expected 'h' or 'c'; got 'a'"),
        (trace, {"at": "end"}, ValueError, "at: expected 'final' or 'every step'; got 'end'"),
        (trace, {"direction": "reverse"}, IndexError, "no layer 0 in direction 'reverse'"),
        (rnn.forward(x), {"layer": 0, "part": "c"}, ValueError, "part: expected 'h', since an RNN has no cell state"),
        (rnn.forward(x), {}, ValueError, "layer: expected to be given, since there are 2 layers and directions"),
        (lstm.forward(x[:, :1]), {}, ValueError, "states: expected at least two.*; got 1"),
        (lstm.forward(x[:, :0]), {"at": "every step"}, ValueError, "trace: expected at least one sequence"),
    ]
    for value, options, error, message in cases:
        with pytest.raises(error, match=message):
            project(value, **options)
    with pytest.raises(ValueError, match=r"states: expected shape \(..., 8\), as projected; got \(2, 7\)"):
        project(trace).transform(np.zeros((2, 7)))
