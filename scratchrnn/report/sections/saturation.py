"""Saturation: how long values sit at the ends of their ranges."""

from __future__ import annotations

from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.report.drawing import NARROW
from scratchrnn.report.section import Section, Tile
from scratchrnn.report.words import NAMES, measured, not_measured, part
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """How much of the time units sit at the ends of their range, in the RNN's h and the LSTM's gates."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    text = []
    if "rnn" in now:
        rnn = now["rnn"].saturation
        text.append(
            f"In the {when} RNN {rnn.rate:.0%} of all hidden values lie beyond ±{rnn.threshold:.2f}, and its tanh "
            f"lets {rnn.mean_derivative:.2f} of a gradient through on average."
        )
    if "lstm" in now:
        lstm = now["lstm"].saturation
        forget = lstm.gates["f"]
        keepers = int((forget.right > 0.9).sum())
        text.append(
            f"Of the {'' if 'rnn' in now else when + ' '}LSTM's h {lstm.rate:.0%} lie "
            + ("there" if "rnn" in now else f"beyond ±{lstm.threshold:.2f}")
            + (", but its gates saturate: " if forget.share > lstm.rate else "; ")
            + f"the forget gate is open {forget.right_share:.0%} of the time and closed {forget.left_share:.0%}. "
            f"It is open more than nine tenths of the time in {part(keepers, len(forget.right))} "
            f"cell{'' if len(forget.right) == 1 else 's'}."
        )
    return " ".join(text)


def _saturation(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.0)
    plots.saturation_bars(ax, {NAMES[cell]: m.saturation for cell, m in measured(results)[0].items()})
    if width == NARROW:
        for text in ax.texts:  # the limits, which the words below the figure give as well, would not fit
            text.set_text(text.get_text().split(" (")[0])
    return figure


def _gates(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(min(width, 4.6), min(width, 4.6))
    plots.saturation_gates(ax, measured(results)[0]["lstm"].saturation)
    return figure


def _drawable(results: Results, figure: str) -> bool:
    now = measured(results)[0]
    return "lstm" in now if figure == "gates" else bool(now)


def _tile(results: Results) -> Tile | None:
    now, when = measured(results)
    values = {cell: f"{m.saturation.rate:.0%}" for cell, m in now.items()}
    return Tile("Saturated hidden values", values, f"beyond ±0.95, {when}") if now else None


def _how(results: Results) -> str:
    text = """Share of the time, over $sequences in the text held out, that values sit at an end of their range, where a
    squashing function passes almost no gradient."""
    if "lstm" not in results.models:
        return f"{text} Left: below −0.95. Right: above 0.95."
    return f"""{text} Left: below −0.95, for gates closed below 0.1. Right: above 0.95, for gates open above 0.9. In the
    lower figure each point is one gate of one unit; an open forget gate is what keeps a memory."""


SECTION = Section(
    title="Saturation",
    finding=finding,
    how=_how,
    figures={"saturation": _saturation, "gates": _gates},
    drawable=_drawable,
    tile=_tile,
)
