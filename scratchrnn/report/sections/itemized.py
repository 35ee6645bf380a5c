"""Whose gradient arrives at a step: what each loss sends back, item by item."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn._typing import FloatArray
from scratchrnn.report.panels import each_model
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, colors, count, measured, not_measured
from scratchrnn.study import Results

FAR = 5  # characters


def finding(results: Results) -> str:
    """What share of the gradient at a character comes from losses far ahead of it."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    shares = _shares(results)
    far = min(FAR, *(len(share) - 1 for share in shares.values()))
    known = {name: round(100 * float(share[far])) for name, share in shares.items() if np.isfinite(share[far])}
    none = f"In the {when} {' and '.join(name for name in shares if name not in known)} there is no gradient to divide"
    if not known:
        return f"{none} among the losses."
    parts = [f"{_percent(percent)} in the {when} {name}" for name, percent in known.items()]
    text = (
        f"Of the gradient that reaches the state after a character, losses more than {count(far, 'character')} "
        f"later send {' and '.join(parts)}."
    )
    if any(percent < 0 for percent in known.values()):
        text += " Below 0 they pull against the losses nearer by."
    if any(percent > 100 for percent in known.values()):
        text += " Above 100% the losses nearer by pull against them."
    return text if len(known) == len(shares) else f"{text} {none}."


def _percent(percent: int) -> str:
    return f"{percent}%".replace("-", "−")


def _shares(results: Results) -> dict[str, FloatArray]:
    return {NAMES[cell]: m.inside.itemized.share_beyond() for cell, m in measured(results)[0].items()}


def _map(results: Results, width: float) -> Figure:
    return each_model(results, width, 3.6, lambda ax, m: plots.itemized_map(ax, m.inside.itemized))


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
