"""Losses over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_positive_int
from scratchrnn.plots._style import check_curves, colors_of, frame, style
from scratchrnn.plots._text import Name, name_ends


@style()
def loss_curves(
    ax: Axes,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    smooth: int | None = None,
    ylabel: str = "Loss",
    colors: Sequence[str] | None = None,
) -> None:
    """Draw losses over training: each value faintly, their moving average as a line with its last value at the end.

    Parameters
    ----------
    ax : matplotlib Axes
    curves : mapping of label to (steps (N,), values (N,))
        A value that is not finite leaves a gap.
    smooth : int, optional
        Values in the moving average, which is centred and shorter at both ends. When absent, a fiftieth of the curve;
        1 for none.
    ylabel : str
    colors : sequence of str, optional
        One for each curve.

    Raises
    ------
    ValueError
        No curves, steps and values of different lengths, or a curve without a finite value.
    """
    check_curves("curves", curves)
    ends: list[Name] = []
    for (label, (steps, values)), color in zip(curves.items(), colors_of(curves, colors), strict=True):
        x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"curves[{label!r}]: expected steps and values (N,); got {x.shape} and {y.shape}")
        y = np.where(np.isfinite(y), y, np.nan)
        if np.isnan(y).all():
            raise ValueError(f"curves[{label!r}]: expected at least one finite value; got none among {len(y)}")
        window = max(1, len(y) // 50) if smooth is None else check_positive_int("smooth", smooth)
        mean = _moving_average(y, window)
        if window > 1:
            ax.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
        ax.plot(x, mean, color=color)
        last = int(np.flatnonzero(~np.isnan(y))[-1])
        ends.append((float(x[last]), float(mean[last]), f"{label}  {mean[last]:.2f}", color))
    frame(ax)
    ax.set_xlabel("Training step")
    ax.set_ylabel(ylabel)
    ax.margins(x=0)
    name_ends(ax, ends)


def _moving_average(y: FloatArray, window: int) -> FloatArray:
    """Centred mean over what is not NaN; NaN where y is."""
    known = ~np.isnan(y)
    box = np.ones(min(window, len(y)))
    total = np.convolve(np.where(known, y, 0.0), box, "same")
    count = np.convolve(known.astype(np.float64), box, "same")
    return np.where(known, total / np.maximum(count, 1), np.nan)
