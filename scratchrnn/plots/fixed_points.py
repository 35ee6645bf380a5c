"""Fixed points of a net, in the three directions that its states spread over most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, withStroke

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, describe
from scratchrnn.dynamics import Connections, FixedPoints
from scratchrnn.plots._style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, style
from scratchrnn.plots._text import HALO

_KINDS = (  # by the number of unstable directions: marker, colour, size in points, name
    ("o", BLUE, 11.0, "stable"),
    ("D", ORANGE, 6.0, "with 1 unstable direction"),
    ("s", PURPLE, 6.0, "with 2"),
    ("^", GREEN, 7.0, "with 3 or more"),
)
_VIEWS = 400


@style()
def fixed_points(
    ax: Axes,
    points: FixedPoints,
    *,
    connections: Connections | None = None,
    trajectories: FloatArray | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    """Draw fixed points, and the ways between them, as a solid seen from the side that shows most of it.

    The three leading principal components of the trajectories (of the points themselves, where there are none) are
    turned so that the two stable points that are seen nearest to each other lie as far apart as they can.

    Parameters
    ----------
    ax : matplotlib Axes
        Its frame is taken away; both directions get one scale.
    points : FixedPoints
        At least two, of a state of at least three components.
    connections : Connections, optional
        Drawn as lines, nearer ones over those behind.
    trajectories : ndarray (T, N, S), optional
        States of N runs, drawn as thin lines below.
    labels : sequence of str (K,), optional
        A text for each point, in the order of `points`; "" for none.

    Raises
    ------
    ValueError, TypeError
        Too few points, or an argument of another shape or kind.
    """
    if not isinstance(points, FixedPoints):
        raise TypeError(f"points: expected what fixed_points() returned; got {describe(points)}")
    size = points.states.shape[1]
    if len(points) < 2 or size < 3:
        raise ValueError(f"points: expected at least 2 points of at least 3 components; got {points.states.shape}")
    if connections is not None and not isinstance(connections, Connections):
        raise TypeError(f"connections: expected what connections() returned; got {describe(connections)}")
    if trajectories is not None:
        check_array("trajectories", trajectories)
        if trajectories.ndim != 3 or trajectories.shape[2] != size:
            raise ValueError(f"trajectories: expected shape (T, N, {size}); got {trajectories.shape}")
    if labels is not None and len(labels) != len(points):
        raise ValueError(f"labels: expected {len(points)}, one for each point; got {len(labels)}")

    cloud = points.states if trajectories is None else trajectories.reshape(-1, size)
    center = cloud.mean(axis=0)
    _, spread, directions = np.linalg.svd(cloud - center, full_matrices=False)
    axes = directions[:3]  # (3, S)
    share = float((spread[:3] ** 2).sum() / (spread**2).sum())
    placed = (points.states - center) @ axes.T  # (K, 3)
    corners = placed[points.stable] if points.stable.sum() > 1 else placed
    view = axes.T @ _best_view(corners).T  # (S, 3) to the right, up, towards the reader

    seen = (cloud - center) @ view  # (·, 3)
    if trajectories is not None:
        runs = seen.reshape(*trajectories.shape[:2], 3)
        ax.plot(runs[:, :, 0], runs[:, :, 1], color=FAINT, linewidth=0.5, alpha=0.35, zorder=1)
    if connections is not None:
        _draw_paths(ax, ((side - center) @ view for pair in connections.paths for side in pair))
    at = (points.states - center) @ view  # (K, 3)
    kinds = np.minimum(points.unstable_directions, len(_KINDS) - 1)
    for number, (marker, color, width, name) in enumerate(_KINDS):
        chosen = at[kinds == number]
        if len(chosen):
            ax.plot(
                chosen[:, 0], chosen[:, 1], marker, color=color, markersize=width, markeredgecolor="white",
                markeredgewidth=1.2, zorder=5 - 0.1 * number, label=f"{len(chosen)} {name}",
            )  # fmt: skip
    if labels is not None:
        middle = at[:, :2].mean(axis=0)
        for (x, y, _), text in zip(at, labels, strict=True):
            away = np.array([x, y]) - middle
            dx, dy = 19 * away / max(float(np.hypot(*away)), 1e-9)
            ax.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", ha="center", va="center", color=INK,
                path_effects=HALO, annotation_clip=False, zorder=6,
            ).set_parse_math(False)  # fmt: skip
    shown = np.concatenate([at, seen])
    low, high = shown[:, :2].min(axis=0), shown[:, :2].max(axis=0)
    edge = (0.15 if trajectories is None else 0.04) * float((high - low).max())  # room for labels
    ax.set_xlim(low[0] - edge, high[0] + edge)
    ax.set_ylim(low[1] - edge, high[1] + edge)
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([])
    of = "points" if trajectories is None else "states"
    ax.set_xlabel(f"Three principal components, {share:.0%} of the {of}' variance", color=MUTED, labelpad=12)
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, handletextpad=0.1, columnspacing=1
    )  # fmt: skip


def _draw_paths(ax: Axes, paths: Iterable[FloatArray]) -> None:
    """Lines (T+1, 3), those behind first, each with a white edge that shows it crossing over what it covers."""
    ordered = sorted(paths, key=lambda path: float(path[:, 2].mean()))
    for n, path in enumerate(ordered):
        near = n / max(len(ordered) - 1, 1)
        ax.plot(
            path[:, 0], path[:, 1], color=SKY, linewidth=1.2 + 1.6 * near, zorder=2 + near,
            path_effects=[withStroke(linewidth=4.2 + 1.6 * near, foreground="white"), Normal()],
        )  # fmt: skip


def _best_view(corners: FloatArray) -> FloatArray:
    """A rotation (3, 3), rows to the right, up and towards the reader, that keeps the points (K, 3) apart."""
    n = np.arange(_VIEWS) + 0.5  # directions spread evenly over half a sphere, on a spiral
    height, angle = n / _VIEWS, np.pi * (1 + np.sqrt(5)) * n
    flat = np.sqrt(1 - height**2)
    views = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)  # (V, 3)
    between = corners[:, None] - corners  # (K, K, 3)
    between = between[np.triu_indices(len(corners), 1)]
    along = between @ views.T  # (·, V)
    apart = np.sqrt(np.maximum((between**2).sum(axis=1)[:, None] - along**2, 0)).min(axis=0)
    toward = views[int(np.argmax(apart))]
    # upright: the shortest way between two points that is seen nearly whole is drawn as a vertical
    seen = between - (between @ toward)[:, None] * toward
    length = np.linalg.norm(between, axis=1)
    whole = np.linalg.norm(seen, axis=1) > 0.8 * length
    up = seen[int(np.argmin(np.where(whole, length, np.inf)))]
    up = up / np.linalg.norm(up)
    return np.stack([np.cross(up, toward), up, toward])
