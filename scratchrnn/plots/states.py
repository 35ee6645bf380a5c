"""Hidden and cell states over time."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_real
from scratchrnn.plots._style import style
from scratchrnn.plots._text import label_steps, visible


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
    if labels is not None and len(labels) != len(states):
        raise ValueError(f"labels: expected {len(states)}, one for each step; got {len(labels)}")
    finite = np.abs(states[np.isfinite(states)])
    if not finite.size:
        raise ValueError("states: expected finite values; got none")
    bound = max(1.0, float(finite.max())) if limit is None else check_real("limit", limit, above=0)
    colors = mpl.colormaps["RdBu_r"].with_extremes(bad="#888888")
    image = ax.imshow(states.T, cmap=colors, vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_ylabel("Hidden unit")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_ticks([-bound, 0, bound], labels=[f"−{bound:.3g}", "0", f"{bound:.3g}"])
    bar.set_label(name)
    bar.outline.set_visible(False)
    if labels is None or not label_steps(ax, [visible(text) for text in labels]):
        ax.set_xlabel("Time step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
