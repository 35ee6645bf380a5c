"""Lyapunov exponents along the text: how fast small changes of the state fade or grow."""

from __future__ import annotations

from math import isnan

from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.report.section import Section, Tile
from scratchrnn.report.words import NAMES, colors, measured, not_measured, trained
from scratchrnn.study import Measurement, Results

UNSURE = 2.0  # standard errors


def finding(results: Results) -> str:
    """What the largest exponent of each model says, and what training changed."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    parts = [f"in the {when} {NAMES[cell]} it {_said(m)}" for cell, m in now.items()]
    text = f"How long does a small change of the state last? Where it lasts longest, {'; '.join(parts)}."
    changes = {
        NAMES[cell]: (_exponent(one.before), _exponent(one.after))
        for cell, one in results.models.items()
        if one.before and one.after
    }
    if changes:
        text += f" {trained('the largest exponent', changes)}"
    return text


def _said(m: Measurement) -> str:
    largest, error = float(m.inside.spectrum.exponents[0]), float(m.inside.spectrum.standard_error[0])
    if largest == -float("inf"):
        return "is lost altogether at some step, which maps every change of the state to zero"
    if largest == 0 or abs(largest) <= UNSURE * error:
        return "neither fades nor grows, as far as this measurement can tell"
    if largest < 0:
        return f"fades to 1/e of its size in {_steps(-1 / largest)}"
    sure = "; how sure that is cannot be told from so few steps" if isnan(error) else ": this is chaos"
    return f"grows: it is e times as large after {_steps(1 / largest)}{sure}"


def _steps(number: float) -> str:
    return f"{number:.1f} characters" if number < 10 else f"{number:,.0f} characters"


def _exponent(m: Measurement, digits: int = 3) -> str:
    return f"{m.inside.spectrum.exponents[0]:.{digits}f}".replace("-", "−").replace("inf", "∞")


def _spectra(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.6)
    spectra = {NAMES[cell]: m.inside.spectrum for cell, m in measured(results)[0].items()}
    plots.lyapunov_spectrum(ax, spectra, colors=colors(results))
    return figure


def _tile(results: Results) -> Tile | None:
    now, when = measured(results)
    # two digits, where they leave something of it
    values = {cell: _exponent(m, 2 if abs(m.inside.spectrum.exponents[0]) >= 0.005 else 3) for cell, m in now.items()}
    return Tile("Largest Lyapunov exponent", values, f"per character, {when}") if now else None


def _how(results: Results) -> str:
    text = """Lyapunov exponents, in natural logarithms per character: the rates at which small changes of the state
    grow (above 0) or fade (below), direction by direction, while the model reads text held out; by QR decomposition of
    the products of its Jacobians, the largest of them. They are about the forward pass; the gradient goes the same
    ways back."""
    return f"{text} An LSTM's state is h and c together." if "lstm" in results.models else text


SECTION = Section(
    title="How fast the past fades",
    finding=finding,
    how=_how,
    figures={"lyapunov": _spectra},
    drawable=lambda results, figure: (
        bool(measured(results)[0])
        and all(m.inside.spectrum.exponents[0] > -float("inf") for m in measured(results)[0].values())
    ),
    tile=_tile,
)
