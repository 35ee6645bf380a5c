"""Gradient flow over training: how far back memory reaches as a net learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_positive_int, describe
from scratchrnn.gradflow import GradientFlow
from scratchrnn.plots._style import INK, check_curves, colors_of, frame, style
from scratchrnn.plots._text import Name, name_ends, whole_numbers

_DECADES = 2  # shown below the threshold
OUTLINE = [withStroke(linewidth=4, foreground=INK)]  # keeps a white line visible on light colours


@style()
def memory_over_training(ax: Axes, flows: Mapping[str, GradientFlow], *, colors: Sequence[str] | None = None) -> None:
    """Draw the horizon over training, a line for each entry with its last value at the end.

    The axis of updates is logarithmic, with room for 0. A ring marks a horizon that is the end of what was measured, a
    cross one of an exploding gradient; a + after the last value says the former.

    Parameters
    ----------
    ax : matplotlib Axes
    flows : mapping of label to GradientFlow
        As `GradientFlowRecorder.result` returns them.
    colors : sequence of str, optional
        One for each entry.

    Raises
    ------
    ValueError, TypeError
        No entries, one that is something else, or colors of another number.
    """
    check_curves("flows", flows)
    ends: list[Name] = []
    for (label, flow), color in zip(flows.items(), colors_of(flows, colors), strict=True):
        _check_flow(f"flows[{label!r}]", flow)
        ax.plot(flow.steps, flow.horizon, color=color, marker="o", markersize=3)
        for marked, marker, size in ((flow.censored & ~flow.exploding, "o", 8), (flow.exploding, "x", 7)):
            face = "white" if marker == "o" else color
            ax.plot(
                flow.steps[marked], flow.horizon[marked], linestyle="", marker=marker, markersize=size, color=color,
                markerfacecolor=face, markeredgewidth=1.5, zorder=3, clip_on=False,
            )  # fmt: skip
        more = "+" if flow.censored[-1] else ""
        ends.append((float(flow.steps[-1]), float(flow.horizon[-1]), f"{label}  {flow.horizon[-1]}{more}", color))
    frame(ax)
    _log_updates(ax, max(int(flow.steps[-1]) for flow in flows.values()))
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(whole_numbers())
    ax.set_ylabel("Horizon (time steps)")
    name_ends(ax, ends)


@style()
def gradient_over_training(ax: Axes, flow: GradientFlow, *, reach: int | None = None) -> None:
    """Draw a map of gradient norms, updates to the right and distance upwards, with the horizon as a line.

    Norms are relative to distance 0 of the same sample; colours are logarithmic and end two decades below the
    threshold. What is not a number is grey.

    Parameters
    ----------
    ax : matplotlib Axes
        A colour bar is added beside it.
    flow : GradientFlow
        At least two samples.
    reach : int, optional
        Largest distance shown. When absent, half as far again as the longest horizon.

    Raises
    ------
    ValueError, TypeError
        Something else, a single sample, or a reach below 1.
    """
    _check_flow("flow", flow)
    if len(flow.steps) < 2:
        raise ValueError("flow: expected at least two samples; got 1")
    longest = flow.input.shape[1] - 1
    shown = 3 * int(flow.horizon.max()) // 2 + 2 if reach is None else check_positive_int("reach", reach)
    shown = min(shown, longest)
    with np.errstate(all="ignore"):
        ratio = flow.input[:, : shown + 1] / flow.input[:, :1]
    low = flow.threshold * 10.0**-_DECADES
    image = ax.pcolormesh(
        _edges(flow.steps), np.arange(shown + 2) - 0.5, np.clip(ratio, low, 1.0).T, norm=LogNorm(low, 1.0),
        cmap=mpl.colormaps["viridis"].with_extremes(bad="#888888"), rasterized=True,
    )  # fmt: skip
    ax.plot(flow.steps, flow.horizon, color="white", path_effects=OUTLINE)
    frame(ax)
    _log_updates(ax, int(flow.steps[-1]))
    ax.set_ylim(-0.5, shown + 0.5)
    ax.yaxis.set_major_locator(whole_numbers())
    ax.set_ylabel("Distance from the last step\n(time steps)")
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label("Gradient norm, relative\nto the last step")
    bar.ax.axhline(flow.threshold, color="white", linewidth=2, path_effects=OUTLINE)
    bar.outline.set_visible(False)


def _edges(steps: IntArray) -> FloatArray:
    """Where one sample's column ends and the next one's begins: halfway between them in log(1 + update)."""
    place = np.log1p(steps)
    middle = (place[1:] + place[:-1]) / 2
    return np.asarray(np.expm1(np.concatenate([place[:1], middle, place[-1:]])))


def _log_updates(ax: Axes, last: int) -> None:
    """Logarithmic from 1 on, with 0 one place before."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set_xlim(0, max(last, 1))
    ticks = [0, *(10**n for n in range(len(str(last))))]
    ax.set_xticks(ticks, [f"{tick:g}" if tick < 1000 else f"{tick // 1000:,}k" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("Updates")


def _check_flow(name: str, flow: object) -> None:
    if not isinstance(flow, GradientFlow):
        raise TypeError(f"{name}: expected what GradientFlowRecorder.result() returned; got {describe(flow)}")
