"""Figures: what is drawn where, that nothing overlaps or leaves the picture, and that nothing else changes."""

from __future__ import annotations

import io
import json
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.dynamics import Saturation, saturation
from scratchrnn.gradflow import effective_memory

ROOT = Path(__file__).resolve().parents[1]


def png(figure: Figure) -> bytes:
    """Rendered in whole: warnings, as of a missing glyph, are errors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def texts(ax: Axes) -> dict[str, Text]:
    return {text.get_text(): text for text in ax.texts}


def assert_no_overlap(figure: Figure, found: list[Text]) -> None:
    """No two of these texts touch, and all lie inside the picture."""
    png(figure)
    boxes = [(text.get_text(), text.get_window_extent()) for text in found]
    for n, (name, box) in enumerate(boxes):
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name
        for other, other_box in boxes[:n]:
            assert not box.overlaps(other_box), f"{name!r} touches {other!r}"


@pytest.fixture(scope="module")
def gates() -> Saturation:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(3, 20, rng=rng)
    for weight in lstm.parameters.values():
        weight *= 8
    return saturation(lstm.forward(rng.standard_normal((30, 4, 3)).astype(np.float32)))


@pytest.fixture(scope="module")
def tanh_net() -> Saturation:
    rng = np.random.default_rng(0)
    return saturation(srnn.RNN(3, 5, rng=rng).forward(rng.standard_normal((30, 4, 3)).astype(np.float32)))


# Loss curves


def test_loss_curves_are_averaged_and_named_at_their_end() -> None:
    rng = np.random.default_rng(1)
    steps = np.arange(10, 410, 2)
    values = {"RNN": 3 - steps / 200 + rng.standard_normal(200), "LSTM": np.full(200, 1.5)}
    figure, ax = plots.figure()
    plots.loss_curves(ax, {label: (steps, v) for label, v in values.items()}, smooth=5, ylabel="Loss (nats)")
    raw, mean, *_ = ax.lines
    np.testing.assert_array_equal(raw.get_ydata(), values["RNN"])
    np.testing.assert_array_equal(mean.get_xdata(), steps)
    averaged = [values["RNN"][max(0, n - 2) : n + 3].mean() for n in range(200)]
    np.testing.assert_allclose(np.asarray(mean.get_ydata(), float), averaged, rtol=1e-12)
    assert set(texts(ax)) == {f"RNN  {averaged[-1]:.2f}", "LSTM  1.50"}
    assert to_hex(texts(ax)["LSTM  1.50"].get_color()).upper() == plots.VERMILION
    assert ax.get_ylabel() == "Loss (nats)"
    assert ax.get_legend() is None
    assert_no_overlap(figure, ax.texts)


def test_unsmoothed_loss_is_one_line_and_nan_a_gap() -> None:
    figure, ax = plots.figure()
    plots.loss_curves(ax, {"a": ([0, 1, 2, 3], [4.0, np.nan, 2.0, np.inf])}, smooth=1)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), [4, np.nan, 2, np.nan])
    assert list(texts(ax)) == ["a  2.00"]
    png(figure)


def test_a_gap_does_not_spread_in_the_average() -> None:
    _, ax = plots.figure()
    plots.loss_curves(ax, {"a": (np.arange(6), [3.0, 3, np.nan, 3, 3, 3])}, smooth=3)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [3, 3, np.nan, 3, 3, 3])


def test_names_keep_the_order_of_their_lines_and_their_distance() -> None:
    x = np.arange(300)
    ends = {"middle": 2.0, "top": 2.001, "bottom": 1.999, "far away": 3.0}
    figure, ax = plots.figure()
    plots.loss_curves(ax, {label: (x, end + np.exp(-x / 50)) for label, end in ends.items()})
    assert_no_overlap(figure, ax.texts)
    heights = {text.split("  ")[0]: found.get_window_extent().y0 for text, found in texts(ax).items()}
    assert sorted(heights, key=heights.__getitem__) == ["bottom", "middle", "top", "far away"]


# Gradient by distance


def test_gradient_is_relative_to_distance_0_with_the_horizon_marked() -> None:
    figure, ax = plots.figure()
    distance = np.arange(100.0)
    plots.gradient_by_distance(ax, {"RNN": 7 * 0.6**distance, "LSTM": 0.02 * 0.98**distance})
    curves = [line for line in ax.lines if len(np.asarray(line.get_xdata())) == 100]
    np.testing.assert_allclose(np.asarray(curves[0].get_ydata(), float), 0.6**distance)
    np.testing.assert_allclose(np.asarray(curves[1].get_ydata(), float), 0.98**distance)
    assert ax.get_yscale() == "log"
    # 0.6^9 = 0.0101 and 0.98^99 = 0.135: the end of what was measured
    assert set(texts(ax)) == {"RNN", "LSTM", "9", "99+", "0.01"}
    (limit,) = [line for line in ax.lines if np.asarray(line.get_ydata()).tolist() == [0.01, 0.01]]
    assert limit.get_linestyle() == "--"
    assert "istance" in ax.get_xlabel()
    assert_no_overlap(figure, ax.texts)


def test_gradient_axis_ends_with_what_is_left_to_see() -> None:
    _, ax = plots.figure()
    plots.gradient_by_distance(ax, {"a": 0.1 ** np.arange(100.0)}, threshold=0.1)
    assert ax.get_xlim() == (0, 4)  # down to a thousandth of the threshold
    assert 1e-5 < ax.get_ylim()[0] <= 1e-4
    _, ax = plots.figure()
    plots.gradient_by_distance(ax, {"a": 2.0 ** np.arange(50.0)})
    assert ax.get_ylim()[1] > 2.0**49
    assert ax.get_ylim()[0] < 0.01


def test_steep_curves_side_by_side_keep_their_names_apart() -> None:
    figure, ax = plots.figure()
    distance = np.arange(100.0)
    slopes = {"RNN": 0.5, "LSTM": 0.55, "LSTM, forget bias 1": 0.86, "LSTM, forget bias 3": 0.99}
    plots.gradient_by_distance(ax, {label: slope**distance for label, slope in slopes.items()})
    assert_no_overlap(figure, ax.texts)
    rnn, lstm = (texts(ax)[label].get_window_extent() for label in ("RNN", "LSTM"))
    leaves = ax.transData.transform((np.log(1e-5) / np.log(0.5), 1e-5))[0]
    assert rnn.x1 < leaves < lstm.x0  # one on either side of the steeper curve
    assert rnn.y0 == pytest.approx(lstm.y0, abs=8)  # so neither has to give way


def test_names_fit_a_narrow_figure() -> None:
    figure, ax = plots.figure(3.75, 3.8)
    distance = np.arange(60.0)
    plots.gradient_by_distance(ax, {"RNN": 0.7**distance, "LSTM": 0.95**distance})
    assert_no_overlap(figure, ax.texts)


def test_gradient_of_a_real_measurement_with_zeros_and_infinities() -> None:
    rng = np.random.default_rng(2)
    memory = effective_memory(srnn.LSTM(4, 8, rng=rng), seq_length=30, num_trials=4, rng=rng)
    figure, ax = plots.figure()
    cut = np.array([1.0, 0.5, 0.0, 0.0])
    plots.gradient_by_distance(ax, {"LSTM": memory.by_distance, "cut": cut, "inf": np.array([1.0, 9.0, np.inf])})
    assert f"{memory.horizon}" in texts(ax)
    png(figure)


# Hidden states


def test_hidden_states_map() -> None:
    rng = np.random.default_rng(3)
    states = np.tanh(rng.standard_normal((6, 4)))
    figure, ax = plots.figure()
    plots.hidden_states(ax, states, list("to be\n"), name="h")
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), states.T)
    assert image.get_clim() == (-1, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == list("to␣be⏎")
    assert figure.axes[1].get_ylabel() == "h"
    assert_no_overlap(figure, ax.get_xticklabels())
    lightness = np.array([sum(to_rgb(image.cmap(v))) for v in (0.0, 0.5, 1.0)])
    assert lightness[1] > 2 * lightness[[0, 2]].max()  # both ends dark, zero light


def test_limits_are_symmetric_and_follow_the_data_beyond_one() -> None:
    for states, limit, bounds in [
        (np.array([[0.2, -3.5], [1.0, 2.0]]), None, (-3.5, 3.5)),
        (np.array([[0.2, -0.5]]), None, (-1, 1)),
        (np.array([[0.2, -0.5]]), 0.5, (-0.5, 0.5)),
        (np.array([[np.nan, -2.0], [np.inf, 0.0]]), None, (-2, 2)),
    ]:
        figure, ax = plots.figure()
        plots.hidden_states(ax, states, limit=limit)
        assert ax.images[0].get_clim() == bounds
        png(figure)


def test_labels_shrink_and_then_give_way_to_step_numbers() -> None:
    sizes = []
    for steps in (10, 60, 300):
        figure, ax = plots.figure()
        plots.hidden_states(ax, np.zeros((steps, 3)), ["m"] * steps)
        found = ax.get_xticklabels()
        if found[0].get_text() == "m":
            assert_no_overlap(figure, found)
            sizes.append(found[0].get_fontsize())
        else:
            assert ax.get_xlabel() == "Time step"
    assert len(sizes) == 2
    assert sizes[0] == 10 > sizes[1] > 5


def test_words_stand_upright_and_dollars_are_no_formula() -> None:
    figure, ax = plots.figure()
    plots.hidden_states(ax, np.zeros((4, 3)), ["the", "$x$", "a_b", "\\alpha"])
    found = ax.get_xticklabels()
    assert [label.get_text() for label in found] == ["the", "$x$", "a_b", "\\alpha"]
    assert {label.get_rotation() for label in found} == {90}
    assert not any(label.get_parse_math() for label in found)
    png(figure)


def test_visible_shows_every_character_as_one_sign_that_the_font_has() -> None:
    plain = string.ascii_letters + string.digits + string.punctuation
    assert plots.visible(plain) == plain
    assert plots.visible(" \u00a0\n\t\r") == "␣␣⏎⇥↵"
    assert plots.visible("é\u0301\x00\u200b\ud800漢🙂") == "é□□□□" + plots.visible("漢") + plots.visible("🙂")
    every = [chr(n) for n in range(0x3000)]
    figure, ax = plots.figure(9, 3)
    for start in range(0, len(every), 64):
        ax.text(0, 0, plots.visible("".join(every[start : start + 64])), parse_math=False)
    png(figure)  # a glyph that is missing is a warning, and warnings are errors


# Saturation


def test_gates_stand_at_their_shares(gates: Saturation) -> None:
    figure, ax = plots.figure(5, 5)
    plots.saturation_gates(ax, gates)
    for points, name in zip(ax.collections, "ifo", strict=True):
        expected = np.stack([gates.gates[name].right, gates.gates[name].left], axis=1)
        np.testing.assert_array_equal(np.asarray(points.get_offsets()), expected)
    assert "open" in ax.get_xlabel()
    assert "0.9" in ax.get_xlabel()
    assert "closed" in ax.get_ylabel()
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["input gate", "forget gate", "output gate"]
    assert len({tuple(points.get_facecolor()[0]) for points in ax.collections}) == 3
    png(figure)


def test_bars_are_the_shares(gates: Saturation, tanh_net: Saturation) -> None:
    figure, ax = plots.figure(7, 4)
    plots.saturation_bars(ax, {"RNN": tanh_net, "LSTM": gates})
    rows = [label.get_text() for label in ax.get_yticklabels()]
    quantities = ["RNN h", "LSTM h", "LSTM tanh c", "LSTM input gate", "LSTM forget gate", "LSTM output gate"]
    assert rows == quantities
    assert gates.tanh_c is not None
    ends = [tanh_net.h, gates.h, gates.tanh_c, *gates.gates.values()]
    blue, red = ([p for p in ax.patches if to_hex(p.get_facecolor()).upper() == c] for c in (plots.LOW, plots.HIGH))
    assert [bar.get_width() for bar in blue] == [end.left_share for end in ends]
    assert [bar.get_x() for bar in blue] == [0] * 6
    np.testing.assert_allclose([-bar.get_width() for bar in red], [end.right_share for end in ends], atol=1e-12)
    assert [bar.get_x() for bar in red] == [1] * 6
    percents = [f"{share:.0%}" for end in ends for share in (end.left_share, end.right_share)]
    assert [text.get_text() for text in ax.texts][:12] == percents
    assert_no_overlap(figure, ax.texts)


# Style, state, errors


def draw_everything(gates: Saturation) -> None:
    draws: list[Callable[[Axes], None]] = [
        lambda ax: plots.loss_curves(ax, {"a": ([0, 1], [2.0, 1.0])}),
        lambda ax: plots.gradient_by_distance(ax, {"a": np.array([1.0, 0.1])}),
        lambda ax: plots.hidden_states(ax, np.zeros((3, 2)), list("abc")),
        lambda ax: plots.saturation_gates(ax, gates),
        lambda ax: plots.saturation_bars(ax, {"a": gates}),
    ]
    for draw in draws:
        figure = Figure()  # not made in our style
        draw(figure.subplots())
        png(figure)


def test_matplotlibs_settings_are_left_alone(gates: Saturation) -> None:
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        draw_everything(gates)
        with plots.style():
            assert mpl.rcParams["axes.spines.top"] is False
            assert mpl.rcParams["font.family"][0] == "DejaVu Sans"
        with pytest.raises(ValueError, match="boom"), plots.style():
            raise ValueError("boom")
        assert dict(mpl.rcParams) == before


def test_pictures_do_not_change_from_run_to_run(gates: Saturation) -> None:
    pictures = []
    for _ in range(2):
        figure, ax = plots.figure(5, 5)
        plots.saturation_gates(ax, gates)
        pictures.append(png(figure))
    assert pictures[0] == pictures[1]
    assert pictures[0][16:24] == (500).to_bytes(4, "big") * 2  # 5 inches of 100 pixels


PYPLOT_FREE = """
import json, sys
import numpy as np
from scratchrnn import plots
figure, ax = plots.figure()
plots.gradient_by_distance(ax, {"a": np.array([1.0, 0.1])})
figure.savefig(sys.argv[1])
print(json.dumps("matplotlib.pyplot" in sys.modules))
"""


def test_no_pyplot(tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    done = subprocess.run(
        [sys.executable, "-c", PYPLOT_FREE, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) is False
    assert out.stat().st_size > 1000


ERRORS: list[tuple[Callable[[Axes], Any], type[Exception], str]] = [
    (lambda ax: plots.loss_curves(ax, {}), ValueError, "curves: expected at least one"),
    (lambda ax: plots.loss_curves(ax, [1, 2]), TypeError, "curves: expected a mapping"),  # type: ignore[arg-type]
    (lambda ax: plots.loss_curves(ax, {"a": ([1, 2], [1.0])}), ValueError, r"curves\['a'\]: .* got \(2,\) and \(1,\)"),
    (lambda ax: plots.loss_curves(ax, {"a": ([1], [np.nan])}), ValueError, "at least one finite value"),
    (lambda ax: plots.loss_curves(ax, {"a": ([1], [1.0])}, smooth=0), ValueError, "smooth"),
    (lambda ax: plots.gradient_by_distance(ax, {}), ValueError, "norms: expected at least one"),
    (lambda ax: plots.gradient_by_distance(ax, {"a": np.ones((2, 2))}), ValueError, r"norms\['a'\]: .*\(2, 2\)"),
    (lambda ax: plots.gradient_by_distance(ax, {"a": np.zeros(2)}), ValueError, "a finite norm above 0"),
    (lambda ax: plots.gradient_by_distance(ax, {"a": np.ones(2)}, threshold=2), ValueError, "threshold"),
    (lambda ax: plots.hidden_states(ax, np.zeros((2, 1, 3))), ValueError, r"states: expected shape \(T, H\)"),
    (lambda ax: plots.hidden_states(ax, np.zeros((2, 3)), ["a"]), ValueError, "labels: expected 2, .* got 1"),
    (lambda ax: plots.hidden_states(ax, np.full((2, 3), np.nan)), ValueError, "states: expected finite values"),
    (lambda ax: plots.hidden_states(ax, np.zeros((2, 3)), limit=0), ValueError, "limit"),
    (lambda ax: plots.saturation_gates(ax, {}), TypeError, "saturation: expected what"),  # type: ignore[arg-type]
    (lambda ax: plots.saturation_bars(ax, {}), ValueError, "saturations: expected at least one"),
    (lambda ax: plots.figure(0, 3), ValueError, "width"),
]


@pytest.mark.parametrize(("draw", "error", "message"), ERRORS)
def test_bad_input(draw: Callable[[Axes], Any], error: type[Exception], message: str) -> None:
    _, ax = plots.figure()
    with pytest.raises(error, match=message):
        draw(ax)


def test_gates_of_a_net_without_gates_and_limits_that_differ(gates: Saturation, tanh_net: Saturation) -> None:
    _, ax = plots.figure()
    with pytest.raises(ValueError, match="saturation: expected that of an LSTM"):
        plots.saturation_gates(ax, tanh_net)
    rnn = srnn.RNN(2, 3)
    other = saturation(rnn.forward(np.zeros((4, 1, 2), np.float32)), threshold=0.5)
    with pytest.raises(ValueError, match="saturations: expected one threshold, low and high for all"):
        plots.saturation_bars(ax, {"a": gates, "b": other})


# --- truncation


def test_truncation_bias_is_drawn_as_it_is() -> None:
    rng = np.random.default_rng(0)
    layer = srnn.LSTM(3, 6, rng=rng, dtype=np.float64)
    x, d_output = rng.standard_normal((32, 2, 3)), rng.standard_normal((32, 2, 6))
    near = srnn.bptt.truncation_bias(layer, x, d_output, k2=(8, 1, 2, 32))
    far = srnn.bptt.truncation_bias(layer, x, 0.99 * d_output, k2=(1, 4, 16))
    figure, ax = plots.figure()
    plots.truncation_bias(ax, {"near": near, "far": far, "a third of a longer name": near})
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [1, 2, 8, 32]
    assert line.get_ydata() == pytest.approx(np.degrees(np.arccos(np.minimum(near.cosine, 1)))[[1, 2, 0, 3]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "4", "8", "16", "32"]
    names = texts(ax)
    assert set(names) == {"near", "far", "a third of a longer name"}  # all three begin at the same place
    assert_no_overlap(figure, list(names.values()))
    with pytest.raises(TypeError, match=r"biases\['x'\]: expected what truncation_bias\(\) returned"):
        plots.truncation_bias(ax, {"x": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="biases: expected at least one entry"):
        plots.truncation_bias(ax, {})
