"""Whose gradient: what the loss at each step adds to the gradient at each other step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import PercentFormatter

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_int, check_probability, check_real, describe
from scratchrnn.gradflow import Itemized
from scratchrnn.plots._style import FAINT, MUTED, check_curves, colors_of, frame, style
from scratchrnn.plots._text import Name, families, label_steps, name_ends, visible, whole_numbers

_KINDS = ("h", "c", "input")


@style()
def itemized_map(
    ax: Axes,
    items: Itemized,
    labels: Sequence[str] | None = None,
    *,
    sample: int = 0,
    of: str = "h",
    layer: int = -1,
    bottom: float = 1e-4,
) -> None:
    """Draw one sample's gradients, itemised: a row for each loss, a column for each step that it reaches back to.

    Parameters
    ----------
    ax : matplotlib Axes
        A colour bar is added beside it.
    items : Itemized
    labels : sequence of str, optional
        What was read at each of the sample's steps, such as its character; see `visible`. They are left out for step
        numbers where not even small ones fit.
    sample : int
    of : "h", "c", "input", or the name of a weight
        Which gradient: of the hidden states, the cell states, or the input; or what each step adds to the gradient of a
        weight, such as "weight_hh_l0", over all samples together, whatever `sample` is.
    layer : int
        From 0; the last when absent. Not looked at for the input and for weights.
    bottom : float
        The colours span this share of the largest norm to the largest, on a logarithmic scale; what is below has the
        lowest colour. Between 0 and 1, both excluded.

    Raises
    ------
    ValueError
        Cell states of an RNN, labels of another number, a number out of range, or nothing finite above 0 to draw.
    TypeError
        `items` is something else.
    """
    norms = _norms(items, sample, of, layer)
    steps = len(norms)
    if labels is not None and len(labels) != steps:
        raise ValueError(f"labels: expected {steps}, one for each step of the sample; got {len(labels)}")
    if check_real("bottom", bottom, above=0) >= 1:
        raise ValueError(f"bottom: expected a number below 1; got {bottom}")
    finite = norms[np.isfinite(norms)]
    largest = finite.max(initial=0.0)
    if not largest > 0:
        raise ValueError("items: expected a finite norm above 0; got none")
    later = np.triu(np.ones((steps, steps), bool), 1)
    shown = np.ma.masked_array(np.maximum(norms / largest, bottom), later)
    palette = mpl.colormaps["magma_r"].with_extremes(bad="none")
    image = ax.imshow(shown, cmap=palette, norm=LogNorm(bottom, 1.0), interpolation="nearest", aspect="auto")
    frame(ax)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label("Gradient norm, relative to the largest")
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    ax.annotate(
        "a loss adds nothing\nto later steps", (0.97, 0.95), xycoords="axes fraction", ha="right", va="top", color=MUTED
    )
    texts = None if labels is None else [visible(text) for text in labels]
    if texts is None or not label_steps(ax, texts):
        ax.xaxis.set_major_locator(whole_numbers())
    if texts is None or not _label_rows(ax, texts):
        ax.yaxis.set_major_locator(whole_numbers())
    if of in items.weights:
        ax.set_xlabel(f"What step k adds to the gradient of {of}")
    else:
        ax.set_xlabel("Gradient of the input at step k" if of == "input" else f"Gradient of {of} after reading, step k")
    ax.set_ylabel("Loss after reading, step t")


@style()
def share_beyond(
    ax: Axes, shares: Mapping[str, FloatArray], *, mark: float = 0.1, colors: Sequence[str] | None = None
) -> None:
    """Draw what share of a step's gradient comes from losses further away than each distance, a line for each entry.

    A dot marks the first distance beyond which no more than `mark` comes from; the line's name says which.

    Parameters
    ----------
    ax : matplotlib Axes
    shares : mapping of label to ndarray (D,)
        As `Itemized.share_beyond` returns them.
    mark : float
        Between 0 and 1.
    colors : sequence of str, optional
        One for each entry.

    Raises
    ------
    ValueError
        No entries, or one of another rank or without a finite value.
    TypeError
        Not arrays.
    """
    check_curves("shares", shares)
    mark = check_probability("mark", mark)
    ends: list[Name] = []
    for (label, share), color in zip(shares.items(), colors_of(shares, colors), strict=True):
        check_array(f"shares[{label!r}]", share)
        if share.ndim != 1 or not np.isfinite(share).any():
            raise ValueError(f"shares[{label!r}]: expected shape (D,), with finite values; got {share.shape}")
        ax.plot(np.arange(len(share)), share, color=color)
        last = int(np.flatnonzero(np.isfinite(share))[-1])
        under = np.flatnonzero(share <= mark)
        name = label
        if len(under):
            at = int(under[0])
            ax.plot(at, share[at], "o", color=color, markersize=6, zorder=3, clip_on=False)
            shown = f"{round(share[at], 2) + 0.0:.0%}".replace("-", "−")
            name = f"{label}: {shown} beyond {at}"
        ends.append((float(last), float(share[last]), name, color))
    frame(ax)
    ax.set_xlim(0, max(len(share) for share in shares.values()) - 1)
    ax.set_ylim(
        min(0.0, *(float(np.nanmin(share)) for share in shares.values())),
        1.05 * max(mark, *(float(np.nanmax(share)) for share in shares.values())),
    )
    ax.axhline(mark, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_major_locator(whole_numbers())
    ax.set_xlabel("Distance d (time steps)")
    ax.set_ylabel("Share of the gradient from\nlosses further than d steps")
    name_ends(ax, ends)


def _norms(items: Any, sample: Any, of: Any, layer: Any) -> FloatArray:
    """(n, n), of the sample's own steps; of a weight (T, T)."""
    if not isinstance(items, Itemized):
        raise TypeError(f"items: expected what itemized() returned; got {describe(items)}")
    b = check_int("sample", sample, least=0, most=len(items.lengths) - 1)
    if of in items.weights:
        return items.weights[of]
    if of not in _KINDS:
        raise ValueError(f"of: expected one of {', '.join((*_KINDS, *items.weights))}; got {of!r}")
    norms: FloatArray | None = getattr(items, of)
    if norms is None:
        raise ValueError("of: expected 'h' or 'input' for an RNN, which has no cell state; got 'c'")
    if of != "input":
        norms = norms[check_int("layer", layer, least=-len(norms), most=len(norms) - 1)]
    n = int(items.lengths[b])
    return norms[:n, :n, b]


def _label_rows(ax: Axes, texts: Sequence[str]) -> bool:
    """One tick label per row in the largest size that fits; False, and none, if they would be too small."""
    points = ax.get_window_extent().height * 72 / ax.figure.dpi / len(texts)
    size = min(10.0, points)
    if size < 5.5:
        return False
    ax.set_yticks(range(len(texts)), texts, fontsize=size, fontfamily=families())
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    return True
