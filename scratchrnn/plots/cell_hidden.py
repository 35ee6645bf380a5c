"""Cell against hidden state: how long each stays like itself, and what the units keep and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, PercentFormatter

from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.dynamics import CellHidden
from scratchrnn.dynamics.autocorrelation import THRESHOLD
from scratchrnn.plots._style import BLUE, FAINT, MUTED, check_curves, colors_of, frame, style
from scratchrnn.plots._text import HALO, Name, name_ends, whole_numbers


@style()
def state_autocorrelation(ax: Axes, found: Mapping[str, CellHidden], *, colors: Sequence[str] | None = None) -> None:
    """Draw the median autocorrelation of c, a full line, and of h, a dashed one, by lag, for each entry.

    A dot marks where a line falls below 1/e; the line's name says after how many steps. The axis ends soon
    after the last of these.

    Parameters
    ----------
    ax : matplotlib Axes
    found : mapping of label to CellHidden
        As `scratchrnn.dynamics.cell_hidden` returns them; the label may be empty where there is one.
    colors : sequence of str, optional
        One for each entry.

    Raises
    ------
    ValueError
        No entries, or one whose units never change.
    TypeError
        Something else.
    """
    check_curves("found", found)
    lines: list[tuple[FloatArray, float, str, str, str]] = []
    for (label, one), color in zip(found.items(), colors_of(found, colors), strict=True):
        _check(f"found[{label!r}]", one)
        for letter, memory, dashes in (("c", one.c, "-"), ("h", one.h, "--")):
            seen = memory.autocorrelation
            if np.isnan(seen.by_lag[0]):
                raise ValueError(f"found[{label!r}]: expected units of {letter} that change; got none")
            lines.append((seen.by_lag, seen.time, f"{label} {letter}".strip(), color, dashes))
    times = [time for _, time, *_ in lines if np.isfinite(time)]
    longest = max(len(curve) for curve, *_ in lines) - 1
    reach = min(longest, max(10, round(1.3 * max(times)))) if len(times) == len(lines) else longest
    ends: list[Name] = []
    lowest = 0.0
    for curve, time, label, color, dashes in lines:
        shown = curve[: reach + 1]
        ax.plot(np.arange(len(shown)), shown, dashes, color=color)
        lowest = min(lowest, float(shown.min()))
        name = f"{label}: over {len(curve) - 1} steps"
        if np.isfinite(time):
            ax.plot(time, THRESHOLD, "o", color=color, markersize=6, zorder=3)
            name = f"{label}: {time:.2g} steps"
        ends.append((len(shown) - 1.0, float(shown[-1]), name, color))
    frame(ax)
    ax.axhline(THRESHOLD, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.annotate(
        "1/e", (1, THRESHOLD), (-3, 3), xycoords=ax.get_yaxis_transform(), textcoords="offset points", ha="right",
        color=MUTED, path_effects=HALO,
    )  # fmt: skip
    ax.set_xlim(0, reach)
    ax.set_ylim(lowest, 1.0)
    ax.xaxis.set_major_locator(whole_numbers())
    ax.set_xlabel("Lag (time steps)")
    ax.set_ylabel("Autocorrelation,\nmedian over units")
    name_ends(ax, ends)


@style()
def cell_units(ax: Axes, found: CellHidden, *, color: str = BLUE) -> None:
    """Draw each unit at how long its forget gate keeps c, and how much of c's variation it shows in o ⊙ tanh(c).

    Lower right: kept and hidden, memory that is decoupled from the output. Upper left: forgotten at once and shown.

    Parameters
    ----------
    ax : matplotlib Axes
    found : CellHidden
    color : str
        Of the points.

    Raises
    ------
    ValueError
        No unit changes and forgets.
    TypeError
        Something else.
    """
    _check("found", found)
    drawn = np.isfinite(found.exposed) & np.isfinite(found.forget_time)
    if not drawn.any():
        raise ValueError("found: expected units that change, and forget at some time; got none")
    x, y = found.forget_time[drawn], found.exposed[drawn]
    ax.scatter(x, y, s=26, color=color, alpha=0.7, linewidths=0, clip_on=False, zorder=2)
    frame(ax)
    ax.set_xscale("log")
    ax.set_xlim(1, max(10.0, 1.3 * float(x.max())))
    ax.set_ylim(0, 1)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("Forget horizon 1/(1 − f), time steps")
    ax.set_ylabel("Variation of c shown in h")
    left_out = int((~drawn).sum())
    if left_out:
        ax.annotate(
            f"{left_out} of {len(drawn)} units left out", (1, 1), (0, 4), xycoords="axes fraction",
            textcoords="offset points", ha="right", color=MUTED,
        )  # fmt: skip


def _check(name: str, value: Any) -> None:
    if not isinstance(value, CellHidden):
        raise TypeError(f"{name}: expected what cell_hidden() returned; got {describe(value)}")
