"""A figure in the forms that a report has it in: in two widths for the page, and as files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from scratchrnn import plots

WIDE, NARROW = 8.0, 3.75  # inches, 96 pixels each on the page
CELL_LIMIT = 3.0  # of the colours for c; tanh(3) is 0.995, so what lies beyond looks the same to h

# what the page may recolour, by its theme; the others of matplotlib's colours stay
THEMED = {
    plots.INK.lower(): "var(--ink)",
    plots.FAINT.lower(): "var(--line)",
    plots.BLUE.lower(): "var(--rnn)",
    plots.VERMILION.lower(): "var(--lstm)",
    plots.LOW.lower(): "var(--low)",
    plots.HIGH.lower(): "var(--high)",
    plots.MUTED.lower(): "var(--muted)",
    "#ffffff": "var(--page)",
    plots.TRACK.lower(): "var(--track)",
}


@dataclass(frozen=True)
class Drawing:
    """A figure in all its forms.

    Attributes
    ----------
    wide, narrow : str
        SVG elements for the page, in its colours.
    svg, png : bytes
        Files of the wide form, on white.
    """

    wide: str
    narrow: str
    svg: bytes
    png: bytes


def draw(name: str, figure: Callable[[float], Figure]) -> Drawing:
    """Draw one figure, a function of its width in inches, in all its forms."""
    with plots.style():
        wide, narrow = (figure(width) for width in (WIDE, NARROW))
        svg = _save(wide, f"{name}-wide")
        return Drawing(
            _for_page(svg), _for_page(_save(narrow, f"{name}-narrow")), _on_white(svg), _save(wide, name, "png")
        )


def _save(figure: Figure, salt: str, kind: str = "svg") -> bytes:
    buffer = io.BytesIO()
    # equal numbers give equal files, and no two figures of a page share an id
    with mpl.rc_context({"svg.hashsalt": salt}):
        if kind == "svg":
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            figure.set_layout_engine("none")  # keeps the layout, which is half the work, for a second format
        else:
            figure.savefig(buffer, format=kind, dpi=200)
    return buffer.getvalue()


def _on_white(svg: bytes) -> bytes:
    """The same on a white ground, for viewers that show none."""
    start = svg.index(b">", svg.index(b"<svg")) + 1
    return svg[:start] + b'\n <rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


def _for_page(svg: bytes) -> str:
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<title>.*?</title>", "", text, flags=re.DOTALL)
    return re.sub("|".join(THEMED), lambda found: THEMED[found[0]], text)
