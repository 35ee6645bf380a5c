"""Figures of itemised gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.gradflow import Itemized, itemized
from tests.test_plots import assert_no_overlap, png


@pytest.fixture(scope="module")
def items() -> Itemized:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(3, 6, 2, rng=rng)
    trace = lstm.forward(rng.standard_normal((12, 2, 3)).astype(np.float32), lengths=[12, 9])
    return itemized(lstm, trace, rng.standard_normal((12, 2, 6)).astype(np.float32))


@pytest.fixture(scope="module")
def of_rnn() -> Itemized:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(3, 6, rng=rng)
    return itemized(rnn, rnn.forward(np.ones((5, 1, 3), np.float32)), np.ones((5, 1, 6), np.float32))


def test_rows_are_losses_and_columns_steps(items: Itemized) -> None:
    figure, ax = plots.figure(6, 5)
    plots.itemized_map(ax, items, list("to be or not"), bottom=1e-3)
    (image,) = ax.images
    shown = np.ma.asarray(image.get_array())
    norms = items.h[1, :, :, 0] / items.h[1, :, :, 0].max()
    past = np.tri(12, dtype=bool)
    np.testing.assert_array_equal(shown.mask, ~past)
    np.testing.assert_allclose(shown.data[past], np.maximum(norms, 1e-3)[past])
    assert image.get_clim() == (1e-3, 1)
    for axis in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in axis] == list("to␣be␣or␣not")
    assert "h after reading" in ax.get_xlabel()
    assert "Loss" in ax.get_ylabel()
    assert_no_overlap(figure, [*ax.texts, *ax.get_xticklabels()])
    assert_no_overlap(figure, ax.get_yticklabels())


def test_other_gradients_layers_and_samples(items: Itemized) -> None:
    assert items.c is not None
    for options, want in [
        ({"of": "c", "layer": 0}, items.c[0, :, :, 0]),
        ({"of": "input", "sample": 1}, items.input[:9, :9, 1]),  # its own steps alone
        ({"layer": -2, "sample": 1}, items.h[0, :9, :9, 1]),
        ({"of": "weight_hh_l1", "sample": 1}, items.weights["weight_hh_l1"]),
    ]:
        figure, ax = plots.figure()
        plots.itemized_map(ax, items, **options)  # type: ignore[arg-type]
        shown = np.ma.asarray(ax.images[0].get_array()).filled(0)
        np.testing.assert_allclose(shown, np.maximum(want / want.max(), 1e-4) * np.tri(len(want)))
        png(figure)


def test_labels_that_do_not_fit_give_way_to_numbers() -> None:
    rnn = srnn.RNN(2, 3)
    items = itemized(rnn, rnn.forward(np.ones((200, 1, 2), np.float32)), np.ones((200, 1, 3), np.float32))
    figure, ax = plots.figure()
    plots.itemized_map(ax, items, ["m"] * 200)
    png(figure)
    texts = [label.get_text() for axis in (ax.get_xticklabels(), ax.get_yticklabels()) for label in axis]
    assert "m" not in texts
    assert "100" in texts


def test_nan_is_not_drawn(items: Itemized) -> None:
    norms = items.h.copy()
    norms[1, 7, 3, 0] = np.nan
    figure, ax = plots.figure()
    plots.itemized_map(ax, Itemized(**vars(items) | {"h": norms}))
    assert np.isnan(np.ma.asarray(ax.images[0].get_array()).data[7, 3])
    png(figure)


def test_shares_are_drawn_and_named() -> None:
    shares = {"far": 0.8 * 0.9 ** np.arange(31.0), "near": 0.3 * 0.5 ** np.arange(31.0), "flat": np.full(31, 0.5)}
    figure, ax = plots.figure()
    plots.share_beyond(ax, shares)
    curves = [line for line in ax.lines if len(np.asarray(line.get_xdata())) == 31]
    for line, share in zip(curves, shares.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), share)
    # 0.8 · 0.9^20 = 0.0973, 0.3 / 4 = 0.075
    assert [text.get_text() for text in ax.texts] == ["far: 10% beyond 20", "near: 8% beyond 2", "flat"]
    assert_no_overlap(figure, ax.texts)


def test_shares_below_zero_and_above_one_are_in_view() -> None:
    figure, ax = plots.figure()
    plots.share_beyond(ax, {"a": np.array([1.5, -0.5, np.nan])})
    low, high = ax.get_ylim()
    assert low <= -0.5 < 1.5 <= high
    png(figure)


ERRORS: list[tuple[Callable[[Axes, Itemized], Any], type[Exception], str]] = [
    (lambda ax, _: plots.itemized_map(ax, {}), TypeError, "items: expected what itemized"),  # type: ignore[arg-type]
    (lambda ax, i: plots.itemized_map(ax, i, ["a"]), ValueError, "labels: expected 12, .* got 1"),
    (lambda ax, i: plots.itemized_map(ax, i, sample=2), ValueError, "sample: expected an integer from 0 to 1; got 2"),
    (
        lambda ax, i: plots.itemized_map(ax, i, of="g"),
        ValueError,
        "of: expected one of h, c, input, weight_ih_l0, .*; got 'g'",
    ),
    (lambda ax, i: plots.itemized_map(ax, i, layer=2), ValueError, "layer: expected an integer from -2 to 1; got 2"),
    (lambda ax, i: plots.itemized_map(ax, i, bottom=1), ValueError, "bottom: expected a number below 1; got 1"),
    (lambda ax, _: plots.share_beyond(ax, {}), ValueError, "shares: expected at least one"),
    (lambda ax, _: plots.share_beyond(ax, {"a": np.ones((2, 2))}), ValueError, r"shares\['a'\]: .*\(2, 2\)"),
    (lambda ax, _: plots.share_beyond(ax, {"a": np.full(2, np.nan)}), ValueError, "with finite values"),
    (lambda ax, _: plots.share_beyond(ax, {"a": np.ones(2)}, mark=2), ValueError, "mark: expected a number between"),
]


@pytest.mark.parametrize(("draw", "error", "message"), ERRORS)
def test_bad_input(
    draw: Callable[[Axes, Itemized], Any], error: type[Exception], message: str, items: Itemized
) -> None:
    _, ax = plots.figure()
    with pytest.raises(error, match=message):
        draw(ax, items)


def test_no_cell_state_and_no_gradient(of_rnn: Itemized) -> None:
    _, ax = plots.figure()
    with pytest.raises(ValueError, match="of: expected 'h' or 'input' for an RNN"):
        plots.itemized_map(ax, of_rnn, of="c")
    with pytest.raises(ValueError, match="items: expected a finite norm above 0; got none"):
        plots.itemized_map(ax, Itemized(**vars(of_rnn) | {"h": np.zeros_like(of_rnn.h)}))
