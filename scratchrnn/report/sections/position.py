"""What a state does when the same character comes again and again."""

from __future__ import annotations

from html import escape

from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.report.panels import each_model
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, count, measured, not_measured
from scratchrnn.study import Measurement, Results


def finding(results: Results) -> str:
    """Where each model's state goes."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    first = next(iter(now.values())).inside.constant
    parts = [f"the {when} {NAMES[cell]} {_said(m)}" for cell, m in now.items()]
    text = f"Given nothing but {escape(plots.visible(first))} again and again, {'; '.join(parts)}."
    points = [f"{_points(m)} in the {NAMES[cell]}" for cell, m in now.items()]
    return f"{text} At that input Newton's method, from states that the text leads to, finds {' and '.join(points)}."


def _points(m: Measurement) -> str:
    fixed = m.inside.fixed
    if not len(fixed):
        return "no fixed point"
    stable = int(fixed.stable.sum())
    return f"{count(len(fixed), 'fixed point')} ({stable or 'none'} stable)"


def _said(m: Measurement) -> str:
    p = m.inside.position
    if p.verdict == "fixed point":
        if p.settling_time is None:
            return "comes to rest, so slowly that it is still on its way at the end of the measurement"
        text = f"comes to rest: within 1% of its fixed point after {count(p.settling_time, 'step')}"
        rates = f", each step leaving {p.spectral_radius:.3f} of the distance by the Jacobian there"
        return text + rates + (f", {p.contraction:.3f} as measured" if p.contraction == p.contraction else "")
    if p.verdict == "cycle":
        return f"goes round in a cycle of {count(p.period or 0, 'step')}"
    if p.verdict == "chaos":
        return f"never comes to rest and never repeats itself: chaos, with an exponent of {p.lyapunov:.3f}"
    if p.verdict == "grows":
        return "has not come to rest by the end of the measurement: it adds up what it reads, and still grows"
    if p.verdict == "diverges":
        return "goes beyond all bounds"
    return "has neither come to rest nor returned by the end of the measurement"


def _maps(results: Results, width: float) -> Figure:
    return each_model(results, width, 3.2, lambda ax, m: plots.position_map(ax, m.inside.position))


SECTION = Section(
    title="Does a state know its position?",
    finding=finding,
    how="""The commonest character of the text as input at every step: the distance between the states of any two steps.
    Where the map is white, a state cannot tell those two positions from each other. A corner marks the step from which
    on the state stays within one percent of its fixed point.""",
    figures={"position": _maps},
)
