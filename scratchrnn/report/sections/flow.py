"""How the reach of the gradient changes while the models learn."""

from __future__ import annotations

from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.gradflow import GradientFlow
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, colors, count
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """From which horizon to which, and whether it was longer in between."""
    flows = _flows(results)
    if not flows:
        return "No update was made."
    parts = [f"of the {name}'s gradient {_said(flow)}" for name, flow in flows.items()]
    text = f"While they learned, the horizon {', that '.join(parts)}."
    if len(flows) == 1:
        text = f"While it learned, the horizon {parts[0]}."
    if "+" in text:
        text += " A + stands where the measurement ended first, so that the truth may lie beyond."
    if "!" in text:
        text += " An ! stands where the gradient explodes: that horizon means little."
    return text


def _flows(results: Results) -> dict[str, GradientFlow]:
    return {
        NAMES[cell]: one.flow
        for cell, one in results.models.items()
        if one.flow is not None and len(one.flow.steps) > 1
    }


def _said(flow: GradientFlow) -> str:
    """Where it began, where it ended, and where it was longest if that is neither."""
    longest = int(flow.horizon.argmax())
    noun = "character" if flow.horizon[-1] == 1 else "characters"
    first, last = _mark(flow, 0), _mark(flow, -1)
    way = f"goes from {first} to {last}" if first != last else f"begins and ends at {last}"
    text = f"{way} {noun} in {count(int(flow.steps[-1]), 'update')}"
    if flow.horizon[longest] > max(flow.horizon[0], flow.horizon[-1]):
        text += f" ({_mark(flow, longest)} after {count(int(flow.steps[longest]), 'update')})"
    return text


def _mark(flow: GradientFlow, n: int) -> str:
    return f"{flow.horizon[n]}{'!' if flow.exploding[n] else '+' if flow.censored[n] else ''}"


def _horizons(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.6)
    plots.memory_over_training(ax, _flows(results), colors=colors(results))
    return figure


def _map(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.6)
    name, flow = list(_flows(results).items())[-1]
    plots.gradient_over_training(ax, flow)
    ax.set_title(name)
    return figure


SECTION = Section(
    title="Memory, as it grows",
    finding=finding,
    how="""Upper figure: the last distance, in characters, at which one percent of the gradient's norm is left, as
    above, but at $probed only, looked at again and again during training, so that its ends may differ from the
    horizons above; the axis of updates is logarithmic, since most happens early. Lower figure: the norms
    themselves, by update and distance, with that horizon as a line.""",
    figures={"memory-over-training": _horizons, "gradient-over-training": _map},
    drawable=lambda results, figure: len(_flows(results)) == len(results.models),
)
