"""Axes for a picture of each model: beside each other on a page, below one another on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from scratchrnn.report.drawing import NARROW, WIDE
from scratchrnn.report.words import NAMES, measured
from scratchrnn.study import Measurement, Results


def panels(names: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with one axes of `height` inches for each name, which is its title."""
    across = width > NARROW
    rows, columns = (1, len(names)) if across else (len(names), 1)
    alone = 0.6 if across and columns == 1 and width == WIDE else 1.0
    figure = Figure(figsize=(width * alone, height * rows), layout="constrained")
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(h_pad=0.08, w_pad=0.08)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(name)
    return figure, axes


def each_model(results: Results, width: float, height: float, draw: Callable[[Axes, Measurement], object]) -> Figure:
    """A figure with one axes for each model, on which `draw` puts its latest measurement."""
    now = measured(results)[0]
    figure, axes = panels([NAMES[cell] for cell in now], width, height)
    for ax, measurement in zip(axes, now.values(), strict=True):
        draw(ax, measurement)
    return figure
