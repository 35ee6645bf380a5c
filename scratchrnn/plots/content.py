"""Final states in the plane along which they differ most."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.dynamics import Projection
from scratchrnn.plots._style import BLUE, FAINT, INK, frame, style
from scratchrnn.plots._text import HALO, families, visible

_ANGLES = np.radians([0, 180, 90, 270, 45, 135, 315, 225, 22.5, 157.5, 337.5, 202.5])
_DISTANCES = (7.0, 14.0, 24.0, 36.0, 52.0)  # points


@style()
def projection(ax: Axes, found: Projection, labels: Sequence[str] | None = None, *, color: str = BLUE) -> int:
    """Draw states as points along their first two components, each with its text beside it.

    One unit is as long on either axis, so that distances are those between the states, as far as the plane shows them.
    States of one sequence are joined in their order of time. A label that would touch another or a point is moved
    away, with a line to its point, and left out where no place is free within the axes.

    Parameters
    ----------
    ax : matplotlib Axes
    found : Projection
        Of at least two components.
    labels : sequence of str (N,), optional
        A text for each state; see `visible`. Labels longer than 30 characters end in …
    color : str
        Of the points.

    Returns
    -------
    int
        Labels that are drawn.

    Raises
    ------
    ValueError
        Only one component, or labels of another number.
    TypeError
        Not a projection.
    """
    if not isinstance(found, Projection):
        raise TypeError(f"found: expected what project() returned; got {describe(found)}")
    if found.points.shape[1] < 2:
        raise ValueError("found: expected at least two components; got 1")
    if labels is not None and len(labels) != len(found.points):
        raise ValueError(f"labels: expected {len(found.points)}, one for each state; got {len(labels)}")
    x, y = found.points[:, 0], found.points[:, 1]
    for sample in np.unique(found.sample):
        own = found.sample == sample
        if own.sum() > 1:
            ax.plot(x[own], y[own], color=FAINT, linewidth=1, zorder=1)
    ax.scatter(x, y, s=28, color=color, linewidths=0, zorder=2)
    frame(ax)
    # a square of data in a square of the figure, whatever a layout does to the axes later
    half = 0.62 * max(float(np.ptp(x)), float(np.ptp(y)))
    ax.set_xlim((x.min() + x.max()) / 2 - half, (x.min() + x.max()) / 2 + half)
    ax.set_ylim((y.min() + y.max()) / 2 - half, (y.min() + y.max()) / 2 + half)
    ax.set_aspect("equal", adjustable="box")
    for axis, number in ((ax.xaxis, 0), (ax.yaxis, 1)):
        axis.set_label_text(f"Component {number + 1} ({found.explained_variance_ratio[number]:.0%} of the variance)")
    return 0 if labels is None else _place(ax, found, [_short(text) for text in labels])


def _short(text: str) -> str:
    shown = visible(text)
    text = shown.replace("␣", " ") if text.strip() else shown  # words are read more easily with spaces between them
    return text if len(text) <= 30 else text[:29] + "…"


def _place(ax: Axes, found: Projection, labels: Sequence[str]) -> int:
    """Write each label at the first place near its point that is free; the most crowded last."""
    whole = ax.figure.canvas.figure
    if (engine := whole.get_layout_engine()) is not None:
        engine.execute(whole)  # where the axes will be
    ax.apply_aspect()
    box, pixel = ax.get_window_extent(), whole.dpi / 72
    points = ax.transData.transform(found.points[:, :2])  # (N, 2)
    radius = 4 * pixel
    taken = [Bbox.from_extents(*(point - radius), *(point + radius)) for point in points]
    crowd = (np.hypot(*(points[:, None] - points[None]).T) < 60 * pixel).sum(axis=0)
    size = 0.9 * float(mpl.rcParams["font.size"])
    drawn, (x, y) = 0, found.points[:, :2].T
    for n in np.argsort(crowd, kind="stable"):
        text = ax.annotate(
            labels[n], (x[n], y[n]), (0, 0), textcoords="offset points", ha="left", va="bottom", fontsize=size,
            color=INK, path_effects=HALO, parse_math=False, fontfamily=families(), zorder=3,
        )  # fmt: skip
        own = text.get_window_extent()
        place = _free_place(points[n], own, taken, box, pixel)
        if place is None:
            text.remove()
            continue
        text.set_position(tuple((place.p0 - own.p0) / pixel))
        taken.append(place)
        drawn += 1
        near = np.clip(points[n], place.p0, place.p1)
        if np.hypot(*(near - points[n])) > 10 * pixel:
            ax.plot(*ax.transData.inverted().transform([points[n], near]).T, color=FAINT, linewidth=0.8, zorder=1)
    return drawn


def _free_place(point: FloatArray, own: Bbox, taken: Sequence[Bbox], inside: Bbox, pixel: float) -> Bbox | None:
    """A box of the size of `own` near the point (2,), within `inside` and clear of those taken; None where none is."""
    half = np.array([own.width, own.height]) / 2
    for distance in _DISTANCES:
        for angle in _ANGLES:
            side = np.array([np.cos(angle), np.sin(angle)])
            middle = point + side * (distance * pixel + half)
            place = Bbox.from_extents(*(middle - half), *(middle + half))
            within = (place.p0 >= inside.p0).all() and (place.p1 <= inside.p1).all()
            if within and not any(place.overlaps(other) for other in taken):
                return place
    return None
