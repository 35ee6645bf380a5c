"""Hidden and cell states over time."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_real, describe
from scratchrnn.dynamics import Evolution
from scratchrnn.plots._style import style
from scratchrnn.plots._text import check_labels, name_steps

_NAMES = {
    "h": "Hidden state h", "c": "Cell state c", "i": "Input gate", "f": "Forget gate", "g": "Candidate g",
    "o": "Output gate",
}  # fmt: skip


@style()
def hidden_states(
    ax: Axes,
    states: FloatArray,
    labels: Sequence[str] | None = None,
    *,
    limit: float | None = None,
    name: str = "Activation",
) -> None:
    """Draw one sequence's states as a map: time to the right, units down, blue below 0, white at 0, red above.

    Parameters
    ----------
    ax : matplotlib Axes
        A colour bar is added beside it.
    states : ndarray (T, H)
        Such as `trace.h[1:, 0]` or `trace.c[1:, 0]`. NaN is drawn grey.
    labels : sequence of str (T,), optional
        What was read at each step, such as its character; see `visible`. They are set as large as they fit, and left
        out for step numbers where not even small ones fit.
    limit : float, optional
        The colours span -limit to limit. When absent: 1 if all |states| <= 1, as in any tanh or LSTM h, else the
        largest |states|.
    name : str
        For the colour bar.

    Raises
    ------
    ValueError
        States of another rank, labels of another number, or nothing finite to draw.
    """
    check_array("states", states)
    if states.ndim != 2 or not states.size:
        raise ValueError(f"states: expected shape (T, H), one sequence; got {states.shape}")
    check_labels(labels, len(states))
    finite = np.abs(states[np.isfinite(states)])
    if not finite.size:
        raise ValueError("states: expected finite values; got none")
    bound = max(1.0, float(finite.max())) if limit is None else check_real("limit", limit, above=0)
    bar = _map(ax, states, "RdBu_r", -bound, bound)
    bar.set_label(name)
    name_steps(ax, labels)


@style()
def evolution(figure: Figure, found: Evolution, labels: Sequence[str] | None = None) -> list[Axes]:
    """Draw one sequence's states and gates as maps below one another: time to the right, units down.

    Each part has colours of its own: h and g of a tanh from -1 to 1; c, which has no bounds, from minus to plus its own
    largest magnitude, as has a projected h; i, f, o from 0 (closed) to 1 (open); h of a relu net from 0 to its largest
    value. NaN is drawn grey.

    Parameters
    ----------
    figure : matplotlib Figure
        An empty one, as from `plots.empty_figure(7, 8)`; about 1.5 inches of height for each part.
    found : Evolution
        As `scratchrnn.dynamics.evolution` returned it.
    labels : sequence of str (T,), optional
        What was read at each step; as in `hidden_states`.

    Returns
    -------
    list of Axes
        A map for each part, from the top, without the colour bars.

    Raises
    ------
    ValueError
        Labels of another number, or a part without a finite value.
    TypeError
        Not an evolution.
    """
    if not isinstance(found, Evolution):
        raise TypeError(f"found: expected what evolution() returned; got {describe(found)}")
    check_labels(labels, found.steps)
    panels = list(figure.subplots(len(found.parts), 1, sharex=True, squeeze=False)[:, 0])
    for ax, (name, values) in zip(panels, found.parts.items(), strict=True):
        low, high = _range(name, values, found.cell)
        bar = _map(ax, values, "RdBu_r" if low < 0 else "Purples", low, high)
        bar.set_label(_NAMES[name])
        ax.tick_params(labelbottom=False)
    panels[-1].tick_params(labelbottom=True)
    name_steps(panels[-1], labels)
    return panels


def _range(name: str, values: FloatArray, cell: str) -> tuple[float, float]:
    """What the colours of a part span."""
    if name in ("i", "f", "o"):
        return 0.0, 1.0
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size:
        raise ValueError(f"found: expected finite values of {name}; got none")
    largest = float(finite.max())
    if name == "h" and cell == "rnn_relu":
        return 0.0, largest or 1.0
    bound = (largest or 1.0) if name == "c" else max(1.0, largest)
    return -bound, bound


def _map(ax: Axes, states: FloatArray, colormap: str, low: float, high: float) -> Colorbar:
    """The picture of states (T, H), with its colour bar."""
    colors = mpl.colormaps[colormap].with_extremes(bad="#888888")
    image = ax.imshow(states.T, cmap=colors, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_ylabel("Hidden unit")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    ticks = [low, 0.0, high] if low < 0 else [low, high]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}".replace("-", "−") for tick in ticks])
    bar.outline.set_visible(False)
    return bar
