"""What states know of position when the input is constant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scratchrnn._validate import describe
from scratchrnn.dynamics import Position
from scratchrnn.plots._style import FAINT, MUTED, check_curves, colors_of, frame, style
from scratchrnn.plots._text import HALO, Name, name_ends, whole_numbers

_SETTLED = 0.01
_ROUNDING = 1e-12  # relative to the first distance: what lies below says nothing of the net


@style()
def position_map(ax: Axes, found: Position) -> None:
    """Draw the distance between the states of any two steps as a map: white where they are the same.

    Where the state settles, a corner marks the step from which on all states are within 1 % of the fixed point.

    Parameters
    ----------
    ax : matplotlib Axes
        A colour bar is added beside it.
    found : Position

    Raises
    ------
    TypeError
        Something else.
    ValueError
        No finite distance above 0: a state that never moves, or is not finite, has no map.
    """
    _check("found", found)
    distances = found.distances
    known = distances[np.isfinite(distances)]
    if not known.size or not known.any():
        raise ValueError("found: expected states that differ and are finite; got none")
    image = ax.imshow(distances, cmap="Blues", vmin=0, vmax=float(known.max()), origin="lower", interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xlabel("Time step")
    ax.set_ylabel("Time step")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.03, aspect=30)
    part = "all states" if isinstance(found.part, str) else found.part[1]
    bar.set_label(f"Distance between two steps' {part}")
    bar.outline.set_visible(False)
    last, settled = len(distances) - 1, found.settling_time
    if settled is not None and 0 < settled < last:
        edge = settled - 0.5
        ax.plot([edge, edge, last + 0.5], [last + 0.5, edge, edge], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        right = last - settled > 0.4 * last  # of the corner and above it, else to the left and below
        ax.annotate(
            f"settled after {settled} steps", (edge, edge), (6, 6) if right else (-6, -6), textcoords="offset points",
            ha="left" if right else "right", va="bottom" if right else "top", path_effects=HALO,
        )  # fmt: skip


@style()
def position_decay(ax: Axes, found: Mapping[str, Position]) -> None:
    """Draw the distance to the fixed point by step, relative to the first, and dashed what the Jacobian there predicts.

    The dashed line falls by the spectral radius ρ per step and meets the curve at its end, for it says how the distance
    shrinks in the end. A dot marks the settling time, which stands by the name. What falls into rounding is cut off.

    Parameters
    ----------
    ax : matplotlib Axes
    found : mapping of label to Position
        Each with the verdict "fixed point", and not at rest from the start.

    Raises
    ------
    ValueError, TypeError
        No entries, or one that is something else or goes to no fixed point.
    """
    check_curves("found", found)
    ends: list[Name] = []
    reach, lowest = 1, 1.0
    for (label, one), color in zip(found.items(), colors_of(found), strict=True):
        _check(f"found[{label!r}]", one)
        if one.verdict != "fixed point" or not one.to_fixed_point[0] > 0:
            raise ValueError(
                f"found[{label!r}]: expected a state that comes to a fixed point from elsewhere; "
                f"got the verdict {one.verdict!r}, and a first distance of {one.to_fixed_point[0]:.3g}"
            )
        ratio = one.to_fixed_point / one.to_fixed_point[0]
        under = np.flatnonzero(ratio <= _ROUNDING)
        last = int(under[0]) - 1 if under.size else len(ratio) - 1
        steps = np.arange(last + 1)
        ax.plot(steps, ratio[: last + 1], color=color, marker="o", markersize=3, linewidth=1.2)
        if one.spectral_radius > 0:
            predicted = ratio[last] * one.spectral_radius ** (steps - float(last))
            ax.plot(steps, predicted, color=color, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        settled = one.settling_time
        if settled is not None and settled <= last:
            ax.plot(settled, ratio[settled], "o", color=color, markersize=8, zorder=3)
        name = label if settled is None else f"{label}  {settled} step{'s' if settled != 1 else ''}"
        ends.append((last, float(ratio[last]), f"{name}, ρ {one.spectral_radius:.3f}", color))
        reach, lowest = max(reach, last), min(lowest, float(ratio[last]))
    frame(ax)
    ax.set_yscale("log")
    ax.set_xlim(0, reach)
    ax.set_ylim(min(lowest, _SETTLED) / 2, 3)
    ax.axhline(_SETTLED, color=FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    ax.annotate(
        "1 %", (1, _SETTLED), (-3, 3), xycoords=ax.get_yaxis_transform(), textcoords="offset points", ha="right",
        color=MUTED, path_effects=HALO,
    )  # fmt: skip
    ax.set_xlabel("Time step")
    ax.set_ylabel("Distance to the fixed point,\nrelative to the first")
    ax.xaxis.set_major_locator(whole_numbers())
    name_ends(ax, ends)


def _check(name: str, value: object) -> None:
    if not isinstance(value, Position):
        raise TypeError(f"{name}: expected what position() returned; got {describe(value)}")
