"""How far back the gradient of one prediction reaches, on the text."""

from __future__ import annotations

from matplotlib.figure import Figure

from scratchrnn.gradflow import Decay
from scratchrnn.report.by_distance import by_distance
from scratchrnn.report.section import Section, Tile
from scratchrnn.report.words import NAMES, count, mark, measured, not_measured, number, relative, trained
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """How far back the gradient of one loss reaches in each model, and what training changed."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    (first, decay), *others = ((NAMES[cell], m.decay) for cell, m in now.items())
    text = f"Followed back through the text, the gradient of one prediction in the {when} {first} {_reach(decay)}"
    plain = not any(m.decay.exploding or m.decay.censored for m in now.values())
    for name, other in others:
        text += f", in the {name} for {other.horizon}" if plain else f"; in the {name} it {_reach(other)}"
    text += "."
    changes = {
        NAMES[cell]: (mark(one.before.decay), mark(one.after.decay))
        for cell, one in results.models.items()
        if one.before and one.after
    }
    if changes:
        text += f" {trained('that horizon', changes)}"
    far = results.settings.distance // 2
    left = {NAMES[cell]: float(relative(m.by_distance.input)[far]) for cell, m in now.items()}
    if all(0 < value < 0.01 for value in left.values()):
        parts = [f"{number(value)} of it in the {name}" for name, value in left.items()]
        text += f" At {count(far, 'character')} there is {' and '.join(parts)}."
    return text


def _reach(decay: Decay) -> str:
    if decay.exploding:
        return "grows on its way back instead of fading"
    if decay.censored:
        return f"is still above 1% at {count(decay.horizon, 'character')}, where the measurement ends"
    return f"stays above 1% of its size for {count(decay.horizon, 'character')}"


def _gradients(results: Results, width: float) -> Figure:
    return by_distance(
        results,
        width,
        {NAMES[cell]: m.by_distance.input for cell, m in measured(results)[0].items()},
        [one.before.by_distance.input for one in results.models.values() if one.before and one.after],
        "Characters back from the prediction",
    )


def _drawable(results: Results, figure: str) -> bool:
    now = measured(results)[0].values()
    return bool(now) and all(m.by_distance.input[0] > 0 for m in now)  # it is 0 where every unit is saturated


def _tile(results: Results) -> Tile | None:
    now = measured(results)[0]
    values = {cell: mark(m.decay) for cell, m in now.items()}
    return Tile("Gradient reach, on the text", values, "characters back to 1%") if now else None


SECTION = Section(
    title="How far back the gradient reaches",
    finding=finding,
    how="""The gradient of the loss of one prediction with respect to what was read that many characters
    earlier, its norm, the median over $sequences in the text held out, on a logarithmic scale. The
    dots mark the last distance at which one percent of the norm at distance 0 is left. Dotted: the same
    before training.""",
    figures={"gradients": _gradients},
    drawable=_drawable,
    tile=_tile,
)
