"""One number of several runs, by the setting in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from scratchrnn._validate import describe
from scratchrnn.plots._style import check_curves, colors_of, frame, style
from scratchrnn.plots._text import Name, name_ends


@style()
def by_setting(
    ax: Axes,
    values: Sequence[float],
    curves: Mapping[str, Sequence[float | None]],
    *,
    xlabel: str,
    ylabel: str,
    joined: bool = True,
    colors: Sequence[str] | None = None,
) -> None:
    """Draw points for each label over the values of a setting, logarithmic where they grow by factors.

    Parameters
    ----------
    ax : matplotlib Axes
    values : sequence of float (N,)
        Of the setting.
    curves : mapping of label to sequence (N,)
        None, or what is not finite, leaves a gap.
    xlabel, ylabel : str
    joined : bool
        By a line; False for a setting whose order means nothing, such as a seed.
    colors : sequence of str, optional
        One for each curve.

    Raises
    ------
    ValueError
        No curves, or one of another length or without a number.
    """
    check_curves("curves", curves)
    x = np.asarray(values, np.float64)
    order = np.argsort(x)
    ends: list[Name] = []
    for (label, curve), color in zip(curves.items(), colors_of(curves, colors), strict=True):
        y = np.array([np.nan if value is None else value for value in curve], np.float64)
        if y.shape != x.shape:
            raise ValueError(f"curves[{label!r}]: expected {len(x)} numbers, one for each value; got {describe(curve)}")
        known = np.flatnonzero(np.isfinite(y[order]))
        if not len(known):
            raise ValueError(f"curves[{label!r}]: expected at least one finite number; got none among {len(y)}")
        line = "-" if joined else "none"
        ax.plot(x[order], y[order], color=color, linestyle=line, marker="o", markersize=5, clip_on=False)
        last = order[known[-1]]
        ends.append((float(x[last]), float(y[last]), label, color))
    if x.min() > 0 and x.max() >= 4 * x.min():
        ax.set_xscale("log", base=2)
    frame(ax)
    ax.set_xticks(x, [f"{value:g}" for value in x])
    ax.minorticks_off()
    ax.margins(x=0.08)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    name_ends(ax, ends)
