"""The figure of norms by distance that two sections draw."""

from __future__ import annotations

from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn._typing import FloatArray
from scratchrnn.report.words import colors, relative
from scratchrnn.study import Results


def by_distance(
    results: Results, width: float, now: dict[str, FloatArray], before: list[FloatArray], xlabel: str
) -> Figure:
    """Draw each model's norms over that at distance 0; those before training dotted."""
    figure, ax = plots.figure(width, 3.8)
    for color, norms in zip(colors(results), before, strict=False):
        ax.plot(relative(norms), color=color, linestyle=(0, (1, 1.6)), linewidth=1.4)
    plots.gradient_by_distance(ax, now, colors=colors(results))
    ax.set_xlabel(xlabel)
    ax.set_ylabel("Gradient norm, relative")
    return figure
