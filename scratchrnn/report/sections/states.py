"""Hidden and cell states, character by character, as pictures."""

from __future__ import annotations

from typing import cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from scratchrnn import plots
from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.plots import UNKNOWN, visible
from scratchrnn.report.drawing import CELL_LIMIT, WIDE
from scratchrnn.report.order import sign_changes, slow_first
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, count, measured, not_measured, part
from scratchrnn.study import Results

NARROW_CHARACTERS = 30


def finding(results: Results) -> str:
    """How fast hidden and cell states move."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    layers = {cell: m.stretch.layers[-1] for cell, m in now.items()}
    changes = {NAMES[cell]: sign_changes(layer["h"]) for cell, layer in layers.items()}
    medians = [f"{count(float(np.median(c)), 'time')} in the {name}" for name, c in changes.items()]
    never = [f"{part(int((c == 0).sum()), len(c))} in the {name}" for name, c in changes.items()]
    read = next(iter(now.values())).stretch.text
    text = (
        f"Over a stretch of {count(len(read), 'character')} the median unit of the {when} "
        f"model{'s' if len(now) > 1 else ''} changes sign {' and '.join(medians)}. "
        f"Units that never do: {', '.join(never)}."
    )
    moves = {f"{NAMES[cell]}'s {s}": layer[s] for s in ("h", "c") for cell, layer in layers.items() if s in layer}
    parts = [f"{_movement(states):.2f} for the {name}" for name, states in moves.items()]
    text += f" One character moves the median unit by this many of its standard deviations: {', '.join(parts)}."
    missing = {c for c in read if c != UNKNOWN and visible(c) == UNKNOWN}
    if missing:
        text += f" {UNKNOWN} stands for {count(len(missing), 'character')} that the figure's fonts have no sign for."
    return text


def _movement(states: FloatArray) -> float:
    """Median over the units that move at all of mean |x_t - x_{t-1}| / std x; about 1.1 for noise, 0 for a constant."""
    spread = states.std(axis=0)
    step = np.abs(np.diff(states, axis=0)).mean(axis=0)
    return float(np.median(step[spread > 0] / spread[spread > 0])) if (spread > 0).any() else 0.0


def _states(results: Results, width: float) -> Figure:
    now = measured(results)[0]
    panels: list[tuple[str, FloatArray, IntArray, float | None]] = []
    for cell, m in now.items():
        layer = m.stretch.layers[-1]
        order = slow_first(layer["h"])
        panels.append((f"{NAMES[cell]}, h", layer["h"], order, None))
        if "c" in layer:
            panels.append((f"{NAMES[cell]}, c", layer["c"], order, CELL_LIMIT))
    read = next(iter(now.values())).stretch.text
    keep = len(read) if width == WIDE else min(len(read), NARROW_CHARACTERS)
    figure = Figure(figsize=(width, 2.8 * len(panels)), layout="constrained")
    # room between the characters read and the next title
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(h_pad=0.12)
    for ax, (title, states, order, limit) in zip(
        figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
    ):
        plots.hidden_states(ax, states[:keep, order], list(read[:keep]), limit=limit, name="")
        ax.set_title(title)
        ax.set_xlabel("")
        ax.set_ylabel("Unit (sorted)")
    return figure


def _how(results: Results) -> str:
    text = """One row for each unit, one column for each character of a stretch that was not trained on; ␣ is
    a space and ⏎ a line end. Units that seldom change sign stand on top"""
    if "lstm" not in results.models:
        return f"{text}."
    return f"""{text}; h and c of the LSTM have their sign in common and stand in one order. The colours for c end at
    ±3, beyond which h cannot tell values apart."""


SECTION = Section(
    title="Hidden states, character by character",
    finding=finding,
    how=_how,
    figures={"states": _states},
)
