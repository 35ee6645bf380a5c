"""The live part: every character of a stretch with its prediction, its gradient, and every unit's states and gates."""

from __future__ import annotations

from importlib.resources import files
from string import Template

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.report.payload import payload
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, count, measured, not_measured
from scratchrnn.study import Results, Stretch


def finding(results: Results) -> str:
    """How near the characters are that a prediction's gradient goes to, and how often the models were right."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    steps = len(next(iter(now.values())).stretch.text)
    reach = {cell: [needed(m.stretch.gradient, share) for share in (0.5, 0.99)] for cell, m in now.items()}
    text = ""
    if not any(None in found for found in reach.values()):
        half = [f"the last {_characters(found[0] or 0)} in the {NAMES[cell]}" for cell, found in reach.items()]
        most = [f"{found[1]:g} in the {NAMES[cell]}" for cell, found in reach.items()]
        text = (
            f"Of the gradient that a prediction of the {when} model{'s' if len(now) > 1 else ''} sends back to the "
            f"text, half goes to {' and '.join(half)}; 99% of it takes {' and '.join(most)}. "
        )
    right = [f"{count(_right(m.stretch), 'time')} for the {NAMES[cell]}" for cell, m in now.items()]
    return f"{text}Of {count(steps, 'character')} to come, the one held likeliest came {' and '.join(right)}."


def _right(stretch: Stretch) -> int:
    return sum(c[0] == y for c, y in zip(stretch.candidates, stretch.following, strict=True))


def _characters(number: float) -> str:
    return "character" if number == 1 else f"{number:g} characters"


def needed(gradient: FloatArray, share: float) -> float | None:
    """How many characters, from the last one read back, have that share of the sum of norms (K, K) at a prediction.

    The median over the second half of the stretch, where there is something to look back at; None where no prediction
    has a finite gradient above zero.
    """
    rows = [row[t::-1] for t, row in enumerate(gradient) if t >= len(gradient) // 2]
    found = [int(np.argmax(row.cumsum() >= share * row.sum())) + 1 for row in rows if 0 < row.sum() < np.inf]
    return float(np.median(found)) if found else None


def _live(results: Results) -> str:
    now = measured(results)[0]
    if not now:
        return ""
    here = files("scratchrnn.report")
    return Template(here.joinpath("live.html").read_text(encoding="utf-8")).substitute(
        data=payload(now), script=here.joinpath("live.js").read_text(encoding="utf-8")
    )


SECTION = Section(
    title="Look inside",
    finding=finding,
    how="""The same stretch. For each character: what the model expected to follow it, and the norm of that
    prediction's loss gradient with respect to the embedding of every character before, from one exact backward pass
    for each prediction; a shade in the text is a share of the largest and ends at a thousandth. ∂L/∂h and ∂L/∂c are
    the gradient of the sum of all losses of the stretch, in the state after each character. The shares above are
    of the sum of norms, and medians over the second half of the stretch.""",
    more=_live,
)
