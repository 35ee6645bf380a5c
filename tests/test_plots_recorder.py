"""Figures of gradient flow over training: what is drawn where, and that nothing overlaps or leaves the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.gradflow import GradientFlow
from tests.test_plots import assert_no_overlap, png, texts

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 50, 100, 150, 200, 250, 300])


def flow(decay: float = 0.02, distance: int = 40, steps: np.ndarray = STEPS) -> GradientFlow:
    """Norms exp(-k / (1 + decay · step)), exactly."""
    time = 1 + decay * steps
    norms = np.exp(-np.arange(distance) / time[:, None])
    horizon = np.minimum(np.floor(-np.log(0.01) * time), distance - 1).astype(np.int64)
    nothing = np.full(len(steps), np.nan)
    return GradientFlow(
        steps=steps, loss=nothing, gradient_norm=nothing, input=norms, h=norms[:, None], c=None, horizon=horizon,
        censored=horizon == distance - 1, exploding=np.zeros(len(steps), bool), decay_factor=np.exp(-1 / time),
        decay_time=time, h_saturation=nothing[:, None], gate_saturation=None, forget_gate=None,
        spectral_radius=nothing[:, None], seconds=nothing, threshold=0.01,
    )  # fmt: skip


def test_horizons_are_lines_named_at_their_end() -> None:
    figure, ax = plots.figure()
    flows = {"RNN": flow(0.005), "LSTM": flow(0.01)}
    plots.memory_over_training(ax, flows)
    lines = [line for line in ax.lines if len(np.asarray(line.get_xdata())) == len(STEPS)]
    for line, one in zip(lines, flows.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        np.testing.assert_array_equal(line.get_ydata(), one.horizon)
    assert set(texts(ax)) == {"RNN  11", "LSTM  18"}
    assert to_hex(texts(ax)["LSTM  18"].get_color()).upper() == plots.VERMILION
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "10", "100"]
    x = ax.transData.transform([(n, 0) for n in (0, 1, 10, 100)])[:, 0]
    assert (np.diff(x) > 20).all()  # 0 has its place on the logarithmic axis
    assert_no_overlap(figure, [*ax.texts, *ax.get_xticklabels()])


def test_what_is_censored_or_explodes_is_marked() -> None:
    exploding = np.isin(STEPS, [1, 300])
    one = replace(flow(0.05), exploding=exploding)  # at the end of the window from update 150 on
    figure, ax = plots.figure()
    plots.memory_over_training(ax, {"LSTM": one})
    assert list(texts(ax)) == ["LSTM  39+"]
    _, rings, crosses = ax.lines
    assert STEPS[one.censored].tolist() == [150, 200, 250, 300]
    np.testing.assert_array_equal(rings.get_xdata(), [150, 200, 250])
    np.testing.assert_array_equal(crosses.get_xdata(), [1, 300])
    png(figure)


def test_map_has_the_ratios_and_the_horizon() -> None:
    one = flow(0.01)
    scale = np.arange(1.0, 14.0)[:, None]  # a gradient's size is not its reach
    one = replace(one, input=one.input * scale)
    figure, ax = plots.figure()
    plots.gradient_over_training(ax, one)
    (mesh,) = ax.collections
    shown = 3 * 18 // 2 + 2
    want = np.maximum(one.input[:, : shown + 1] / scale, 1e-4).T
    got: Any = mesh.get_array()
    np.testing.assert_allclose(np.asarray(got).reshape(want.shape), want, rtol=1e-12)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), one.horizon)
    assert ax.get_ylim() == (-0.5, shown + 0.5)
    assert mesh.get_clim() == (1e-4, 1.0)
    bar = figure.axes[1]
    assert "elative" in bar.get_ylabel()
    rows = [text for text in ax.get_yticklabels() if 0 <= text.get_position()[1] <= shown]  # the others are not drawn
    assert_no_overlap(figure, [*ax.get_xticklabels(), *rows, ax.xaxis.label, ax.yaxis.label])
    # every sample stands within its own column
    corners = np.asarray(mesh.get_coordinates()[0, :, 0])
    assert ((corners[:-1] <= STEPS + 1e-9) & (corners[1:] >= STEPS - 1e-9)).all()


def test_map_with_nan_and_infinity_in_a_narrow_figure() -> None:
    one = flow()
    norms = one.input.copy()
    norms[3], norms[4, 5:], norms[5] = np.nan, np.inf, 0.0
    figure, ax = plots.figure(3.75, 3.0)
    plots.gradient_over_training(ax, replace(one, input=norms), reach=100)
    assert ax.get_ylim() == (-0.5, 39.5)
    assert_no_overlap(figure, [*ax.get_xticklabels(), *ax.get_yticklabels()])


def test_many_updates_and_a_single_sample() -> None:
    long = np.array([0, 1, 2, 4, 1000, 50_000, 100_000])
    figure, ax = plots.figure(3.75, 3.0)
    plots.memory_over_training(ax, {"RNN": flow(1e-5, steps=long), "LSTM": flow(3e-5, steps=long)})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "10", "100", "1k", "10k", "100k"]
    assert_no_overlap(figure, [*ax.texts, *ax.get_xticklabels()])
    figure, ax = plots.figure()
    plots.memory_over_training(ax, {"RNN": flow(steps=np.array([0]))})
    png(figure)


def test_a_figure_not_made_in_our_style() -> None:
    figure = Figure(figsize=(12, 4))
    left, right = figure.subplots(1, 2)
    plots.memory_over_training(left, {"a": flow()})
    plots.gradient_over_training(right, flow())
    png(figure)


BAD: list[tuple[Callable[[Axes], Any], type[Exception], str]] = [
    (lambda ax: plots.memory_over_training(ax, {}), ValueError, "flows: expected at least one entry"),
    (lambda ax: plots.memory_over_training(ax, flow()), TypeError, "flows: expected a mapping"),  # type: ignore[arg-type]
    (lambda ax: plots.memory_over_training(ax, {"a": 1}), TypeError, r"flows\['a'\]: expected what Gradient"),  # type: ignore[dict-item]
    (lambda ax: plots.memory_over_training(ax, {"a": flow()}, colors=[]), ValueError, "colors: expected 1"),
    (lambda ax: plots.gradient_over_training(ax, {"a": flow()}), TypeError, "flow: expected what"),  # type: ignore[arg-type]
    (lambda ax: plots.gradient_over_training(ax, flow(steps=np.array([3]))), ValueError, "at least two samples; got 1"),
    (lambda ax: plots.gradient_over_training(ax, flow(), reach=0), ValueError, "reach"),
]


@pytest.mark.parametrize(("draw", "error", "message"), BAD)
def test_bad_arguments(draw: Callable[[Axes], Any], error: type[Exception], message: str) -> None:
    _, ax = plots.figure()
    with pytest.raises(error, match=message):
        draw(ax)
