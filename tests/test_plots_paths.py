"""Figures of the two paths: what is drawn and named, and that nothing overlaps or leaves the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.gradflow import ForgetProduct, PathsByDistance, forget_product, split_paths
from scratchrnn.plots.paths import _times
from tests.test_plots import assert_no_overlap, png, texts

FALL = 0.5 ** np.arange(30.0)


def by_distance(alone: np.ndarray, total: np.ndarray) -> PathsByDistance:
    return PathsByDistance(alone[None], total[None] - alone[None], total[None], np.full(len(total), 4))


def product(found: np.ndarray, truth: np.ndarray) -> ForgetProduct:
    return ForgetProduct(found[None], truth[None], np.full(len(truth), 4))


@pytest.mark.parametrize(("bias", "scale"), [(0.0, 1.0), (3.0, 1.0), (0.0, 4.0)])
def test_of_real_nets(bias: float, scale: float, rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(5, 32, 2, dtype=np.float64, rng=rng)
    if bias:
        srnn.init.forget_bias_(lstm, bias)
    lstm.weight_hh_l0 *= scale
    trace = lstm.forward(rng.standard_normal((50, 8, 5)))
    paths = split_paths(lstm, trace, d_state=(rng.standard_normal((2, 8, 32)), None)).by_distance()  # type: ignore[arg-type]
    found = forget_product(trace, max_lag=40)
    for layer in range(2):
        for draw, data in ((plots.gradient_paths, paths), (plots.forget_product, found)):
            figure, ax = plots.figure()
            draw(ax, data, layer=layer)  # type: ignore[operator]
            assert_no_overlap(figure, ax.texts)


def test_paths_are_relative_and_half_is_marked() -> None:
    figure, ax = plots.figure()
    plots.gradient_paths(ax, by_distance(8 * FALL, 8 * 0.6 ** np.arange(30.0)))  # (5/6)^4 = 0.48
    total, alone, dot = ax.lines
    np.testing.assert_allclose(np.asarray(total.get_ydata(), float), 0.6 ** np.arange(30))
    np.testing.assert_allclose(np.asarray(alone.get_ydata(), float), FALL)
    assert np.asarray(dot.get_xdata()).tolist() == [4]
    assert set(texts(ax)) == {"total", "along the cells alone", "under half from 4 on"}
    heights = {name: text.get_window_extent().y0 for name, text in texts(ax).items()}
    png(figure)
    heights = {name: text.get_window_extent().y0 for name, text in texts(ax).items()}
    assert heights["under half from 4 on"] < heights["along the cells alone"] < heights["total"]
    assert to_hex(texts(ax)["total"].get_color()).upper() == plots.BLUE
    assert ax.get_yscale() == "log"
    assert_no_overlap(figure, ax.texts)


def test_where_the_cells_carry_all_nothing_is_marked() -> None:
    figure, ax = plots.figure()
    plots.gradient_paths(ax, by_distance(FALL, 1.5 * FALL))
    assert set(texts(ax)) == {"total", "along the cells alone"}
    assert len(ax.lines) == 2
    assert_no_overlap(figure, ax.texts)


def test_the_product_is_too_small_or_too_large() -> None:
    for found, truth, said in (
        (FALL, 10 * FALL, "10 times too small"),
        (FALL, FALL / 3, "3 times too large"),
        (FALL, FALL**0.2, "9.6·10$^{6}$ times too small"),
        (FALL, FALL, ""),
    ):
        figure, ax = plots.figure()
        plots.forget_product(ax, product(found, truth))
        assert set(texts(ax)) - {said} == {"through every path", "product of forget gates"}
        assert len(ax.texts) == (3 if said else 2)
        assert_no_overlap(figure, ax.texts)


def test_gaps(rng: np.random.Generator) -> None:
    """What has underflowed, or is not finite, is not drawn; the last lag that has both is spoken of."""
    small, large = FALL.copy(), 10 * FALL
    small[20:], large[25:] = 0, np.nan
    figure, ax = plots.figure()
    plots.forget_product(ax, product(small, large))
    upper, lower, gap = ax.lines
    assert np.isnan(np.asarray(upper.get_ydata(), float)[25:]).all()
    assert np.isnan(np.asarray(lower.get_ydata(), float)[20:]).all()
    assert np.asarray(gap.get_xdata()).tolist() == [19, 19]
    assert_no_overlap(figure, ax.texts)
    figure, ax = plots.figure()
    plots.gradient_paths(ax, by_distance(np.ones(1), np.ones(1)))
    png(figure)


def test_quotients_beyond_float64() -> None:
    figure, ax = plots.figure()
    plots.forget_product(ax, product(np.array([1.0, 1e-100, 1e-320]), np.ones(3)))
    assert "1.0·10$^{320}$ times too small" in texts(ax)
    figure, ax = plots.figure()
    steep = np.array([1e-300, 1e-290, 1e100])
    plots.gradient_paths(ax, by_distance(steep, steep))
    plots.gradient_by_distance(ax, {"a": steep})
    png(figure)


def test_factors_in_words() -> None:
    assert [_times(np.log10(f)) for f in (1.0, 1.04, 6.3, 26.4, 1234.0, 43210.0, 2.6e6)] == [
        "1", "1", "6.3", "26", "1,200", "43,000", "2.6·10$^{6}$"
    ]  # fmt: skip


def test_bad_arguments() -> None:
    _, ax = plots.figure()
    paths, found, nothing = by_distance(FALL, FALL), product(FALL, FALL), by_distance(FALL, 0 * FALL)
    refused: list[tuple[Any, Any, int, type[Exception], str]] = [
        (plots.gradient_paths, found, 0, TypeError, r"paths: expected what by_distance\(\) of a split returned; got"),
        (plots.forget_product, paths, 0, TypeError, r"found: expected what forget_product\(\) returned; got"),
        (plots.gradient_paths, paths, 1, ValueError, "layer: expected .*0.*; got 1"),
        (plots.forget_product, found, -1, ValueError, "layer: expected .*0.*; got -1"),
        (plots.gradient_paths, nothing, 0, ValueError, r"paths: expected a finite norm above 0 .*; got 0\.0"),
    ]
    for draw, data, layer, kind, message in refused:
        with pytest.raises(kind, match=message):
            draw(ax, data, layer=layer)
