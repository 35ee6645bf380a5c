"""The look of the figures: colours, fonts, frames, and what every drawing function checks of its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scratchrnn._validate import check_real, describe
from scratchrnn.plots._text import families

# Okabe & Ito, Color universal design, 2008; the yellow is too pale for lines on white
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
# ends of a range, in the hues of no line (Tol, Colour schemes, 2021, "muted"); white can be read on both
LOW, HIGH = "#117733", "#AA4499"
INK, MUTED, FAINT, TRACK = "#333333", "#777777", "#BBBBBB", "#E6E6E6"

_RC: dict[str, Any] = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.family": families(),
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titlepad": 10,
    "axes.prop_cycle": cycler(color=PALETTE),
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}


@contextmanager
def style() -> Iterator[None]:
    """Use the look of these figures inside a `with` block; matplotlib's settings are as before afterwards.

    The drawing functions use it by themselves. Create figure and axes inside as well, or with `figure`.
    """
    with mpl.rc_context(_RC):  # type: ignore[arg-type]
        yield


@style()
def figure(width: float = 7.0, height: float = 3.6) -> tuple[Figure, Axes]:
    """Create a figure of `width` by `height` inches, 100 pixels each, with one axes and the look of `style`."""
    made = Figure(figsize=(check_real("width", width, above=0), check_real("height", height, above=0)))
    return made, made.subplots()


def colors_of(curves: Mapping[str, Any], given: Sequence[str] | None = None) -> list[str]:
    """One colour for each curve: those given, or the palette's."""
    if given is not None and len(given) != len(curves):
        raise ValueError(f"colors: expected {len(curves)}, one for each curve; got {len(given)}")
    return [PALETTE[n % len(PALETTE)] for n in range(len(curves))] if given is None else list(given)


def check_curves(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of label to data; got {describe(value)}")
    if not value:
        raise ValueError(f"{name}: expected at least one entry; got none")


def frame(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
