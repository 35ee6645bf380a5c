"""The two paths of an LSTM's gradient: the cells alone against everything, by distance and by lag."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int, describe
from scratchrnn.gradflow.paths import ForgetProduct, PathsByDistance
from scratchrnn.plots._style import BLUE, MUTED, VERMILION, frame, style
from scratchrnn.plots._text import Name, name_ends, whole_numbers


@style()
def gradient_paths(ax: Axes, paths: PathsByDistance, *, layer: int = 0) -> None:
    """Draw the norm of dL/dc by distance, in total and along the cells alone, relative to the total at distance 0.

    A dot marks the first distance at which the cell path's norm is below half the total's; the number stands beside.

    Parameters
    ----------
    ax : matplotlib Axes
    paths : PathsByDistance
        As `split_paths(...).by_distance()` returns it.
    layer : int
        From 0.

    Raises
    ------
    TypeError
        Not a PathsByDistance.
    ValueError
        No such layer, or a total that is 0 or not finite at distance 0.
    """
    if not isinstance(paths, PathsByDistance):
        raise TypeError(f"paths: expected what by_distance() of a split returned; got {describe(paths)}")
    n = check_int("layer", layer, least=0, most=len(paths.total) - 1)
    first = paths.total[n, 0]
    if not (np.isfinite(first) and first > 0):
        raise ValueError(f"paths: expected a finite norm above 0 at distance 0; got {first}")
    with np.errstate(over="ignore"):  # a gap, as where a norm is not finite
        total, alone = paths.total[n] / first, paths.c_path[n] / first
    ends = _two_curves(ax, (total, "total"), (alone, "along the cells alone"))
    below = np.flatnonzero(alone < total / 2)
    if len(below) and alone[below[0]] > 0:
        k, (x, y, _, _) = int(below[0]), ends[-1]
        ax.plot(k, alone[k], "o", color=VERMILION, markersize=6, zorder=3, clip_on=False)
        ends.insert(0, (x, y, f"under half from {k} on", VERMILION))  # before the curve's name: below it
    ax.set_xlabel("Distance from the last step (time steps)")
    ax.set_ylabel("Norm of dL/dc, relative to\nthe total at the last step")
    name_ends(ax, ends)


@style()
def forget_product(ax: Axes, found: ForgetProduct, *, layer: int = 0) -> None:
    """Draw the norm of dc_T/dc_{T-k} by lag k, and that of the product of forget gates, on a logarithmic axis.

    A thin line at the last lag at which both are above 0 says how many times too small, or too large, the product is.

    Parameters
    ----------
    ax : matplotlib Axes
    found : ForgetProduct
        As `scratchrnn.gradflow.forget_product` returns it.
    layer : int
        From 0.

    Raises
    ------
    TypeError
        Not a ForgetProduct.
    ValueError
        No such layer.
    """
    if not isinstance(found, ForgetProduct):
        raise TypeError(f"found: expected what forget_product() returned; got {describe(found)}")
    n = check_int("layer", layer, least=0, most=len(found.truth) - 1)
    truth, product = found.truth[n], found.product[n]
    ends = _two_curves(ax, (truth, "through every path"), (product, "product of forget gates"))
    both = np.flatnonzero(np.isfinite(truth) & np.isfinite(product) & (truth > 0) & (product > 0))
    if len(both) and both[-1] > 0:
        k = int(both[-1])
        ax.plot([k, k], [product[k], truth[k]], color=MUTED, linewidth=1, zorder=1, clip_on=False)
        power = float(abs(np.log10(truth[k]) - np.log10(product[k])))  # the quotient may be beyond float64
        said = f"{_times(power)} times too {'small' if product[k] < truth[k] else 'large'}"
        if power > np.log10(1.05):
            ends.append((k, float(np.sqrt(truth[k]) * np.sqrt(product[k])), said, MUTED))
    ax.set_xlabel("Lag k (time steps)")
    ax.set_ylabel("Norm of dc$_T$ / dc$_{T-k}$")
    name_ends(ax, ends)


def _two_curves(ax: Axes, upper: tuple[FloatArray, str], lower: tuple[FloatArray, str]) -> list[Name]:
    """Draw two curves over 0, 1, 2, ..., gaps where one is not finite or not above 0; where their names belong."""
    ends: list[Name] = []
    for (curve, label), color in ((upper, BLUE), (lower, VERMILION)):
        drawn = np.where(np.isfinite(curve) & (curve > 0), curve, np.nan)
        ax.plot(np.arange(len(curve)), drawn, color=color)
        seen = np.flatnonzero(~np.isnan(drawn))
        if len(seen):
            ends.append((float(seen[-1]), float(drawn[seen[-1]]), label, color))
    frame(ax)
    ax.set_yscale("log")
    ax.set_xlim(0, max(len(upper[0]) - 1, 1))
    ax.xaxis.set_major_locator(whole_numbers())
    return ends


def _times(power: float) -> str:
    """The factor 10^power, of 1 or more, in two digits."""
    if power < 6:
        return f"{float(f'{10.0**power:.2g}'):,g}"
    return f"{10.0 ** (power % 1):.1f}·10$^{{{int(power)}}}$"
