"""A section of the page: everything about one finding in one record, which one file of `sections` holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from scratchrnn.report.words import measured
from scratchrnn.study import Results

Draw = Callable[[Results, float], Figure]  # the second is the width in inches: drawing.WIDE or drawing.NARROW
Words = Callable[[Results], str]


def nothing(results: Results) -> str:
    """Where a section has no such part."""
    return ""


@dataclass(frozen=True)
class Tile:
    """A headline number of each model, for the strip at the top of the page.

    Attributes
    ----------
    title : str
    values : dict of cell to str
    unit : str
        The small line below.
    """

    title: str
    values: dict[str, str]
    unit: str


@dataclass(frozen=True)
class Section:
    """A part of the page: what was found, worked out from the results, the figures, and how it was measured.

    Attributes
    ----------
    title : str
    finding : callable
        Results -> one sentence or two, as HTML, computed from the numbers that the figures show.
    how : str or callable
        The caption: how it was measured and how to read it; HTML, with $names as `page.caption` has them. A function of
        the results where it depends on which models there are.
    figures : mapping of name to callable
        (Results, width in inches) -> matplotlib Figure. The name is that of the files in the folder figures.
    shown : callable
        Results -> whether the section is part of this report at all, as one on gates is not without an LSTM.
    drawable : callable
        (Results, name of a figure) -> whether there are numbers for it; by default, whether all models were measured.
    more : callable
        Results -> HTML between figures and caption, such as a table.
    tile : callable
        Results -> the headline numbers, or None.
    """

    title: str
    finding: Words
    how: str | Words
    figures: Mapping[str, Draw] = field(default_factory=dict)
    shown: Callable[[Results], bool] = lambda results: True
    drawable: Callable[[Results, str], bool] = lambda results, figure: bool(measured(results)[0])
    more: Words = nothing
    tile: Callable[[Results], Tile | None] = lambda results: None
