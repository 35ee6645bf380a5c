"""Learning: the loss of each model over training."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.report.section import Section, Tile
from scratchrnn.report.words import NAMES, colors, count
from scratchrnn.study import Results

CLOSE = 0.02  # bits: less is no difference worth a word


def finding(results: Results) -> str:
    """Who predicts the text held out better, by how much, and whether more training helped to the end."""
    last = {cell: one.curve.validation[-1][1] for cell, one in results.models.items() if one.curve.validation}
    if len(last) < len(results.models) or not results.steps_done:
        return "No training step was reached."
    lost = [NAMES[cell] for cell, bits in last.items() if not np.isfinite(bits)]
    if lost:
        models = " and the ".join(lost)
        return (
            f"After {count(results.steps_done, 'step')} the loss of the {models} on the text held out is not finite: "
            "training has diverged."
        )
    better, *others = sorted(last, key=lambda cell: last[cell])
    text = (
        f"After {count(results.steps_done, 'step')} the {NAMES[better]} needs {last[better]:.2f} bits for a character "
        "it has not seen"
    )
    for worse in others:
        lead = round(last[worse], 2) - round(last[better], 2)  # of the numbers that are shown
        if lead < CLOSE:
            text += f" and the {NAMES[worse]} {last[worse]:.2f}: no real difference"
        else:
            text += (
                f", the {NAMES[worse]} {last[worse]:.2f}: "
                f"the {NAMES[better]} is ahead by {lead:.2f} bits, {lead / last[worse]:.0%}"
            )
    text += "."
    below = results.unigram_bits - last[better]
    text += (
        " A guess that knows only how frequent each character is in the whole text needs about "
        f"{results.unigram_bits:.2f}"
    )
    if below <= CLOSE:
        text += f": {'they' if others else 'it'} learned less than that."
    elif last[better] * 100 < results.unigram_bits:
        text += ", more than a hundred times as many."
    else:
        text += f", {results.unigram_bits / last[better]:.1f} times as many."
    for cell, one in results.models.items():
        step, best = min(one.curve.validation, key=lambda point: point[1])
        if one.curve.validation[-1][1] > best + CLOSE:
            text += f" The {NAMES[cell]} was best at step {step:,}, with {best:.2f}; since then it overfits."
    return text


def _loss(results: Results, width: float) -> Figure:
    figure, ax = plots.figure(width, 3.8)
    curves = {NAMES[cell]: one.curve for cell, one in results.models.items()}
    held_out = {name: np.array(curve.validation).T for name, curve in curves.items()}
    seen = [value for curve in curves.values() for value in [*curve.bits, *(v for _, v in curve.validation)]]
    lowest = min(results.unigram_bits, *filter(np.isfinite, seen))
    ends = (values[np.isfinite(values)][-1] for _, values in held_out.values())
    highest = max(results.unigram_bits * 1.1, *ends)
    ax.set_ylim(lowest - 0.05 * (highest - lowest), highest)  # before training the loss lies far above
    for color, curve in zip(colors(results), curves.values(), strict=True):
        ax.plot(np.arange(1, len(curve.bits) + 1), curve.bits, color=color, alpha=0.35, linewidth=0.7)
    ax.axhline(results.unigram_bits, color=plots.FAINT, linewidth=1, linestyle=(0, (4, 3)))
    ax.annotate(
        f"no context  {results.unigram_bits:.2f}", (1, results.unigram_bits), (0, 4), color=plots.MUTED, ha="right",
        xycoords=ax.get_yaxis_transform(), textcoords="offset points",
    )  # fmt: skip
    points = {name: (v[0], v[1]) for name, v in held_out.items()}
    plots.loss_curves(ax, points, smooth=1, ylabel="Bits per character", colors=colors(results))
    return figure


def _drawable(results: Results, figure: str) -> bool:
    return all(len(one.curve.validation) > 1 or one.curve.bits for one in results.models.values())


def _tile(results: Results) -> Tile | None:
    if not all(one.curve.validation for one in results.models.values()):
        return None
    bits = {cell: one.curve.validation[-1][1] for cell, one in results.models.items()}
    last = {cell: f"{value:.2f}" if np.isfinite(value) else "–" for cell, value in bits.items()}
    return Tile("Bits per unseen character", last, f"{results.unigram_bits:.2f} without context (whole text)")


SECTION = Section(
    title="Learning",
    finding=finding,
    how="""Thick lines: loss on the tenth of the text held out. Thin lines: loss of each training window. Every
    model reads the same windows in the same order, carries its state from one to the next, and follows
    the gradient back through $window. Dashed: the entropy of single characters in the whole text.""",
    figures={"loss": _loss},
    drawable=_drawable,
    tile=_tile,
)
