"""Whose gradient arrives at a step: what each loss sends back, item by item."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn._typing import FloatArray
from scratchrnn.report.panels import panels
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, colors, count, measured, not_measured, percent
from scratchrnn.study import Results

FAR = 5  # characters


def finding(results: Results) -> str:
    """What share of the gradient at a character comes from losses far ahead of it."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    shares = {name: share for name, share in _shares(results).items() if len(share) > FAR and np.isfinite(share[FAR])}
    if len(shares) < len(now):
        return f"In the {when} models there is no gradient to divide among the losses."
    parts = [f"{percent(share[FAR])} in the {when} {name}" for name, share in shares.items()]
    return (
        f"Of the gradient that reaches the state after a character, losses more than {count(FAR, 'character')} "
        f"later send {' and '.join(parts)}."
    )


def _shares(results: Results) -> dict[str, FloatArray]:
    return {NAMES[cell]: m.inside.itemized.share_beyond() for cell, m in measured(results)[0].items()}


def _map(results: Results, width: float) -> Figure:
    now = {NAMES[cell]: m.inside.itemized for cell, m in measured(results)[0].items()}
    figure, axes = panels(list(now), width, 3.6)
    for ax, found in zip(axes, now.values(), strict=True):
        plots.itemized_map(ax, found)
    return figure


def _far(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.4)
    plots.share_beyond(ax, _shares(results), colors=colors(results))
    return figure


def _drawable(results: Results, figure: str) -> bool:
    now = measured(results)[0].values()
    if figure == "itemized":
        return bool(now) and all((m.inside.itemized.h[-1] > 0).any() for m in now)
    return bool(now) and all(np.isfinite(share).all() and len(share) > 1 for share in _shares(results).values())


SECTION = Section(
    title="Whose gradient is it?",
    finding=finding,
    how="""Backpropagation hands out sums. Here they are taken apart: one row for the loss of each prediction, one
    column for each state that it reaches back to, over a stretch of text held out; the vectors of a column,
    whose norms these are, add up exactly to the gradient there. Lower figure: the share that comes from
    losses more than so many characters later, below 0 where they pull against the rest.""",
    figures={"itemized": _map, "share-beyond": _far},
    drawable=_drawable,
)
