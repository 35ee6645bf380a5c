"""Cell against hidden state of an LSTM: what is said of them, and whether it is so here."""

from __future__ import annotations

from html import escape

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.dynamics import CellHidden
from scratchrnn.gradflow import Decay
from scratchrnn.report.section import Section
from scratchrnn.report.words import COLORS, count, mark, measured, not_measured
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """How many of the claims hold, before training and after."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    found = _cells(results)
    if found is None:
        return not_measured(results)
    claims = found.claims()
    holding = sum(claim.holds for claim in claims)
    hold = f"{holding or 'none'} {'hold' if holding > 1 else 'holds'}"
    text = f"Of {count(len(claims), 'thing')} often said of c and h, {hold} in the {when} LSTM"
    before = results.models["lstm"].before
    if when == "trained" and before is not None and before.inside.cells is not None:
        text += f", and {sum(claim.holds for claim in before.inside.cells.claims()) or 'none'} held before training"
    return f"{text}. A small change of c {_lasts(found.c.decay)}, one of h {_lasts(found.h.decay)}."


def _lasts(decay: Decay) -> str:
    if decay.exploding:
        return "grows instead of fading"
    if decay.censored:
        return f"is still above 1% of its size after {count(decay.horizon, 'character')}, where the measurement ends"
    return f"stays above 1% of its size for {count(decay.horizon, 'character')}"


def _cells(results: Results) -> CellHidden | None:
    return measured(results)[0]["lstm"].inside.cells


def _autocorrelation(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.6)
    cells = [("untrained", results.models["lstm"].before), ("trained", results.models["lstm"].after)]
    found = {when: m.inside.cells for when, m in cells if m is not None and m.inside.cells is not None}
    plots.state_autocorrelation(ax, found, colors=[plots.MUTED, COLORS["lstm"]][-len(found) :])
    return figure


def _units(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(min(width, 5.5), 4.0)
    found = _cells(results)
    if found is not None:
        plots.cell_units(ax, found, color=COLORS["lstm"])
    return figure


def _measured(found: CellHidden, name: str, value: float) -> str:
    horizons = {"horizon of c": mark(found.c.decay), "horizon of h": mark(found.h.decay)}
    if name in horizons:
        return f"{name}: {horizons[name]} characters"
    if np.isnan(value):
        return f"{name}: undefined"
    if name.startswith("time"):
        return f"{name}: {value:.2g} characters" if np.isfinite(value) else f"{name}: longer than was measured"
    return f"{name}: {value:.2f}".replace("-", "−")


def _table(results: Results) -> str:
    now = measured(results)[0]
    found = _cells(results) if now else None
    if found is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(claim.statement)}</th>'
        f"<td>{escape('; '.join(_measured(found, name, value) for name, value in claim.measured.items()))}</td>"
        f"<td>{'yes' if claim.holds else 'no'}</td></tr>"
        for claim in found.claims()
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("it is said", "measured here", "so?"))
    return (
        f'<div class="scroll"><table class="words"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


SECTION = Section(
    title="Cell against hidden state",
    finding=finding,
    how="""Over $sequences in the text held out. What counts as true of each statement is fixed beforehand; results.json
    has the criteria and the numbers of every unit.""",
    figures={"autocorrelation": _autocorrelation, "cell-units": _units},
    shown=lambda results: "lstm" in results.models,
    more=_table,
)
