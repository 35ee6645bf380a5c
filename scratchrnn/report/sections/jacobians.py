"""Products of Jacobians: what the past still does to the state, direction by direction and character by character."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.gradflow import SingularValues
from scratchrnn.report.panels import each_model
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, count, measured, not_measured, number
from scratchrnn.study import Results

KEPT = 0.01


def finding(results: Results) -> str:
    """The largest singular value over the longest span, and how many directions keep a hundredth."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    last = {NAMES[cell]: m.inside.singular[-1] for cell, m in now.items()}
    span = next(iter(last.values()))
    left = [f"{_left(one)} in the {when} {name}" for name, one in last.items()]
    kept = [f"{_kept(one)} of {one.log.shape[1]} in the {name}" for name, one in last.items()]
    return (
        f"After {count(span.stop - span.start, 'character')} a small change of the state has at most "
        f"{' and '.join(left)}, whatever its direction. Directions that keep one percent: {' and '.join(kept)}."
    )


def _left(one: SingularValues) -> str:
    largest = float(np.exp(one.log[0, 0]))
    if not np.isfinite(largest):
        return "a size beyond all bounds"
    return f"{number(largest)} times its size" if largest > 0 else "nothing left"


def _kept(one: SingularValues) -> str:
    return str(int((one.log[0] >= np.log(KEPT)).sum()) or "none")


def _singular(results: Results, width: float) -> Figure:
    return each_model(results, width, 3.4, lambda ax, m: plots.singular_values(ax, m.inside.singular))


def _connectivity(results: Results, width: float) -> Figure:
    return each_model(results, width, 3.6, lambda ax, m: plots.connectivity(ax, m.inside.connectivity.norm[0]))


def _drawable(results: Results, figure: str) -> bool:
    now = [m.inside for m in measured(results)[0].values()]
    if figure == "connectivity":
        return bool(now) and all((one.connectivity.norm > 0).any() for one in now)
    return bool(now) and all(np.isfinite(one.singular[-1].log[0, 0]) for one in now)


SECTION = Section(
    title="What gets through",
    finding=finding,
    how="""Upper figure: the singular values of the product of Jacobians over so many characters: by how much a small
    change of the state has grown or shrunk, direction by direction; bold the largest, the median and the smallest.
    Lower figure: how much each state depends on each character read before it, over a stretch of text held out.""",
    figures={"singular-values": _singular, "connectivity": _connectivity},
    drawable=_drawable,
)
