"""What a state holds: states after the same words lie together."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchrnn import plots
from scratchrnn.plots import UNKNOWN, visible
from scratchrnn.report.panels import panels
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, colors, measured, not_measured
from scratchrnn.study import Results, WordStates


def finding(results: Results) -> str:
    """How often the nearest state is one after the same word, and how much of it all the plane shows."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    found = _words(results)
    if not found and results.settings.hidden_size == 1:
        return "States of one hidden unit lie on a line: there is no plane to show them in."
    if not found:
        return "The text held out has too few words that come again, or the states after them are all the same."
    first = next(iter(found.values()))
    same = [f"{words.same_word:.0%} of cases in the {when} {name}" for name, words in found.items()]
    letter = [f"{words.same_letter:.0%}" for words in found.values()]
    plane = [f"{words.projection.explained_variance_ratio[:2].sum():.0%}" for words in found.values()]
    text = (
        f"After a frequent word, the nearest other state is one after the same word in {' and '.join(same)} "
        f"({first.chance_word:.0%} by chance), and one after a word with the same last letter in "
        f"{' and '.join(letter)} ({first.chance_letter:.0%} by chance). Two principal components hold "
        f"{' and '.join(plane)} of the variance."
    )
    if any(visible(c) == UNKNOWN for word in first.words for c in word):
        text += f" {UNKNOWN} stands for characters that the figure's fonts have no sign for."
    return text


def _words(results: Results) -> dict[str, WordStates]:
    found = {NAMES[cell]: m.inside.words for cell, m in measured(results)[0].items()}
    return {name: words for name, words in found.items() if words is not None}


def _scatter(results: Results, width: float) -> Figure:
    found = _words(results)
    figure, axes = panels(list(found), width, 4.0)
    for ax, words, color in zip(axes, found.values(), colors(results), strict=True):
        plots.projection(ax, words.projection, _one_label_each(words), color=color)
    return figure


def _one_label_each(words: WordStates) -> list[str]:
    """Each word once, at the state nearest to the middle of its own, where there is room for all."""
    labels = [""] * len(words.words)
    for word in set(words.words):
        own = np.array([n for n, other in enumerate(words.words) if other == word])
        points = words.projection.points[own]
        labels[own[np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()]] = word
    return labels


SECTION = Section(
    title="What a state holds",
    finding=finding,
    how="""Hidden states after the last character of frequent words of the text held out, each word in several places,
    on the two directions in which they differ most (principal components); one unit is as long on either axis.""",
    figures={"words": _scatter},
    drawable=lambda results, figure: bool(_words(results)) and len(_words(results)) == len(results.models),
)
