"""Every figure of a report, in both widths: numbers on the axes stand apart and inside the picture."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.axis import Axis
from matplotlib.text import Text

from scratchrnn import plots
from scratchrnn.report.drawing import NARROW, WIDE
from scratchrnn.report.sections import SECTIONS
from scratchrnn.study import Results, run
from tests.test_plots import png
from tests.test_study import SETTINGS, TEXT

FIGURES = {name: draw for section in SECTIONS for name, draw in section.figures.items()}


@pytest.fixture(scope="module")
def results() -> Results:
    return run(TEXT, SETTINGS)


def drawn(axis: Axis) -> list[Text]:
    """The labels of ticks within the axis; matplotlib keeps others that it does not draw."""
    low, high = sorted(axis.get_view_interval())
    ticks = [t for t in axis.get_major_ticks() if low - 1e-9 <= t.get_loc() <= high + 1e-9]
    return [text for t in ticks for text in (t.label1, t.label2) if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", FIGURES)
def test_numbers_on_the_axes_stand_apart(results: Results, name: str, width: float) -> None:
    with plots.style():
        figure = FIGURES[name](results, width)
        png(figure)
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            found = [(text.get_text(), text.get_window_extent()) for text in drawn(axis)]
            for (one, box), (other, next_box) in pairwise(found):
                assert not box.overlaps(next_box), f"{one!r} touches {other!r}"
            for text, box in found:
                assert box.x0 >= 0, text
                assert box.x1 <= figure.bbox.x1, text
