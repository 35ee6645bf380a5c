"""The live part: every character of a stretch with its prediction, its gradient, and every unit's states and gates."""

from __future__ import annotations

from importlib.resources import files
from string import Template

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.report.payload import payload
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, count, measured, not_measured
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """How near the characters are that a prediction's loss speaks to, and how often the models were right."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    steps = len(now["rnn"].stretch.text)
    near = {NAMES[cell]: _half(m.stretch.gradient) for cell, m in now.items()}
    text = ""
    if all(value is not None for value in near.values()):
        parts = [f"{count(value or 0, 'character')} in the {when} {name}" for name, value in near.items()]
        text = (
            f"Half of the gradient that a prediction sends back to the text goes to the last {' and '.join(parts)} "
            "(sum of norms; median over the second half of this stretch). "
        )
    right = [
        f"the {NAMES[cell]} at {sum(c[0] == y for c, y in zip(m.stretch.candidates, m.stretch.following, strict=True))}"
        for cell, m in now.items()
    ]
    return f"{text}Of {count(steps, 'character')}, {' and '.join(right)} thought the one that came the likeliest."


def _half(gradient: FloatArray) -> float | None:
    """Characters, from the last one read back, that half of the sum of norms (K, K) needs; None without any gradient."""
    rows = [row[t::-1] for t, row in enumerate(gradient) if t >= len(gradient) // 2]
    needed = [int(np.argmax(row.cumsum() >= row.sum() / 2)) + 1 for row in rows if 0 < row.sum() < np.inf]
    return float(np.median(needed)) if needed else None


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
    the gradient of the sum of all losses of the stretch, in the state after each character. Values are rounded to
    16 bits of their range.""",
    more=_live,
)
