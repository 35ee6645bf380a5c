"""Two ways back in an LSTM: along the cells, and through the gates."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.gradflow import ForgetProduct, PathsByDistance
from scratchrnn.report.section import Section
from scratchrnn.report.words import count, measured, not_measured, number
from scratchrnn.study import Results

LAG = 20  # characters


def finding(results: Results) -> str:
    """How much of the gradient runs along the cells, and how far the forget gates alone are from the truth."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    inside = now["lstm"].inside
    if inside.paths is None or inside.forget is None:
        return not_measured(results)
    return f"{_along(inside.paths, when)}{_product(inside.forget)}"


def _along(paths: PathsByDistance, when: str) -> str:
    cells, total = paths.c_path[-1], paths.total[-1]
    at = min(LAG, len(total) - 1)
    back = f"{count(at, 'character')} back"
    if not (np.isfinite(total[at]) and np.isfinite(cells[at])):
        return f"In the {when} LSTM the gradient is not finite {back}."
    if total[at] == 0:
        return f"In the {when} LSTM no gradient that can be told from 0 arrives {back}."
    if cells[at] == 0:
        return f"{back}, nothing is left of the {when} LSTM's gradient along the cells alone: all went through a gate."
    share = _share(cells[at] / total[at])
    return (
        f"{back}, what the {when} LSTM's gradient has left along the cells alone is {share} the whole in size; the "
        "rest, or what it cancels, went through a gate."
    )


def _share(share: float) -> str:
    return f"{share:.0%} of" if 0.005 <= share < 2 else f"{number(share)} times"


def _product(forget: ForgetProduct) -> str:
    """How far the product of forget gates is off; empty where it cannot be told."""
    ratio = forget.ratio[-1]
    lag = min(LAG, len(ratio) - 1)
    if not (np.isfinite(ratio[lag]) and ratio[lag] > 0):
        return ""
    factor = number(max(ratio[lag], 1 / ratio[lag]))
    off = f"{factor} times too {'small' if ratio[lag] > 1 else 'large'}" if factor != "1" else "right in size"
    return f" The product of forget gates, often taken for the gradient of c, is {off} at a lag of {lag}."


def _paths(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.6)
    paths = measured(results)[0]["lstm"].inside.paths
    if paths is not None:
        plots.gradient_paths(ax, paths, layer=len(paths.total) - 1)
    return figure


def _forget(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.6)
    found = measured(results)[0]["lstm"].inside.forget
    if found is not None:
        plots.forget_product(ax, found, layer=len(found.truth) - 1)
    return figure


def _drawable(results: Results, figure: str) -> bool:
    inside = [m.inside for cell, m in measured(results)[0].items() if cell == "lstm"]
    if figure == "paths":
        return any(one.paths is not None and one.paths.total[-1][0] > 0 for one in inside)
    return any(one.forget is not None and one.forget.truth[-1][0] > 0 for one in inside)


SECTION = Section(
    title="Two ways back through an LSTM",
    finding=finding,
    how="""The gradient of one prediction that arrives at c, by distance, median over $sequences: all of it, and
    the part that ran along the cells alone, c to c by the forget gates, from wherever it entered them. The
    two parts may point against each other. Lower figure: how much c depends on an earlier c through every
    path, beside the product of the forget gates between them, which leaves out that c changes the gates.""",
    figures={"paths": _paths, "forget-product": _forget},
    shown=lambda results: "lstm" in results.models,
    drawable=_drawable,
)
