"""Gradients by distance, and what truncation does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, describe
from scratchrnn.bptt import TruncationBias
from scratchrnn.gradflow.distance import check_threshold
from scratchrnn.plots._style import FAINT, MUTED, check_curves, colors_of, frame, style
from scratchrnn.plots._text import HALO, Name, name_ends, name_starts, whole_numbers

_DECADES = 1e-3  # what lies further below the threshold has nothing left to say


@style()
def gradient_by_distance(
    ax: Axes, norms: Mapping[str, FloatArray], *, threshold: float = 0.01, colors: Sequence[str] | None = None
) -> None:
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
    colors : sequence of str, optional
        One for each curve.

    Raises
    ------
    ValueError
        No curves, a curve of the wrong shape, or one that is 0 or not finite at distance 0.
    """
    check_curves("norms", norms)
    threshold = check_threshold(threshold)
    bottom, reach, lowest, highest = threshold * _DECADES, 1, 1.0, 1.0
    ends: list[Name] = []
    dots: list[Name] = []
    for (label, curve), color in zip(norms.items(), colors_of(norms, colors), strict=True):
        check_array(f"norms[{label!r}]", curve)
        if curve.ndim != 1 or not len(curve):
            raise ValueError(f"norms[{label!r}]: expected shape (T,), one norm for each distance; got {curve.shape}")
        if not (np.isfinite(curve[0]) and curve[0] > 0):
            raise ValueError(f"norms[{label!r}]: expected a finite norm above 0 at distance 0; got {curve[0]}")
        with np.errstate(over="ignore"):  # a gap, as where a norm is not finite
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
    frame(ax)
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
    ax.xaxis.set_major_locator(whole_numbers())
    name_ends(ax, ends)


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
    check_curves("biases", biases)
    ends: list[Name] = []
    for (label, bias), color in zip(biases.items(), colors_of(biases), strict=True):
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
    frame(ax)
    widest = max(len(label) for label in biases) * 0.7 * float(mpl.rcParams["font.size"])  # points
    share = min((widest + 12) * ax.figure.dpi / 72 / ax.get_window_extent().width, 0.6)
    low, high = np.log2(min(x for x, *_ in ends)), np.log2(max(float(bias.k2.max()) for bias in biases.values()))
    span = max(high - low, 1.0)
    ax.set_xlim(2.0 ** (low - span * share / (1 - share)), 2.0 ** (high + 0.03 * span))
    ax.set_xticks(sorted({float(k) for bias in biases.values() for k in bias.k2}))
    ax.minorticks_off()
    name_starts(ax, ends)


def _free_end(ax: Axes, marks: Sequence[Name], height: float) -> int:
    """1 if the right end of a line at `height` is free of these marks, else 0, the left end."""
    box = ax.get_window_extent()
    point = ax.figure.dpi / 72
    places = ax.transData.transform([(x, y) for x, y, _, _ in marks])
    above = (places[:, 1] - ax.transData.transform((0, height))[1]) / point
    taken = (places[:, 0] > box.x1 - 40 * point) & (above > -25) & (above < 20)
    return int(not taken.any())
