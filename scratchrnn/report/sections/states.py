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
from scratchrnn.report.words import count, measured, not_measured, part
from scratchrnn.study import Results

NARROW_CHARACTERS = 30


def finding(results: Results) -> str:
    """How fast hidden and cell states move."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    text_read = now["rnn"].stretch.text
    rnn, lstm = now["rnn"].stretch.layers[-1], now["lstm"].stretch.layers[-1]
    changes = {"RNN": sign_changes(rnn["h"]), "LSTM": sign_changes(lstm["h"])}
    medians = [f"{count(float(np.median(c)), 'time')} in the {name}" for name, c in changes.items()]
    never = [f"{part(int((c == 0).sum()), len(c))} in the {name}" for name, c in changes.items()]
    text = (
        f"Over a stretch of {count(len(text_read), 'character')} the median unit of the {when} models changes sign "
        f"{' and '.join(medians)}. Units that never do: {', '.join(never)}."
    )
    moves = {"RNN's h": rnn["h"], "LSTM's h": lstm["h"], "LSTM's c": lstm["c"]}
    parts = [f"{_movement(states):.2f} for the {name}" for name, states in moves.items()]
    text += f" One character moves a unit by this part of its own spread: {', '.join(parts)}."
    missing = {c for c in text_read if c != UNKNOWN and visible(c) == UNKNOWN}
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
    text = now["rnn"].stretch.text
    rnn, lstm = now["rnn"].stretch.layers[-1], now["lstm"].stretch.layers[-1]
    panels: list[tuple[str, FloatArray, IntArray, float | None]] = [
        ("RNN, h", rnn["h"], slow_first(rnn["h"]), None),
        ("LSTM, h", lstm["h"], slow_first(lstm["h"]), None),
        ("LSTM, c", lstm["c"], slow_first(lstm["h"]), CELL_LIMIT),
    ]
    keep = len(text) if width == WIDE else min(len(text), NARROW_CHARACTERS)
    figure = Figure(figsize=(width, 2.8 * len(panels)), layout="constrained")
    # room between the characters read and the next title
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(h_pad=0.12)
    for ax, (title, states, order, limit) in zip(figure.subplots(len(panels), 1), panels, strict=True):
        plots.hidden_states(ax, states[:keep, order], list(text[:keep]), limit=limit, name="")
        ax.set_title(title)
        ax.set_xlabel("")
        ax.set_ylabel("Unit (sorted)")
    return figure


SECTION = Section(
    title="Hidden states, character by character",
    finding=finding,
    how="""One row for each unit, one column for each character of a stretch that neither model has seen; ␣ is
    a space and ⏎ a line end. Units that seldom change sign stand on top; h and c of the LSTM have their
    sign in common and stand in one order. The colours for c end at ±3, beyond which h cannot tell
    values apart.""",
    figures={"states": _states},
)
