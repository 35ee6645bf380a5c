"""What products of Jacobians do to changes of the state, and which step depends on which."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_real, describe
from scratchrnn.gradflow.products import SingularValues
from scratchrnn.plots._style import BLUE, FAINT, INK, VERMILION, frame, style
from scratchrnn.plots._text import Name, label_steps, name_ends, visible, whole_numbers


@style()
def singular_values(ax: Axes, found: Sequence[SingularValues]) -> None:
    """Draw how the singular values of ∂s_stop/∂s_start go with the span stop - start, on a logarithmic axis.

    One thin line for each of the K values, the largest, the median and the smallest bold; each is the geometric mean
    over the samples. A value that is 0 in some sample ends its line.

    Parameters
    ----------
    ax : matplotlib Axes
    found : sequence of SingularValues
        Of several spans, in any order, of the same parts of the state.

    Raises
    ------
    ValueError, TypeError
        Fewer than two spans, one that occurs twice, different numbers of values, or something else.
    """
    for n, one in enumerate(found):
        if not isinstance(one, SingularValues):
            raise TypeError(f"found[{n}]: expected what singular_values() returned; got {describe(one)}")
    spans = np.array([one.stop - one.start for one in found])
    if len(found) < 2 or len(set(spans)) < len(found):
        raise ValueError(f"found: expected at least two spans, each once; got {spans.tolist()}")
    counts = {one.log.shape[1] for one in found}
    if len(counts) > 1:
        raise ValueError(f"found: expected as many singular values of each; got {sorted(counts)}")
    order = np.argsort(spans)
    log = np.stack([found[n].log.mean(axis=0) for n in order]) / np.log(10)  # (N, K) as powers of ten
    log = np.where(np.isfinite(log), log, np.nan)
    ax.plot(spans[order], log, color=FAINT, linewidth=0.6)
    ends: list[Name] = []
    last = log.shape[1] - 1
    bold = {0: ("largest", VERMILION), last // 2: ("median", INK), last: ("smallest", BLUE)}
    for k, (text, color) in bold.items():
        known = np.flatnonzero(~np.isnan(log[:, k]))
        if known.size:
            ax.plot(spans[order], log[:, k], color=color)
            ends.append((float(spans[order][known[-1]]), float(log[known[-1], k]), text, color))
    frame(ax)
    ax.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    ax.margins(x=0)
    ax.xaxis.set_major_locator(whole_numbers())
    ax.yaxis.set_major_locator(whole_numbers())
    ax.yaxis.set_major_formatter(lambda power, _: f"$10^{{{power:.0f}}}$")
    ax.set_xlabel("Span (time steps)")
    ax.set_ylabel("Singular value of\nthe product of Jacobians")
    name_ends(ax, ends)


@style()
def connectivity(ax: Axes, norm: FloatArray, labels: Sequence[str] | None = None, *, decades: float = 4.0) -> None:
    """Draw how strongly each step's output depends on each input as a map: read to the right, output downwards.

    Parameters
    ----------
    ax : matplotlib Axes
        A colour bar is added beside it.
    norm : ndarray (T, T)
        [t, s] = ‖∂y_t/∂x_s‖, such as `connectivity(trace).norm[0]` or one unit of `.units[0]`. What is 0 or not finite
        is left white.
    labels : sequence of str (T,), optional
        What was read at each step; see `visible`. Left out for step numbers where they do not fit.
    decades : float
        Powers of ten from the largest value down to the palest colour.

    Raises
    ------
    ValueError, TypeError
        A norm of another shape, labels of another number, or nothing above 0 to draw.
    """
    check_array("norm", norm)
    if norm.ndim != 2 or norm.shape[0] != norm.shape[1] or not norm.size:
        raise ValueError(f"norm: expected shape (T, T), one sequence; got {norm.shape}")
    if labels is not None and len(labels) != len(norm):
        raise ValueError(f"labels: expected {len(norm)}, one for each step; got {len(labels)}")
    decades = check_real("decades", decades, above=0)
    shown = np.where(np.isfinite(norm) & (norm > 0), norm, np.nan)
    if np.isnan(shown).all():
        raise ValueError("norm: expected finite values above 0; got none")
    top = float(np.nanmax(shown))
    scale = LogNorm(top * 10.0**-decades, top, clip=True)
    image = ax.imshow(shown, cmap=mpl.colormaps["BuPu"], norm=scale, aspect="auto", interpolation="nearest")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label("‖∂output/∂input‖")
    bar.outline.set_visible(False)
    ax.set_ylabel("Output after each step")
    texts = None if labels is None else [visible(text) for text in labels]
    if texts is None or not label_steps(ax, texts):
        ax.set_xlabel("Input of each step")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(whole_numbers())
        return
    points = ax.get_window_extent().height * 72 / ax.figure.dpi / len(texts)
    size = min(ax.get_xticklabels()[0].get_fontsize(), points)
    ax.set_yticks(range(len(texts)), texts, fontsize=size, fontfamily=ax.get_xticklabels()[0].get_fontfamily())
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
