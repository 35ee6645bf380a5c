"""Figures of Lyapunov spectra and of products of Jacobians: what stands where, and that nothing overlaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.gradflow import LyapunovSpectrum, SingularValues, mean_field_exponent
from tests.test_plots import assert_no_overlap, png, texts


def spectrum(exponents: list[float] | np.ndarray[Any, Any], size: int | None = None) -> LyapunovSpectrum:
    values = np.array(exponents, np.float64)
    return LyapunovSpectrum(values, values, values[None, None], size or len(values), 1, 0, 0, 1)


def spans(log: list[list[float]]) -> list[SingularValues]:
    return [SingularValues(np.array([row]), 3, 3 + n) for n, row in enumerate(log)]


def test_spectrum_lies_at_ranks_with_the_dimension_marked() -> None:
    figure, ax = plots.figure()
    chaotic = spectrum([0.3, 0.1, -0.8, -1.0])
    plots.lyapunov_spectrum(ax, {"chaotic": chaotic, "relu": spectrum([-0.1, -0.5, -np.inf, -np.inf])})
    curve, dot, relu = ax.lines[:3]
    np.testing.assert_allclose(np.asarray(curve.get_xdata(), float), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_array_equal(curve.get_ydata(), chaotic.exponents)
    assert np.asarray(dot.get_xdata()).tolist() == [2.5 / 4]
    np.testing.assert_array_equal(relu.get_ydata(), [-0.1, -0.5])
    assert set(texts(ax)) == {"chaotic, D = 2.5", "relu, 2 dead"}
    assert ax.get_xlim() == (0, 1)
    assert_no_overlap(figure, ax.texts)


def test_part_of_a_spectrum_takes_its_share_of_the_axis() -> None:
    _, ax = plots.figure()
    plots.lyapunov_spectrum(ax, {"first two": spectrum([-0.1, -0.2], size=10), "all": spectrum(-np.arange(1.0, 41))})
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_xdata(), float), [0.05, 0.15])


def test_names_of_many_spectra_stay_apart() -> None:
    figure, ax = plots.figure()
    falls = {f"gain {g}": spectrum(g / 10 - g * np.arange(50) / 25) for g in (0.9, 1.0, 1.1, 3.0, 6.0)}
    plots.lyapunov_spectrum(ax, falls)
    assert_no_overlap(figure, ax.texts)


def test_largest_exponent_beside_the_mean_field() -> None:
    figure, ax = plots.figure()
    gains = np.array([3.0, 0.5, 1.0, 2.0])
    plots.largest_exponent(ax, gains, {"H = 64": np.array([0.29, -0.7, np.nan, 0.1]), "H = 256": np.full(4, 0.2)})
    theory = next(line for line in ax.lines if len(np.asarray(line.get_xdata())) == 100)
    x, y = (np.asarray(values, float) for values in (theory.get_xdata(), theory.get_ydata()))
    assert (x[0], x[-1], y[0], y[-1]) == (0.5, 3.0, np.log(0.5), mean_field_exponent(3.0))
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(dots[0].get_xdata(), [0.5, 1, 2, 3])
    np.testing.assert_array_equal(dots[0].get_ydata(), [-0.7, np.nan, 0.1, 0.29])
    assert {"mean field", "H = 64", "H = 256"} <= set(texts(ax))
    assert_no_overlap(figure, ax.texts)


def test_singular_values_over_the_span() -> None:
    figure, ax = plots.figure()
    found = spans([[0.0, 0, 0], [1.0, -1, -2000], [2.0, -2, -np.inf]])
    plots.singular_values(ax, found[::-1])  # any order
    bold = [line for line in ax.lines if line.get_linewidth() == 2]
    np.testing.assert_array_equal(bold[0].get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(np.asarray(bold[0].get_ydata(), float), np.array([0, 1, 2]) / np.log(10))
    np.testing.assert_allclose(np.asarray(bold[2].get_ydata(), float), [0, -2000 / np.log(10), np.nan])
    assert set(texts(ax)) == {"largest", "median", "smallest"}
    assert_no_overlap(figure, ax.texts)
    _, ax = plots.figure()
    two = [SingularValues(np.array([[0.0], [-2.0 * n]]), 0, n) for n in (1, 2)]
    plots.singular_values(ax, two)  # one value: the geometric mean over two samples, and a single name
    np.testing.assert_allclose(np.asarray(ax.lines[-2].get_ydata(), float), np.array([-1, -2]) / np.log(10))
    assert len(ax.texts) == 1


def test_connectivity_map() -> None:
    figure, ax = plots.figure(6, 5)
    norm = np.tril(0.5 ** np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0))))
    norm[5, 0] = np.nan
    plots.connectivity(ax, norm, list("to b$\n"), decades=1)
    (image,) = ax.images
    shown = np.ma.masked_invalid(image.get_array())
    np.testing.assert_array_equal(shown.mask, (norm == 0) | np.isnan(norm))
    np.testing.assert_array_equal(shown.compressed(), norm[norm > 0])
    assert image.get_clim() == (0.1, 1)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in labels] == list("to␣b$⏎")
        assert_no_overlap(figure, labels)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Read at each step", "Output after each step")
    figure, ax = plots.figure()
    plots.connectivity(ax, np.tril(np.ones((300, 300))), ["w"] * 300)
    assert ax.get_xlabel() == "Input of each step"
    png(figure)


def test_figures_of_any_style() -> None:
    draws: list[Callable[[Axes], None]] = [
        lambda ax: plots.lyapunov_spectrum(ax, {"a": spectrum([0.1, -1])}),
        lambda ax: plots.largest_exponent(ax, np.array([0.5, 2]), {"a": np.array([-1.0, 0.2])}),
        lambda ax: plots.singular_values(ax, spans([[0.0, 0], [0, -1]])),
        lambda ax: plots.connectivity(ax, np.eye(3)),
    ]
    for draw in draws:
        figure = Figure()
        draw(figure.subplots())
        png(figure)


ERRORS: list[tuple[Callable[[Axes], Any], type[Exception], str]] = [
    (lambda ax: plots.lyapunov_spectrum(ax, {}), ValueError, "spectra: expected at least one"),
    (lambda ax: plots.lyapunov_spectrum(ax, {"a": 1}), TypeError, r"spectra\['a'\]: expected what lyapunov_spectrum"),  # type: ignore[dict-item]
    (lambda ax: plots.lyapunov_spectrum(ax, {"a": spectrum([-np.inf])}), ValueError, "at least one finite exponent"),
    (lambda ax: plots.largest_exponent(ax, np.ones(2), {}), ValueError, "exponents: expected at least one"),
    (lambda ax: plots.largest_exponent(ax, np.zeros(2), {"a": np.ones(2)}), ValueError, "gains: .* above 0"),
    (lambda ax: plots.largest_exponent(ax, np.ones(2), {"a": np.ones(3)}), ValueError, r"expected shape \(2,\) one"),
    (lambda ax: plots.largest_exponent(ax, np.ones(2), {"a": np.full(2, np.nan)}), ValueError, "one finite value"),
    (lambda ax: plots.singular_values(ax, [1]), TypeError, r"found\[0\]: expected what singular_values"),  # type: ignore[list-item]
    (lambda ax: plots.singular_values(ax, spans([[0.0]])), ValueError, "at least two spans, each once"),
    (lambda ax: plots.singular_values(ax, spans([[0.0]]) * 2), ValueError, r"each once; got \[0, 0\]"),
    (lambda ax: plots.singular_values(ax, spans([[0.0], [0, 1]])), ValueError, "as many singular values of each"),
    (lambda ax: plots.connectivity(ax, np.ones((2, 3))), ValueError, r"norm: expected shape \(T, T\).* got \(2, 3\)"),
    (lambda ax: plots.connectivity(ax, np.zeros((2, 2))), ValueError, "norm: expected finite values above 0"),
    (lambda ax: plots.connectivity(ax, np.ones((2, 2)), ["a"]), ValueError, "labels: expected 2, .* got 1"),
    (lambda ax: plots.connectivity(ax, np.ones((2, 2)), decades=0), ValueError, "decades"),
]


@pytest.mark.parametrize(("draw", "error", "message"), ERRORS)
def test_bad_input(draw: Callable[[Axes], Any], error: type[Exception], message: str) -> None:
    _, ax = plots.figure()
    with pytest.raises(error, match=message):
        draw(ax)
