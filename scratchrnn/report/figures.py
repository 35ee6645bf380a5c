"""The figures of a report, each in two widths: for a page, and for a phone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from scratchrnn import plots
from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.report.findings import NAMES, measured, relative, sign_changes
from scratchrnn.study import Results

WIDE, NARROW = 8.0, 3.75  # inches, 96 pixels each on the page
NARROW_CHARACTERS = 30
CELL_LIMIT = 3.0  # of the colours for c; tanh(3) is 0.995, so what lies beyond looks the same to h

# what the page may recolour, by its theme; the others of matplotlib's colours stay
THEMED = {
    plots.INK.lower(): "var(--ink)",
    plots.FAINT.lower(): "var(--line)",
    plots.BLUE.lower(): "var(--rnn)",
    plots.VERMILION.lower(): "var(--lstm)",
    plots.LOW.lower(): "var(--low)",
    plots.HIGH.lower(): "var(--high)",
    plots.MUTED.lower(): "var(--muted)",
    "#ffffff": "var(--page)",
    plots.TRACK.lower(): "var(--track)",
}

Draw = Callable[[Results, float], Figure]


@dataclass(frozen=True)
class Drawing:
    """A figure in all its forms.

    Attributes
    ----------
    wide, narrow : str
        SVG elements for the page, in its colours.
    svg, png : bytes
        Files of the wide form, on white.
    """

    wide: str
    narrow: str
    svg: bytes
    png: bytes


def draw(name: str, results: Results) -> Drawing:
    """Draw one of `DRAWINGS`."""
    with plots.style():
        wide, narrow = (DRAWINGS[name](results, width) for width in (WIDE, NARROW))
        svg = _save(wide, f"{name}-wide")
        return Drawing(
            _for_page(svg), _for_page(_save(narrow, f"{name}-narrow")), _on_white(svg), _save(wide, name, "png")
        )


def _save(figure: Figure, salt: str, kind: str = "svg") -> bytes:
    buffer = io.BytesIO()
    # equal numbers give equal files, and no two figures of a page share an id
    with mpl.rc_context({"svg.hashsalt": salt}):
        if kind == "svg":
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            figure.set_layout_engine("none")  # keeps the layout, which is half the work, for a second format
        else:
            figure.savefig(buffer, format=kind, dpi=200)
    return buffer.getvalue()


def _on_white(svg: bytes) -> bytes:
    """The same on a white ground, for viewers that show none."""
    start = svg.index(b">", svg.index(b"<svg")) + 1
    return svg[:start] + b'\n <rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


def _for_page(svg: bytes) -> str:
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<title>.*?</title>", "", text, flags=re.DOTALL)
    return re.sub("|".join(THEMED), lambda found: THEMED[found[0]], text)


def _loss(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.8)
    curves = {NAMES[cell]: one.curve for cell, one in results.models.items()}
    held_out = {name: np.array(curve.validation).T for name, curve in curves.items()}
    seen = [value for curve in curves.values() for value in [*curve.bits, *(v for _, v in curve.validation)]]
    lowest = min(results.unigram_bits, *seen)
    highest = max(results.unigram_bits * 1.1, *(values[-1] for _, values in held_out.values()))
    ax.set_ylim(lowest - 0.05 * (highest - lowest), highest)  # before training the loss lies far above
    for color, curve in zip(plots.PALETTE, curves.values(), strict=False):
        ax.plot(np.arange(1, len(curve.bits) + 1), curve.bits, color=color, alpha=0.35, linewidth=0.7)
    ax.axhline(results.unigram_bits, color=plots.FAINT, linewidth=1, linestyle=(0, (4, 3)))
    ax.annotate(
        f"no context  {results.unigram_bits:.2f}", (1, results.unigram_bits), (0, 4), color=plots.MUTED, ha="right",
        xycoords=ax.get_yaxis_transform(), textcoords="offset points",
    )  # fmt: skip
    plots.loss_curves(ax, {name: (v[0], v[1]) for name, v in held_out.items()}, smooth=1, ylabel="Bits per character")
    return figure


def _gradients(results: Results, width: float) -> Figure:
    return _by_distance(
        width,
        {NAMES[cell]: m.by_distance.input for cell, m in measured(results)[0].items()},
        [one.before.by_distance.input for one in results.models.values() if one.before and one.after],
        "Characters back from the prediction",
    )


def _memory(results: Results, width: float) -> Figure:
    return _by_distance(
        width,
        {NAMES[cell]: m.memory.by_distance for cell, m in measured(results)[0].items()},
        [one.before.memory.by_distance for one in results.models.values() if one.before and one.after],
        "Steps back from the last",
    )


def _by_distance(width: float, now: dict[str, FloatArray], before: list[FloatArray], xlabel: str) -> Figure:
    figure, ax = plots.figure(width, 3.8)
    for color, norms in zip(plots.PALETTE, before, strict=False):
        ax.plot(relative(norms), color=color, linestyle=(0, (1, 1.6)), linewidth=1.4)
    plots.gradient_by_distance(ax, now)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("Gradient norm, relative")
    return figure


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


def _states(results: Results, width: float) -> Figure:
    now = measured(results)[0]
    rnn, lstm = now["rnn"], now["lstm"]
    panels: list[tuple[str, FloatArray, IntArray, float | None]]
    panels = [("RNN, h", rnn.h, _slow_first(rnn.h), None), ("LSTM, h", lstm.h, _slow_first(lstm.h), None)]
    if lstm.c is not None:
        panels.append(("LSTM, c", lstm.c, _slow_first(lstm.h), CELL_LIMIT))
    keep = len(rnn.text) if width == WIDE else min(len(rnn.text), NARROW_CHARACTERS)
    figure = Figure(figsize=(width, 2.8 * len(panels)), layout="constrained")
    # room between the characters read and the next title
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(h_pad=0.12)
    for ax, (title, states, order, limit) in zip(figure.subplots(len(panels), 1), panels, strict=True):
        plots.hidden_states(ax, states[:keep, order], list(rnn.text[:keep]), limit=limit, name="")
        ax.set_title(title)
        ax.set_xlabel("")
        ax.set_ylabel("Unit (sorted)")
    return figure


def _slow_first(states: FloatArray) -> IntArray:
    """Order of the units: few changes of sign first; among equals, the positive ones first."""
    return np.lexsort((-states.mean(axis=0), sign_changes(states)))


DRAWINGS: dict[str, Draw] = {
    "loss": _loss,
    "gradients": _gradients,
    "memory": _memory,
    "saturation": _saturation,
    "gates": _gates,
    "states": _states,
}


def drawable(results: Results) -> list[str]:
    """Names of the figures that there are numbers for."""
    names = []
    if all(len(one.curve.validation) > 1 or one.curve.bits for one in results.models.values()):
        names.append("loss")
    now = measured(results)[0].values()
    if now:
        # with every unit saturated there is no gradient to draw
        names += ["gradients"] if all(m.by_distance.input[0] > 0 for m in now) else []
        names += ["memory"] if all(m.memory.by_distance[0] > 0 for m in now) else []
        names += ["saturation", "gates", "states"]
    return names
