"""Text in figures: signs for whitespace, names at the ends of lines, one label per time step, ticks."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from scratchrnn._validate import describe

FONT = "DejaVu Sans"  # ships with matplotlib
MORE_FONTS = (  # for scripts that it lacks, where they are installed
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
HALO = [withStroke(linewidth=3, foreground="white")]  # keeps text readable across a line

Name = tuple[float, float, str, str]  # x, y, text, colour

_VISIBLE = {"\n": "⏎", "\r": "↵", "\t": "⇥"}
UNKNOWN = "□"


def families() -> list[str]:
    """The fonts of the figures that are installed; to name others would be a warning in every figure."""
    installed = set(font_manager.get_font_names())
    return [FONT, *(name for name in MORE_FONTS if name in installed)]


def visible(text: str) -> str:
    """Return `text` with whitespace as signs (␣ ⏎ ⇥ ↵), and □ for what has no shape of its own or none in the fonts.

    >>> visible("a b\\n")
    'a␣b⏎'
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string; got {describe(text)}")
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families()]

    def sign(character: str) -> str:
        category = unicodedata.category(character)
        shown = _VISIBLE.get(character, "␣" if category == "Zs" else character)
        hidden = shown is character and category[0] in "CMZ"  # control, combining, line separators
        return UNKNOWN if hidden or not any(font.get_char_index(ord(shown)) for font in fonts) else shown

    return "".join(sign(character) for character in text)


def name_ends(ax: Axes, ends: Sequence[Name]) -> None:
    """Write each curve's name to the right of its last point in view; names that would overlap are pushed apart.

    Of curves that leave through the bottom, the first has its name on the left if the next one is too near.
    """
    per_pixel = 72 / ax.figure.dpi
    box = ax.get_window_extent()
    size = float(mpl.rcParams["font.size"])
    point = ax.transData.transform([(x, y) for x, y, _, _ in ends]) * per_pixel
    width = np.array([0.75 * size * len(text) for _, _, text, _ in ends])
    start = point[:, 0] + 8
    order = np.argsort(point[:, 0], kind="stable")
    first = int(order[0])
    crowded = len(ends) > 1 and 0 < point[order[1], 0] - point[first, 0] < width[first] + 24
    low = box.y0 * per_pixel + 0.8 * size
    at_bottom = point[first, 1] < low + size
    left = crowded and at_bottom and point[first, 0] - box.x0 * per_pixel > width[first] + 8
    if left:
        start[first] = point[first, 0] - 8 - width[first]

    placed = np.maximum(point[:, 1], low)
    upward = np.argsort(point[:, 1], kind="stable")
    pairs = [(i, j) for n, i in enumerate(upward) for j in upward[n + 1 :]]  # i below j
    pairs = [(i, j) for i, j in pairs if start[i] < start[j] + width[j] and start[j] < start[i] + width[i]]
    for _ in range(100):  # those that are too near give way to each other
        for i, j in pairs:
            short = max(0.0, 1.5 * size - (placed[j] - placed[i])) / 2
            placed[i], placed[j] = placed[i] - short, placed[j] + short
        placed = np.maximum(placed, low)
    for n, (x, y, text, color) in enumerate(ends):
        turned = left and n == first
        ax.annotate(
            text, (x, y), (-8 if turned else 8, placed[n] - point[n, 1]), textcoords="offset points", color=color,
            weight="bold", ha="right" if turned else "left", va="center", annotation_clip=False, path_effects=HALO,
        )  # fmt: skip


def name_starts(ax: Axes, starts: Sequence[Name]) -> None:
    """Write each curve's name to the left of its first point; names that would overlap are pushed apart."""
    per_pixel = 72 / ax.figure.dpi
    size = float(mpl.rcParams["font.size"])
    height = ax.transData.transform([(x, y) for x, y, _, _ in starts])[:, 1] * per_pixel
    order = np.argsort(height, kind="stable")
    placed = height.copy()
    for _ in range(100):  # those that are too near give way to each other
        for i, j in pairwise(order):
            short = max(0.0, 1.4 * size - (placed[j] - placed[i])) / 2
            placed[i], placed[j] = placed[i] - short, placed[j] + short
    for n, (x, y, text, color) in enumerate(starts):
        ax.annotate(
            text, (x, y), (-8, placed[n] - height[n]), textcoords="offset points", color=color, weight="bold",
            ha="right", va="center", annotation_clip=False,
        )  # fmt: skip


def label_steps(ax: Axes, texts: Sequence[str]) -> bool:
    """Set one tick label per step in the largest size that fits; False, and none, if they would be too small."""
    points = ax.get_window_extent().width * 72 / ax.figure.dpi / len(texts)
    longest = max(map(len, texts))
    upright = longest > 1
    size = min(10.0, points / (1.0 if upright else 0.85))
    if size < 5.5:
        return False
    ax.set_xticks(range(len(texts)), texts, fontsize=size, fontfamily=families(), rotation=90 if upright else 0)
    for label in ax.get_xticklabels():
        label.set_parse_math(False)
    ax.set_xlabel("Read at each step")
    return True


def check_labels(labels: Sequence[str] | None, steps: int) -> None:
    if labels is not None and len(labels) != steps:
        raise ValueError(f"labels: expected {steps}, one for each step; got {len(labels)}")


def name_steps(ax: Axes, labels: Sequence[str] | None) -> None:
    """Labels below the steps where they fit, else the steps' numbers."""
    if labels is None or not label_steps(ax, [visible(text) for text in labels]):
        ax.set_xlabel("Time step")
        ax.xaxis.set_major_locator(whole_numbers())


def whole_numbers() -> MaxNLocator:
    """Ticks at round whole numbers, as many as the axis has room for."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])
