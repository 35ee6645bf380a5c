"""Figures of cell against hidden state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.dynamics import CellHidden, cell_hidden
from tests.test_plots import assert_no_overlap, png


def measure(forget_bias: float) -> CellHidden:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(3, 12, rng=rng)
    srnn.init.forget_bias_(lstm, forget_bias)
    return cell_hidden(lstm, lstm.forward(rng.standard_normal((300, 4, 3), np.float32)), rng=rng)


@pytest.fixture(scope="module")
def found() -> dict[str, CellHidden]:
    return {"bias 0": measure(0.0), "bias 3": measure(3.0)}


def test_lines_are_the_medians_and_dots_the_times(found: dict[str, CellHidden]) -> None:
    figure, ax = plots.figure()
    plots.state_autocorrelation(ax, found)
    curves = [line for line in ax.lines if len(np.asarray(line.get_xdata())) > 2]
    want = [(label, letter, getattr(one, letter)) for label, one in found.items() for letter in "ch"]
    for line, (label, letter, memory) in zip(curves, want, strict=True):
        seen = memory.autocorrelation
        drawn = np.asarray(line.get_ydata())
        np.testing.assert_array_equal(drawn, seen.by_lag[: len(drawn)])
        assert line.get_linestyle() == {"c": "-", "h": "--"}[letter]
        assert to_hex(line.get_color()).upper() == {"bias 0": plots.BLUE, "bias 3": plots.VERMILION}[label]
        assert f"{label} {letter}: {seen.time:.2g} steps" in [text.get_text() for text in ax.texts]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], [m.autocorrelation.time for *_, m in want])  # type: ignore[index]
    assert ax.get_xlim()[1] >= max(m.autocorrelation.time for *_, m in want)
    names = [text for text in ax.texts if "steps" in text.get_text()]
    assert len(names) == 4
    assert_no_overlap(figure, names)


def test_what_does_not_fall_says_so(found: dict[str, CellHidden]) -> None:
    one = found["bias 3"]
    seen = dataclasses.replace(one.c.autocorrelation, by_lag=np.linspace(1, 0.5, 151), time=np.inf)
    slow = dataclasses.replace(one, c=dataclasses.replace(one.c, autocorrelation=seen))
    figure, ax = plots.figure()
    plots.state_autocorrelation(ax, {"": slow})
    assert "c: over 150 steps" in [text.get_text() for text in ax.texts]
    assert ax.get_xlim() == (0, 150)
    assert_no_overlap(figure, [text for text in ax.texts if "steps" in text.get_text()])


def test_units_stand_at_what_they_keep_and_show(found: dict[str, CellHidden]) -> None:
    one = found["bias 0"]
    figure, ax = plots.figure(5, 4)
    plots.cell_units(ax, one)
    (points,) = ax.collections
    np.testing.assert_array_equal(points.get_offsets(), np.stack([one.forget_time, one.exposed], axis=1))
    assert ax.get_xscale() == "log"
    assert not ax.texts
    png(figure)
    correlation = one.correlation.copy()
    correlation[[2, 5]] = np.nan
    figure, ax = plots.figure(5, 4)
    plots.cell_units(ax, dataclasses.replace(one, correlation=correlation))
    assert [text.get_text() for text in ax.texts] == ["2 of 12 units left out"]
    assert_no_overlap(figure, ax.texts)


ERRORS: list[tuple[Callable[[Axes], Any], type[Exception], str]] = [
    (lambda ax: plots.state_autocorrelation(ax, {}), ValueError, "found: expected at least one"),
    (lambda ax: plots.state_autocorrelation(ax, {"a": 1}), TypeError, r"found\['a'\]: .* cell_hidden\(\)"),  # type: ignore[dict-item]
    (lambda ax: plots.cell_units(ax, {}), TypeError, r"found: expected what cell_hidden\(\) returned"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("draw", "error", "message"), ERRORS)
def test_bad_input(draw: Callable[[Axes], Any], error: type[Exception], message: str) -> None:
    _, ax = plots.figure()
    with pytest.raises(error, match=message):
        draw(ax)


def test_units_that_never_change() -> None:
    lstm = srnn.LSTM(2, 3)
    for weight in lstm.parameters.values():
        weight[:] = 0
    still = cell_hidden(lstm, lstm.forward(np.zeros((9, 1, 2), np.float32)), rng=np.random.default_rng(0))
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=r"found\['a'\]: expected units of c that change; got none"):
        plots.state_autocorrelation(ax, {"a": still})
    with pytest.raises(ValueError, match="found: expected units that change"):
        plots.cell_units(ax, still)
