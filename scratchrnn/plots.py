"""Figures: each function draws one result on axes that the caller gives, and changes nothing else.

    with plots.style():
        figure, axes = plots.figure()
        plots.gradient_by_distance(axes, {"RNN": rnn_norms, "LSTM": lstm_norms})
        figure.savefig("gradients.png")

No pyplot: figures need no display and are freed like any other object. Colours are those of Okabe and Ito, which people
with any common colour blindness can tell apart, and lines carry their names, so that no legend is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from scratchrnn._plot_text import HALO, UNKNOWN, Name, families, label_steps, name_ends, name_starts, visible
from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_positive_int, check_real, describe
from scratchrnn.bptt import TruncationBias
from scratchrnn.dynamics import Ends, Saturation
from scratchrnn.gradflow.distance import check_threshold

__all__ = [
    "UNKNOWN",
    "figure",
    "gradient_by_distance",
    "hidden_states",
    "loss_curves",
    "saturation_bars",
    "saturation_gates",
    "style",
    "truncation_bias",
    "visible",
]

# Okabe & Ito, Color universal design, 2008; the yellow is too pale for lines on white
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
# ends of a range, in the hues of no line (Tol, Colour schemes, 2021, "muted"); white can be read on both
LOW, HIGH = "#117733", "#AA4499"
INK, MUTED, FAINT, TRACK = "#333333", "#777777", "#BBBBBB", "#E6E6E6"

_RC: dict[str, Any] = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.family": families(),
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titlepad": 10,
    "axes.prop_cycle": cycler(color=PALETTE),
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
_GATES = {"i": "input", "f": "forget", "o": "output"}
_DECADES = 1e-3  # what lies further below the threshold has nothing left to say


@contextmanager
def style() -> Iterator[None]:
    """Use the look of these figures inside a `with` block; matplotlib's settings are as before afterwards.

    The functions here use it by themselves. Create figure and axes inside as well, or with `figure`.
    """
    with mpl.rc_context(_RC):  # type: ignore[arg-type]
        yield


@style()
def figure(width: float = 7.0, height: float = 3.6) -> tuple[Figure, Axes]:
    """Create a figure of `width` by `height` inches, 100 pixels each, with one axes and the look of `style`."""
    made = Figure(figsize=(check_real("width", width, above=0), check_real("height", height, above=0)))
    return made, made.subplots()


@style()
def loss_curves(
    ax: Axes,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    smooth: int | None = None,
    ylabel: str = "Loss",
) -> None:
    """Draw losses over training: each value faintly, their moving average as a line with its last value at the end.

    Parameters
    ----------
    ax : matplotlib Axes
    curves : mapping of label to (steps (N,), values (N,))
        A value that is not finite leaves a gap.
    smooth : int, optional
        Values in the moving average, which is centred and shorter at both ends. When absent, a fiftieth of the curve;
        1 for none.
    ylabel : str

    Raises
    ------
    ValueError
        No curves, steps and values of different lengths, or a curve without a finite value.
    """
    _check_curves("curves", curves)
    ends: list[Name] = []
    for (label, (steps, values)), color in zip(curves.items(), _colors(curves), strict=True):
        x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"curves[{label!r}]: expected steps and values (N,); got {x.shape} and {y.shape}")
        y = np.where(np.isfinite(y), y, np.nan)
        if np.isnan(y).all():
            raise ValueError(f"curves[{label!r}]: expected at least one finite value; got none among {len(y)}")
        window = max(1, len(y) // 50) if smooth is None else check_positive_int("smooth", smooth)
        mean = _moving_average(y, window)
        if window > 1:
            ax.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
        ax.plot(x, mean, color=color)
        last = int(np.flatnonzero(~np.isnan(y))[-1])
        ends.append((float(x[last]), float(mean[last]), f"{label}  {mean[last]:.2f}", color))
    _frame(ax)
    ax.set_xlabel("Training step")
    ax.set_ylabel(ylabel)
    ax.margins(x=0)
    name_ends(ax, ends)


@style()
def gradient_by_distance(ax: Axes, norms: Mapping[str, FloatArray], *, threshold: float = 0.01) -> None:
    """Draw gradient norms against the distance from the last step, relative to distance 0, on a logarithmic axis.

    A dot and a number mark the last distance at which a curve is still at least `threshold`, with a + where that is the
    end of what was measured. What falls far below is cut off.

    Parameters
    ----------
    ax : matplotlib Axes
    norms : mapping of label to ndarray (T,)
        Index k is distance k, as `EffectiveMemory.by_distance` and the arrays of `GradientByDistance` have it.
    threshold : float
        Between 0 and 1, both excluded.

    Raises
    ------
    ValueError
        No curves, a curve of the wrong shape, or one that is 0 or not finite at distance 0.
    """
    _check_curves("norms", norms)
    threshold = check_threshold(threshold)
    bottom, reach, lowest, highest = threshold * _DECADES, 1, 1.0, 1.0
    ends: list[Name] = []
    dots: list[Name] = []
    for (label, curve), color in zip(norms.items(), _colors(norms), strict=True):
        check_array(f"norms[{label!r}]", curve)
        if curve.ndim != 1 or not len(curve):
            raise ValueError(f"norms[{label!r}]: expected shape (T,), one norm for each distance; got {curve.shape}")
        if not (np.isfinite(curve[0]) and curve[0] > 0):
            raise ValueError(f"norms[{label!r}]: expected a finite norm above 0 at distance 0; got {curve[0]}")
        ratio = curve.astype(np.float64) / float(curve[0])
        shown = np.isfinite(ratio) & (ratio >= bottom)
        drawn = np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)
        ax.plot(np.arange(len(ratio)), drawn, color=color)
        last, horizon = int(np.flatnonzero(shown)[-1]), int(np.flatnonzero(shown & (ratio >= threshold))[-1])
        ax.plot(horizon, ratio[horizon], "o", color=color, markersize=6, zorder=3, clip_on=False)
        more = "+" if horizon == len(ratio) - 1 else ""
        dots.append((horizon, float(ratio[horizon]), f"{horizon}{more}", color))
        ends.append((last, float(ratio[last]), label, color))
        reach = max(reach, last)
        lowest, highest = min(lowest, ratio[shown].min()), max(highest, ratio[shown].max())
    _frame(ax)
    ax.set_yscale("log")
    ax.set_xlim(0, reach)
    ax.set_ylim(max(bottom, min(lowest, threshold) / 3), highest * 2)
    ax.axhline(threshold, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    side = _free_end(ax, dots + ends, threshold)
    ax.annotate(
        f"{threshold:.3g}", (side, threshold), (0 if side else 3, 3), xycoords=ax.get_yaxis_transform(),
        textcoords="offset points", ha="right" if side else "left", color=MUTED, path_effects=HALO,
    )  # fmt: skip
    for n, (x, y, text, color) in enumerate(sorted(dots)):
        # the curve of the shortest horizon leaves room below it, the others above; at the right edge stands a name
        edge = x == reach
        below = n == 0 and len(dots) > 1 and not edge
        ax.annotate(
            text, (x, y), (-5 if below or edge else 5, -5 if below else 5), textcoords="offset points", color=color,
            weight="bold", ha="right" if below or edge else "left", va="top" if below else "bottom",
            path_effects=HALO,
        )  # fmt: skip
    ax.set_xlabel("Distance from the last step (time steps)")
    ax.set_ylabel("Gradient norm, relative\nto the last step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_ends(ax, ends)


@style()
def hidden_states(
    ax: Axes,
    states: FloatArray,
    labels: Sequence[str] | None = None,
    *,
    limit: float | None = None,
    name: str = "Activation",
) -> None:
    """Draw one sequence's states as a map: time to the right, units down, blue below 0, white at 0, red above.

    Parameters
    ----------
    ax : matplotlib Axes
        A colour bar is added beside it.
    states : ndarray (T, H)
        Such as `trace.h[1:, 0]` or `trace.c[1:, 0]`. NaN is drawn grey.
    labels : sequence of str (T,), optional
        What was read at each step, such as its character; see `visible`. They are set as large as they fit, and left
        out for step numbers where not even small ones fit.
    limit : float, optional
        The colours span -limit to limit. When absent: 1 if all |states| <= 1, as in any tanh or LSTM h, else the
        largest |states|.
    name : str
        For the colour bar.

    Raises
    ------
    ValueError
        States of another rank, labels of another number, or nothing finite to draw.
    """
    check_array("states", states)
    if states.ndim != 2 or not states.size:
        raise ValueError(f"states: expected shape (T, H), one sequence; got {states.shape}")
    if labels is not None and len(labels) != len(states):
        raise ValueError(f"labels: expected {len(states)}, one for each step; got {len(labels)}")
    finite = np.abs(states[np.isfinite(states)])
    if not finite.size:
        raise ValueError("states: expected finite values; got none")
    bound = max(1.0, float(finite.max())) if limit is None else check_real("limit", limit, above=0)
    colors = mpl.colormaps["RdBu_r"].with_extremes(bad="#888888")
    image = ax.imshow(states.T, cmap=colors, vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_ylabel("Hidden unit")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_ticks([-bound, 0, bound], labels=[f"−{bound:.3g}", "0", f"{bound:.3g}"])
    bar.set_label(name)
    bar.outline.set_visible(False)
    if labels is None or not label_steps(ax, [visible(text) for text in labels]):
        ax.set_xlabel("Time step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


@style()
def saturation_gates(ax: Axes, saturation: Saturation) -> None:
    """Draw each gate of each unit at the shares of time that it is open and closed (Karpathy et al. 2015, figure 2).

    The two shares add up to 1 at most: the diagonal. A gate in the lower left corner is never at an end.

    Parameters
    ----------
    ax : matplotlib Axes
    saturation : Saturation
        Of an LSTM.

    Raises
    ------
    ValueError
        It has no gates.
    """
    _check_saturation("saturation", saturation)
    if not saturation.gates:
        raise ValueError("saturation: expected that of an LSTM; got one without gates")
    ax.plot([0, 1], [1, 0], color=FAINT, linewidth=1, zorder=1)
    ax.text(0.5, 0.53, "always open or closed", rotation=-45, color=MUTED, ha="center", va="center")
    for (gate, ends), color, marker in zip(saturation.gates.items(), (ORANGE, BLUE, GREEN), "s^o", strict=True):
        ax.scatter(
            ends.right, ends.left, s=26, color=color, marker=marker, alpha=0.7, linewidths=0, clip_on=False,
            label=f"{_GATES[gate]} gate", zorder=2,
        )  # fmt: skip
    _frame(ax)
    ax.set_aspect("equal")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel(f"Share of time open (> {saturation.high:g})")
    ax.set_ylabel(f"Share of time closed (< {saturation.low:g})")
    ax.legend(loc="upper right", frameon=False, handletextpad=0.2)


@style()
def saturation_bars(ax: Axes, saturations: Mapping[str, Saturation]) -> None:
    """Draw for each net how much of the time h, and an LSTM's gates and tanh(c), sit at either end of their range.

    Parameters
    ----------
    ax : matplotlib Axes
    saturations : mapping of label to Saturation

    Raises
    ------
    ValueError
        There are none, or their limits differ.
    """
    _check_curves("saturations", saturations)
    rows: list[tuple[float, str, Ends]] = []
    at = 0.0
    for label, saturation in saturations.items():
        _check_saturation(f"saturations[{label!r}]", saturation)
        parts = {"h": saturation.h, "tanh c": saturation.tanh_c}
        parts |= {f"{_GATES[gate]} gate": ends for gate, ends in saturation.gates.items()}
        for name, ends in parts.items():
            if ends is not None:
                rows.append((at, f"{label} {name}", ends))
                at += 1
        at += 0.4  # between nets
    limits = {(one.threshold, one.low, one.high) for one in saturations.values()}
    if len(limits) > 1:
        raise ValueError(f"saturations: expected one threshold, low and high for all; got {sorted(limits)}")
    _frame(ax)
    ax.set_yticks([at for at, _, _ in rows], [label for _, label, _ in rows])
    ax.set_ylim(rows[-1][0] + 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xticks([])
    whole = ax.figure.canvas.figure
    if (engine := whole.get_layout_engine()) is not None:
        engine.execute(whole)  # how long the bars are decides what can be written on them
    points = ax.get_window_extent().width * 72 / whole.dpi
    for at, _, ends in rows:
        ax.barh(at, 1, color=TRACK, height=0.75)
        for share, edge, sign, color in ((ends.left_share, 0.0, 1, LOW), (ends.right_share, 1.0, -1, HIGH)):
            ax.barh(at, sign * share, left=edge, color=color, height=0.75)
            inside = share * points > 8 + 0.75 * mpl.rcParams["font.size"] * len(f"{share:.0%}")
            ax.annotate(
                f"{share:.0%}", (edge if inside else edge + sign * share, at), (sign * 5, 0),
                textcoords="offset points", color="white" if inside else color, weight="bold",
                ha="left" if sign > 0 else "right", va="center",
            )  # fmt: skip
    threshold, low, high = limits.pop()
    for edge, side, text, color in (
        (0.0, "left", f"lower end (< −{threshold:g}; gate < {low:g})", LOW),
        (1.0, "right", f"upper end (> {threshold:g}; gate > {high:g})", HIGH),
    ):
        ax.annotate(
            text, (edge, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", color=color, weight="bold",
            ha=side,
        )  # fmt: skip


@style()
def truncation_bias(ax: Axes, biases: Mapping[str, TruncationBias]) -> None:
    """Draw the angle between truncated and full gradient over k2, a line for each entry.

    Parameters
    ----------
    ax : matplotlib Axes
    biases : mapping of label to TruncationBias
        As `scratchrnn.bptt.truncation_bias` returns them. An angle that is not a number leaves a gap.

    Raises
    ------
    ValueError, TypeError
        No entries, or one that is something else.
    """
    _check_curves("biases", biases)
    ends: list[Name] = []
    for (label, bias), color in zip(biases.items(), _colors(biases), strict=True):
        if not isinstance(bias, TruncationBias):
            raise TypeError(f"biases[{label!r}]: expected what truncation_bias() returned; got {describe(bias)}")
        order = np.argsort(bias.k2)
        k2, angle = bias.k2[order], bias.angle[order]
        ax.plot(k2, angle, color=color, marker="o", markersize=4)
        ends.append((float(k2[0]), float(angle[0]), label, color))
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter("{x:g}°")
    ax.set_xlabel("Steps that the truncated gradient reaches back (k2)")
    ax.set_ylabel("Angle to the full gradient")
    _frame(ax)
    widest = max(len(label) for label in biases) * 0.7 * float(mpl.rcParams["font.size"])  # points
    share = min((widest + 12) * ax.figure.dpi / 72 / ax.get_window_extent().width, 0.6)
    low, high = np.log2(min(x for x, *_ in ends)), np.log2(max(float(bias.k2.max()) for bias in biases.values()))
    span = max(high - low, 1.0)
    ax.set_xlim(2.0 ** (low - span * share / (1 - share)), 2.0 ** (high + 0.03 * span))
    ax.set_xticks(sorted({float(k) for bias in biases.values() for k in bias.k2}))
    ax.minorticks_off()
    name_starts(ax, ends)


def _colors(curves: Mapping[str, Any]) -> list[str]:
    return [PALETTE[n % len(PALETTE)] for n in range(len(curves))]


def _check_curves(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of label to data; got {describe(value)}")
    if not value:
        raise ValueError(f"{name}: expected at least one entry; got none")


def _check_saturation(name: str, value: Any) -> None:
    if not isinstance(value, Saturation):
        raise TypeError(f"{name}: expected what saturation() returned; got {describe(value)}")


def _moving_average(y: FloatArray, window: int) -> FloatArray:
    """Centred mean over what is not NaN; NaN where y is."""
    known = ~np.isnan(y)
    box = np.ones(min(window, len(y)))
    total = np.convolve(np.where(known, y, 0.0), box, "same")
    count = np.convolve(known.astype(np.float64), box, "same")
    return np.where(known, total / np.maximum(count, 1), np.nan)


def _free_end(ax: Axes, marks: Sequence[Name], height: float) -> int:
    """1 if the right end of a line at `height` is free of these marks, else 0, the left end."""
    box = ax.get_window_extent()
    point = ax.figure.dpi / 72
    places = ax.transData.transform([(x, y) for x, y, _, _ in marks])
    above = (places[:, 1] - ax.transData.transform((0, height))[1]) / point
    taken = (places[:, 0] > box.x1 - 40 * point) & (above > -25) & (above < 20)
    return int(not taken.any())


def _frame(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
