"""Two ways back in an LSTM: along the cells, and through the gates."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.report.section import Section
from scratchrnn.report.words import count, measured, not_measured, number
from scratchrnn.study import Results

LAG = 20  # characters
RIGHT = 1.05  # times too small or too large that still counts as right


def finding(results: Results) -> str:
    """How much of the gradient runs along the cells, and how far the forget gates alone are from the truth."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    inside = now["lstm"].inside
    if inside.paths is None or inside.forget is None:
        return not_measured(results)
    cells, total = inside.paths.c_path[-1], inside.paths.total[-1]
    at = min(LAG, len(total) - 1)
    if not (np.isfinite(total[at]) and total[at] > 0 and np.isfinite(cells[at])):
        return f"In the {when} LSTM no gradient that can be told from 0 arrives {count(at, 'character')} back."
    text = (
        f"Of the {when} LSTM's gradient {count(at, 'character')} back, the part that ran along the cells alone has "
        f"{_of(cells[at] / total[at])} the size of the whole; the other part went through a gate at least once."
    )
    ratio = inside.forget.ratio[-1]
    lag = min(LAG, len(ratio) - 1)
    if np.isfinite(ratio[lag]) and ratio[lag] > 0:
        text += (
            f" The product of forget gates, often taken for the gradient of c, {_off(ratio[lag])} "
            f"{count(lag, 'character')} back."
        )
    return text


def _off(ratio: float) -> str:
    """How the product compares with the truth, which is `ratio` times as large."""
    if max(ratio, 1 / ratio) <= RIGHT:
        return "is right to within 5%"
    return f"is {number(ratio)} times too small" if ratio > 1 else f"is {number(1 / ratio)} times too large"


def _of(share: float) -> str:
    return f"{share:.0%} of" if 0.005 <= share < 10 else f"{number(share)} times" if share > 0 else "none of"


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
