"""Figures of states: what is drawn where, on which colours, and that no text touches another."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.dynamics import evolution, project, saturation
from tests.test_plots import assert_no_overlap, png

T, B, I, H = 12, 2, 3, 7


def lstm_trace(rng: np.random.Generator, **options: Any) -> srnn.Trace:
    lstm = srnn.LSTM(I, H, rng=rng, **options)
    for weight in lstm.parameters.values():
        weight *= 5
    return lstm.forward(2 * rng.standard_normal((T, B, I), np.float32), lengths=[T, 9])


# Evolution


def test_evolution_has_a_map_and_colours_for_each_part(rng: np.random.Generator) -> None:
    found = evolution(lstm_trace(rng), sample=1)
    figure = plots.empty_figure(7, 9)
    panels = plots.evolution(figure, found, list("to be, or"))
    assert len(panels) == 6
    limits = {}
    for ax, (name, values) in zip(panels, found.parts.items(), strict=True):
        (image,) = ax.images
        np.testing.assert_array_equal(image.get_array(), values.T)
        limits[name] = image.get_clim()
    bound = float(np.abs(found.parts["c"]).max())
    assert bound != 1
    assert limits == {"h": (-1, 1), "c": (-bound, bound), "i": (0, 1), "f": (0, 1), "g": (-1, 1), "o": (0, 1)}
    maps = {name: ax.images[0].get_cmap().name for ax, name in zip(panels, found.parts, strict=True)}
    assert maps["h"] == maps["c"] == maps["g"] != maps["i"] == maps["f"] == maps["o"]
    bars = [ax.get_ylabel() for ax in figure.axes if ax not in panels]
    assert bars == ["Hidden state h", "Cell state c", "Input gate", "Forget gate", "Candidate g", "Output gate"]
    png(figure)
    shown = [label for label in panels[-1].get_xticklabels() if label.get_text()]
    assert [label.get_text() for label in shown] == list("to␣be,␣or")
    assert_no_overlap(figure, [*shown, panels[-1].xaxis.label, *(ax.yaxis.label for ax in figure.axes)])
    assert panels[0].xaxis.get_tick_params()["labelbottom"] is False


def test_evolution_of_relu_and_projected_states(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(I, H, nonlinearity="relu", rng=rng)
    found = evolution(rnn.forward(9 * rng.standard_normal((T, I), np.float32)))
    (ax,) = plots.evolution(plots.empty_figure(6, 3), found)
    assert ax.images[0].get_clim() == (0, pytest.approx(found.parts["h"].max()))
    assert ax.get_xlabel() == "Time step"
    dead = dataclasses.replace(found, parts={"h": np.zeros((3, 2))})
    assert plots.evolution(plots.empty_figure(6, 3), dead)[0].images[0].get_clim() == (0, 1)
    far = dataclasses.replace(found, cell="lstm", parts={"h": np.array([[-3.0, 1], [np.nan, 2]])})
    figure = Figure()
    assert plots.evolution(figure, far)[0].images[0].get_clim() == (-3, 3)
    png(figure)


# Content


def words() -> list[str]:
    return ["the cat sat", "the dog sat", "a cat", "$x$ and _y_", "\n", "a text of more than thirty characters, surely"]


@pytest.mark.parametrize("size", [(7.0, 5.0), (3.75, 3.8)])
def test_labels_lie_apart_even_where_points_do_not(size: tuple[float, float], rng: np.random.Generator) -> None:
    states = rng.standard_normal((40, 4))
    states[10:30] = 1 + 0.01 * rng.standard_normal((20, 4))  # a crowd
    labels = [f"sequence {n}" for n in range(40)]
    figure, ax = plots.figure(*size)
    found = project(states)
    count = plots.projection(ax, found, labels)
    assert count == len(ax.texts)
    assert 8 <= count <= 40
    assert_no_overlap(figure, [*ax.texts, ax.xaxis.label, ax.yaxis.label])
    inside = ax.get_window_extent()
    centres = ax.transData.transform(found.points)
    for text in ax.texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1 + 1
        assert not any(box.contains(*centre) for centre in centres), text.get_text()


def test_points_labels_and_variance_on_the_axes(rng: np.random.Generator) -> None:
    found = project(rng.standard_normal((6, 4)) * [3, 2, 1, 1], components=3)
    figure, ax = plots.figure(7, 5)
    assert plots.projection(ax, found, words()) == 6
    (points,) = ax.collections
    np.testing.assert_allclose(np.asarray(points.get_offsets()), found.points[:, :2])
    shown = {text.get_text() for text in ax.texts}
    assert shown == {*words()[:4], "⏎", "a text of more than thirty ch…"}
    assert ax.get_xlabel() == f"Component 1 ({found.explained_variance_ratio[0]:.0%} of the variance)"
    assert ax.get_ylabel() == f"Component 2 ({found.explained_variance_ratio[1]:.0%} of the variance)"
    png(figure)
    scale = np.diff(ax.transData.transform([[0, 0], [1, 1]]), axis=0)[0]
    assert scale[0] == pytest.approx(scale[1])  # distances are distances
    for text in ax.texts:  # beside its own point
        box = text.get_window_extent()
        near = {word: n for n, word in enumerate(words())}.get(text.get_text())
        if near is not None:
            x, y = ax.transData.transform(found.points[near, :2])
            assert max(box.x0 - x, x - box.x1, box.y0 - y, y - box.y1) < 60


def test_every_step_is_a_line_for_each_sequence(rng: np.random.Generator) -> None:
    found = project(lstm_trace(rng), at="every step")
    _, ax = plots.figure()
    assert plots.projection(ax, found) == 0
    assert [len(np.asarray(line.get_xdata())) for line in ax.lines] == [T, 9]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), found.points[T:, 1])


# Saturation by step


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_saturation_by_step_stands_at_its_shares(cell: str, rng: np.random.Generator) -> None:
    if cell == "lstm":
        trace = lstm_trace(rng)
    else:
        trace = srnn.RNN(I, H, rng=rng).forward(5 * rng.standard_normal((T, B, I), np.float32))
    found = saturation(trace)
    figure = plots.empty_figure(7, 5)
    panels = plots.saturation_by_step(figure, found, list("to be or not"))
    names = ["h", "tanh c", "input gate", "forget gate", "output gate"] if cell == "lstm" else ["h"]
    assert [ax.get_ylabel() for ax in panels] == names
    shown = panels[names.index("forget gate")] if cell == "lstm" else panels[0]
    ends = found.gates["f"] if cell == "lstm" else found.h
    for color, heights in ((plots.HIGH, ends.right_by_step), (plots.LOW, -ends.left_by_step)):
        bars: list[Any] = [p for p in shown.patches if to_hex(p.get_facecolor()).upper() == color]
        np.testing.assert_allclose([bar.get_height() for bar in bars], heights)
        assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == list(range(T))
    png(figure)
    labels = [label for label in panels[-1].get_xticklabels() if label.get_text()]
    assert [label.get_text() for label in labels] == list("to␣be␣or␣not")
    assert_no_overlap(figure, [*panels[0].texts, *(ax.yaxis.label for ax in panels), *labels])
    assert "gate > 0.9" in panels[0].texts[1].get_text()


# Errors


def test_bad_input(rng: np.random.Generator) -> None:
    trace = lstm_trace(rng)
    figure, ax = plots.figure()
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: plots.evolution(figure, trace), TypeError, r"found: expected what evolution\(\) returned"),  # type: ignore[arg-type]
        (lambda: plots.evolution(figure, evolution(trace), ["a"]), ValueError, "labels: expected 12, .* got 1"),
        (lambda: plots.projection(ax, trace), TypeError, r"found: expected what project\(\) returned"),  # type: ignore[arg-type]
        (lambda: plots.projection(ax, project(trace, components=1)), ValueError, "found: expected at least two"),
        (lambda: plots.projection(ax, project(trace), ["a"]), ValueError, "labels: expected 2, .* got 1"),
        (lambda: plots.saturation_by_step(figure, trace), TypeError, "saturation: expected what"),  # type: ignore[arg-type]
        (
            lambda: plots.saturation_by_step(figure, saturation(trace), "ab"),
            ValueError,
            "labels: expected 12, .* got 2",
        ),
        (lambda: plots.empty_figure(0, 1), ValueError, "width"),
    ]
    for draw, error, message in cases:
        with pytest.raises(error, match=message):
            draw()
    nothing = dataclasses.replace(evolution(trace), parts={"c": np.full((2, 3), np.nan)})
    with pytest.raises(ValueError, match="found: expected finite values of c; got none"):
        plots.evolution(plots.empty_figure(), nothing)
