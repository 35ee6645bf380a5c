"""Effective memory: the gradient on random input, by the familiar rule and by the corrected one."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn.report.by_distance import by_distance
from scratchrnn.report.section import Section, Tile
from scratchrnn.report.words import NAMES, count, mark, measured, names, not_measured, number, relative, rule
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """What the familiar rule counts beside the corrected measure, and random input beside the text."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    counted = " and ".join(rule(results, m) for m in now.values())
    corrected = " and ".join(mark(m.memory) for m in now.values())
    on_text = " and ".join(mark(m.decay) for m in now.values())
    text = (
        f"On random input the familiar rule counts {counted} steps in the {when} {names(results)}; the corrected "
        f"measure says {corrected}. On the text itself it says {on_text}."
    )
    if "+" in text:
        text += " A + stands where the measurement ended first, so that the truth may lie beyond."
    exploding = [NAMES[cell] for cell, m in now.items() if m.memory.exploding]
    for cell, m in now.items():
        ratio = relative(m.memory.by_distance)
        at = int(ratio.argmax())
        if np.isfinite(ratio[at]) and ratio[at] > 2:
            size = f"{number(float(ratio[at]))} times as large at {count(at, 'step')}"
            text += f" In the {NAMES[cell]} the gradient on random input grows on its way: {size}."
    if exploding:
        where = " and the ".join(exploding)
        text += f" In the {where} the gradient explodes on random input (!): these counts mean little."
    return text


def _memory(results: Results, width: float) -> Figure:
    return by_distance(
        results,
        width,
        {NAMES[cell]: m.memory.by_distance for cell, m in measured(results)[0].items()},
        [one.before.memory.by_distance for one in results.models.values() if one.before and one.after],
        "Steps back from the last",
    )


def _drawable(results: Results, figure: str) -> bool:
    now = measured(results)[0].values()
    return bool(now) and all(m.memory.by_distance[0] > 0 for m in now)


def _table(results: Results) -> str:
    rows = []
    for cell, one in results.models.items():
        for when, m in (("untrained", one.before), ("trained", one.after)):
            if m is not None:
                values = (rule(results, m), mark(m.memory), mark(m.decay))
                cells = "".join(f"<td>{value}</td>" for value in values)
                rows.append(f'<tr class="{cell}"><th scope="row">{NAMES[cell]}, {when}</th>{cells}</tr>')
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("", "familiar rule", "corrected", "on the text"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _tile(results: Results) -> Tile | None:
    now = measured(results)[0]
    values = {cell: mark(m.memory) for cell, m in now.items()}
    return Tile("Gradient reach, on random input", values, "steps back to 1%") if now else None


SECTION = Section(
    title="Effective memory",
    finding=finding,
    how="""The same on $trials of $trial_length instead of text: its norm, the median over them. The familiar rule
    counts the steps whose gradient exceeds one percent of the largest; it adds up all units, whose signs
    cancel, it takes the mean, which one input out of many can make, and it looks no further than the input
    is long. The corrected measure follows random directions, takes the median, compares with distance 0
    and says when it hit that limit (+) or the gradient exploded (!). The last column is the same measure
    on the text itself.""",
    figures={"memory": _memory},
    drawable=_drawable,
    more=_table,
    tile=_tile,
)
