"""The page of a sweep: the headline numbers of its studies beside each other, with a way to each study's own page."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scratchrnn import plots
from scratchrnn.report.drawing import draw
from scratchrnn.report.page import article, figure_files, fill
from scratchrnn.report.words import COLORS, NAMES
from scratchrnn.study.sweep import Comparison

UNITS = {"bits": "bits per character", "horizon_on_text": "characters"}
WORDS = {
    "hidden": "hidden units", "embedding": "numbers in an embedding", "steps": "updates", "window": "steps in a window",
    "batch": "rows in parallel", "learning-rate": "as learning rate",
}  # fmt: skip
AXES = {
    "hidden": "Hidden units", "embedding": "Size of the embedding", "steps": "Updates", "window": "Window (steps)",
    "batch": "Batch (rows)", "seed": "Seed", "learning-rate": "Learning rate",
}  # fmt: skip
KEYS = {
    "bits": ("learning", "What it does to learning", "Bits per character, held out"),
    "horizon_on_text": ("reach", "What it does to the reach of the gradient", "Characters back to 1%"),
}


HOW = {
    "bits": "Loss on the tenth of the text held out, at the end of training. The lower the better.",
    "horizon_on_text": "The gradient of one prediction followed back through the text: the last distance at which one "
    "percent of its norm is left, the median over places in the text held out, after training.",
}


def render_comparison(comparison: Comparison) -> dict[str, bytes]:
    """report.html and the figures of a sweep, by path within its folder."""
    drawings = {
        name: draw(name, _figure(comparison, key, ylabel))
        for key, (name, _, ylabel) in KEYS.items()
        if _known(comparison, key)
    }
    sections = [article(title, finding(comparison, key), [drawings[name]] if name in drawings else [], "", HOW[key])
                for key, (name, title, _) in KEYS.items()]  # fmt: skip
    parameter = comparison.sweep.parameter
    page = fill(
        title=f"{' and '.join(NAMES[cell] for cell in comparison.cells)}, by {escape(AXES[parameter].lower())}",
        lead=f"{len(comparison.studies)} of {len(comparison.sweep.values)} studies on {escape(comparison.text_name)} "
        f"that differ in one setting, in {comparison.seconds:.0f} seconds.",
        notice="" if comparison.stopped is None else _notice(comparison.stopped),
        sections=[*sections, _studies(comparison)],
    )
    return {"report.html": page.encode()} | figure_files(drawings)


def finding(comparison: Comparison, key: str) -> str:
    """How each model changes over the sweep, and where it is best; over seeds, how much it scatters."""
    parameter, values = comparison.sweep.parameter, list(comparison.studies)
    known = {
        NAMES[cell]: [(v, y) for v, y in zip(values, comparison.values_of(cell, key), strict=True) if y is not None]
        for cell in comparison.cells
    }
    if any(len(points) < 2 for points in known.values()):
        return "There are not two studies to compare yet."
    said = _scatter if parameter == "seed" else _change
    parts = [said(name, points, key) for name, points in known.items()]
    (first, _), *_, (last, _) = next(iter(known.values()))
    start = f"Over {len(values)} seeds" if parameter == "seed" else f"From {first} to {last} {WORDS[parameter]}"
    if " goes from" in parts[0]:  # one verb is enough
        parts[1:] = [part.replace(" goes from", " from", 1) for part in parts[1:]]
    return f"{start} {', '.join(parts)}."


def _change(name: str, points: list[tuple[float, float]], key: str) -> str:
    (first, start), *_, (last, end) = points
    best, peak = (min if key == "bits" else max)(points, key=lambda point: point[1])
    begins, ends = _shown(start, key), _shown(end, key)
    way = f"goes from {begins} to {ends}"
    if begins == ends:
        way = f"{'begins and ends' if len({_shown(y, key) for _, y in points}) > 1 else 'stays'} at {ends}"
    text = f"the {name} {way} {UNITS[key]}"
    return text if best in (first, last) else f"{text} (at best {_shown(peak, key)}, at {best})"


def _scatter(name: str, points: list[tuple[float, float]], key: str) -> str:
    numbers = [y for _, y in points]
    least, most = _shown(min(numbers), key), _shown(max(numbers), key)
    return f"the {name} lies {f'between {least} and {most}' if least != most else f'at {most}'} {UNITS[key]}"


def _shown(value: float, key: str) -> str:
    return f"{value:.2f}" if key == "bits" else f"{value:g}"


def _known(comparison: Comparison, key: str) -> bool:
    return all(any(value is not None for value in comparison.values_of(cell, key)) for cell in comparison.cells)


def _figure(comparison: Comparison, key: str, ylabel: str) -> Callable[[float], Figure]:
    def drawn(width: float) -> Figure:
        figure, ax = plots.figure(width, 3.6)
        plots.by_setting(
            ax,
            list(comparison.studies),
            {NAMES[cell]: comparison.values_of(cell, key) for cell in comparison.cells},
            xlabel=AXES[comparison.sweep.parameter],
            ylabel=ylabel,
            joined=comparison.sweep.parameter != "seed",
            colors=[COLORS[cell] for cell in comparison.cells],
        )
        if key != "bits":
            ax.set_ylim(bottom=0)
            ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        return figure

    return drawn


def _notice(stopped: str) -> str:
    return (
        f'<p class="notice" role="status"><strong>This sweep did not run to its end: {escape(stopped)}.</strong> '
        "All that follows is what was found until then.</p>"
    )


def _studies(comparison: Comparison) -> str:
    heads = (comparison.sweep.parameter, "model", "bits", "horizon on the text", "on random input", "saturated h", "")
    rows = []
    for value, found in comparison.studies.items():
        link = f'<a href="{escape(comparison.folder(value))}/report.html">its report</a>'
        for cell, model in found["models"].items():
            cells = (f"{value}", NAMES[cell], *_numbers(model), link)
            rows.append(f'<tr class="{cell}">{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    table = f'<div class="scroll">{table}</div>'
    return article("The studies", "Each has a page of its own.", [], table, "+: the measurement ended there.")


def _numbers(model: dict[str, Any]) -> list[str]:
    def marked(key: str) -> str:
        sign = "!" if model[f"{key}_exploding"] else "+" if model[f"{key}_censored"] else ""
        return "–" if model[key] is None else f"{model[key]}{sign}"

    bits, saturated = model["bits"], model["saturation"]
    return [
        "–" if bits is None else f"{bits:.2f}",
        marked("horizon_on_text"),
        marked("horizon_on_random_input"),
        "–" if saturated is None else f"{saturated:.0%}",
    ]
