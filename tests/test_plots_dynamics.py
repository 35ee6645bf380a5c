"""Figures of position and of fixed points: what is drawn where, and that nothing overlaps or leaves the picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.dynamics import Connections, FixedPoints, Position, connections, fixed_points, position
from tests.test_plots import assert_no_overlap, png, texts


def unit_cube() -> srnn.RNN:
    """Three units that hold themselves, h' = tanh(2 h), each: 27 fixed points, 8 of them stable."""
    rnn = srnn.RNN(1, 3, bias=False, dtype=np.float64)
    rnn.weight_hh_l0 = 2 * np.eye(3)
    return rnn


@pytest.fixture(scope="module")
def cube() -> tuple[FixedPoints, Connections]:
    grid = np.array(list(itertools.product((-0.95, 0.0, 0.95), repeat=3)))
    points = fixed_points(unit_cube(), grid)
    assert np.bincount(points.unstable_directions).tolist() == [8, 12, 6, 1]
    return points, connections(unit_cube(), points)


@pytest.fixture(scope="module")
def settles() -> Position:
    return position(srnn.RNN(1, 20, rng=np.random.default_rng(0)))


@pytest.fixture(scope="module")
def slow() -> Position:
    layer = srnn.LSTM(1, 20, rng=np.random.default_rng(0))
    srnn.init.forget_bias_(layer, 3.0)
    return position(layer)


# Position


def test_map_is_the_distances_with_the_settled_part_marked(settles: Position) -> None:
    figure, ax = plots.figure(5, 4)
    plots.position_map(ax, settles)
    np.testing.assert_array_equal(ax.images[0].get_array(), settles.distances)
    assert ax.images[0].get_clim() == (0, settles.distances.max())
    (corner,) = ax.lines
    assert np.asarray(corner.get_xdata())[1] == settles.settling_time - 0.5  # type: ignore[operator]
    assert list(texts(ax)) == [f"settled after {settles.settling_time} steps"]
    assert figure.axes[1].get_ylabel() == "Distance between two steps' h"
    assert_no_overlap(figure, [*ax.texts, ax.xaxis.label, ax.yaxis.label])


@pytest.mark.parametrize("settled", [1, 25, 40, 49])
def test_the_mark_fits_wherever_it_is(settles: Position, settled: int) -> None:
    figure, ax = plots.figure(5, 4)
    plots.position_map(ax, replace(settles, settling_time=settled, part="all"))
    assert_no_overlap(figure, ax.texts)
    box, text = ax.get_window_extent(), ax.texts[0].get_window_extent()
    assert box.x0 < text.x0 < text.x1 < box.x1
    assert box.y0 < text.y0 < text.y1 < box.y1
    assert figure.axes[1].get_ylabel() == "Distance between two steps' all states"


def test_what_never_settles_has_no_mark() -> None:
    for found in (position(unit_cube(), state=np.array([[0.5, 0.1, -0.2]]), run=40), position(*slow_net())):
        figure, ax = plots.figure(5, 4)
        plots.position_map(ax, replace(found, settling_time=None))
        assert not ax.lines
        assert not ax.texts
        png(figure)


def slow_net() -> tuple[srnn.RNN, np.ndarray]:
    rnn = srnn.RNN(1, 2, nonlinearity="relu", bias=False, dtype=np.float64)
    rnn.weight_hh_l0, rnn.weight_ih_l0 = 0.99 * np.eye(2), np.ones((2, 1))
    return rnn, np.ones(1)


def test_decay_is_relative_with_the_predicted_slope(settles: Position, slow: Position) -> None:
    figure, ax = plots.figure()
    plots.position_decay(ax, {"RNN": settles, "LSTM": slow})
    solid = [line for line in ax.lines if line.get_marker() == "o" and len(np.asarray(line.get_xdata())) > 1]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_color() in plots.PALETTE[:2]]
    for found, line, prediction in zip((settles, slow), solid, dashed, strict=True):
        drawn = np.asarray(line.get_ydata(), float)
        np.testing.assert_allclose(drawn, (found.to_fixed_point / found.to_fixed_point[0])[: len(drawn)])
        assert (drawn > 1e-12).all()
        slope = np.asarray(prediction.get_ydata(), float)
        np.testing.assert_allclose(slope[1:] / slope[:-1], found.spectral_radius)
        assert slope[-1] == pytest.approx(drawn[-1])
    settled = f"RNN  {settles.settling_time} steps, ρ {settles.spectral_radius:.3f}"
    assert settled in texts(ax)
    assert to_hex(texts(ax)[settled].get_color()).upper() == plots.BLUE
    assert ax.get_yscale() == "log"
    assert_no_overlap(figure, ax.texts)


def test_decay_of_many_and_of_few_steps(settles: Position) -> None:
    figure, ax = plots.figure()
    many = {f"net {n}": position(srnn.RNN(1, 8, rng=np.random.default_rng(n)), run=100) for n in range(3)}
    plots.position_decay(ax, many)
    assert_no_overlap(figure, ax.texts)
    figure, ax = plots.figure()
    plots.position_decay(ax, {"late": position(*slow_net(), seq_length=3)})
    assert "late  459 steps, ρ 0.990" in texts(ax)
    assert_no_overlap(figure, ax.texts)
    dead = srnn.RNN(1, 1, nonlinearity="relu", bias=False, dtype=np.float64)
    dead.weight_hh_l0, dead.weight_ih_l0 = np.array([[-1.0]]), np.array([[-1.0]])
    figure, ax = plots.figure()
    plots.position_decay(ax, {"at once": position(dead, state=np.ones((1, 1)))})
    assert_no_overlap(figure, ax.texts)


# Fixed points


def test_points_are_seen_in_a_rotation(cube: tuple[FixedPoints, Connections]) -> None:
    points, ways = cube
    figure, ax = plots.figure(6, 6)
    names = [f"{k}" if stable else "" for k, stable in enumerate(points.stable)]
    plots.fixed_points(ax, points, connections=ways, labels=names)
    groups = [line for line in ax.lines if line.get_marker() in ("o", "D", "s", "^")]
    assert [len(np.asarray(line.get_xdata())) for line in groups] == [8, 12, 6, 1]
    assert [line.get_label() for line in groups] == [
        "8 stable", "12 with 1 unstable direction", "6 with 2", "1 with 3 or more"
    ]  # fmt: skip
    corners = np.stack([np.asarray(groups[0].get_xdata()), np.asarray(groups[0].get_ydata())], axis=1)
    # seen from some side, no distance is longer than in space
    want = points.states[points.stable]
    for a, b in itertools.combinations(range(8), 2):
        assert np.linalg.norm(corners[a] - corners[b]) <= np.linalg.norm(want[a] - want[b]) + 1e-9
    apart = min(np.linalg.norm(corners[a] - corners[b]) for a, b in itertools.combinations(range(8), 2))
    sides = np.random.default_rng(0).standard_normal((20_000, 3))
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    between = np.array([a - b for a, b in itertools.combinations(want, 2)])
    best = np.sqrt((between**2).sum(axis=1)[:, None] - (between @ sides.T) ** 2).min(axis=0).max()
    assert apart > 0.9 * best  # hardly a side shows the corners further apart
    paths = [line for line in ax.lines if len(np.asarray(line.get_xdata())) == 501]
    assert len(paths) == 24
    ends = {tuple(np.round([line.get_xdata()[-1], line.get_ydata()[-1]], 3)) for line in paths}  # type: ignore[index]
    assert ends == {tuple(np.round(corner, 3)) for corner in corners}
    assert_no_overlap(figure, [*(text for text in ax.texts if text.get_text()), ax.xaxis.label])
    legend = ax.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_trajectories_set_the_components(cube: tuple[FixedPoints, Connections], rng: np.random.Generator) -> None:
    points, _ = cube
    figure, ax = plots.figure(6, 6)
    runs = rng.standard_normal((9, 5, 3))
    plots.fixed_points(ax, points, trajectories=runs)
    assert sum(len(np.asarray(line.get_xdata())) == 9 for line in ax.lines) == 5
    assert "100% of the states' variance" in ax.get_xlabel()
    png(figure)


def test_the_same_picture_twice(cube: tuple[FixedPoints, Connections]) -> None:
    pictures = []
    for _ in range(2):
        figure, ax = plots.figure(4, 4)
        plots.fixed_points(ax, cube[0], connections=cube[1])
        pictures.append(png(figure))
    assert pictures[0] == pictures[1]


def test_figures_made_elsewhere(cube: tuple[FixedPoints, Connections], settles: Position) -> None:
    draws: list[Callable[[Axes], None]] = [
        lambda ax: plots.fixed_points(ax, *cube[:1], connections=cube[1]),
        lambda ax: plots.position_map(ax, settles),
        lambda ax: plots.position_decay(ax, {"a": settles}),
    ]
    for draw in draws:
        figure = Figure()
        draw(figure.subplots())
        png(figure)


ERRORS: list[tuple[Callable[[Axes, FixedPoints, Position], Any], type[Exception], str]] = [
    (lambda ax, p, s: plots.position_map(ax, p), TypeError, r"found: expected what position\(\) returned"),  # type: ignore[arg-type]
    (
        lambda ax, p, s: plots.position_map(ax, replace(s, distances=np.zeros((3, 3)))),
        ValueError,
        "states that differ",
    ),
    (lambda ax, p, s: plots.position_decay(ax, {}), ValueError, "found: expected at least one"),
    (lambda ax, p, s: plots.position_decay(ax, s), TypeError, "found: expected a mapping"),  # type: ignore[arg-type]
    (lambda ax, p, s: plots.position_decay(ax, {"a": p}), TypeError, r"found\['a'\]: expected what position"),  # type: ignore[dict-item]
    (lambda ax, p, s: plots.position_decay(ax, {"a": replace(s, verdict="chaos")}), ValueError, "verdict 'chaos'"),
    (lambda ax, p, s: plots.fixed_points(ax, s), TypeError, r"points: expected what fixed_points\(\)"),  # type: ignore[arg-type]
    (
        lambda ax, p, s: plots.fixed_points(ax, replace(p, states=p.states[:1])),
        ValueError,
        "points: expected at least 2 points",
    ),
    (lambda ax, p, s: plots.fixed_points(ax, p, labels=["a"]), ValueError, "labels: expected 27, .* got 1"),
    (lambda ax, p, s: plots.fixed_points(ax, p, connections=[]), TypeError, "connections: expected"),  # type: ignore[arg-type]
    (
        lambda ax, p, s: plots.fixed_points(ax, p, trajectories=np.zeros((2, 3))),
        ValueError,
        r"trajectories: expected shape \(T, N, 3\); got \(2, 3\)",
    ),
]


@pytest.mark.parametrize(("draw", "error", "message"), ERRORS)
def test_what_cannot_be_drawn_is_refused(
    draw: Callable[[Axes, FixedPoints, Position], Any],
    error: type[Exception],
    message: str,
    cube: tuple[FixedPoints, Connections],
    settles: Position,
) -> None:
    _, ax = plots.figure()
    with pytest.raises(error, match=message):
        draw(ax, cube[0], settles)
