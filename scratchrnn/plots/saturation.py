"""How much of the time units and gates sit at the ends of their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scratchrnn._validate import describe
from scratchrnn.dynamics import Ends, Saturation
from scratchrnn.plots._style import BLUE, FAINT, GREEN, HIGH, INK, LOW, MUTED, ORANGE, TRACK, check_curves, frame, style
from scratchrnn.plots._text import check_labels, name_steps

_GATES = {"i": "input", "f": "forget", "o": "output"}


@style()
def saturation_gates(ax: Axes, saturation: Saturation) -> None:
    """Draw each gate of each unit at the shares of time that it is open and closed (Karpathy et al. 2015, figure 2).

    The two shares add up to 1 at most: the diagonal. A gate in the lower left corner is never at an end.

    Parameters
    ----------
    ax : matplotlib Axes
    saturation : Saturation
        Of an LSTM.

    Raises
    ------
    ValueError
        It has no gates.
    """
    _check_saturation("saturation", saturation)
    if not saturation.gates:
        raise ValueError("saturation: expected that of an LSTM; got one without gates")
    ax.plot([0, 1], [1, 0], color=FAINT, linewidth=1, zorder=1)
    ax.text(0.5, 0.53, "always open or closed", rotation=-45, color=MUTED, ha="center", va="center")
    for (gate, ends), color, marker in zip(saturation.gates.items(), (ORANGE, BLUE, GREEN), "s^o", strict=True):
        ax.scatter(
            ends.right, ends.left, s=26, color=color, marker=marker, alpha=0.7, linewidths=0, clip_on=False,
            label=f"{_GATES[gate]} gate", zorder=2,
        )  # fmt: skip
    frame(ax)
    ax.set_aspect("equal")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel(f"Share of time open (> {saturation.high:g})")
    ax.set_ylabel(f"Share of time closed (< {saturation.low:g})")
    ax.legend(loc="upper right", frameon=False, handletextpad=0.2)


@style()
def saturation_bars(ax: Axes, saturations: Mapping[str, Saturation]) -> None:
    """Draw for each net how much of the time h, and an LSTM's gates and tanh(c), sit at either end of their range.

    Parameters
    ----------
    ax : matplotlib Axes
    saturations : mapping of label to Saturation

    Raises
    ------
    ValueError
        There are none, or their limits differ.
    """
    check_curves("saturations", saturations)
    rows: list[tuple[float, str, Ends]] = []
    at = 0.0
    for label, saturation in saturations.items():
        _check_saturation(f"saturations[{label!r}]", saturation)
        for name, ends in _parts(saturation).items():
            rows.append((at, f"{label} {name}", ends))
            at += 1
        at += 0.4  # between nets
    limits = {(one.threshold, one.low, one.high) for one in saturations.values()}
    if len(limits) > 1:
        raise ValueError(f"saturations: expected one threshold, low and high for all; got {sorted(limits)}")
    frame(ax)
    ax.set_yticks([at for at, _, _ in rows], [label for _, label, _ in rows])
    ax.set_ylim(rows[-1][0] + 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xticks([])
    whole = ax.figure.canvas.figure
    if (engine := whole.get_layout_engine()) is not None:
        engine.execute(whole)  # how long the bars are decides what can be written on them
    points = ax.get_window_extent().width * 72 / whole.dpi
    for at, _, ends in rows:
        ax.barh(at, 1, color=TRACK, height=0.75)
        for share, edge, sign, color in ((ends.left_share, 0.0, 1, LOW), (ends.right_share, 1.0, -1, HIGH)):
            ax.barh(at, sign * share, left=edge, color=color, height=0.75)
            inside = share * points > 8 + 0.75 * mpl.rcParams["font.size"] * len(f"{share:.0%}")
            ax.annotate(
                f"{share:.0%}", (edge if inside else edge + sign * share, at), (sign * 5, 0),
                textcoords="offset points", color="white" if inside else color, weight="bold",
                ha="left" if sign > 0 else "right", va="center",
            )  # fmt: skip
    low, high = _end_names(*limits.pop())
    for edge, side, text, color in ((0.0, "left", low, LOW), (1.0, "right", high, HIGH)):
        ax.annotate(
            text, (edge, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", color=color, weight="bold",
            ha=side,
        )  # fmt: skip


@style()
def saturation_by_step(figure: Figure, saturation: Saturation, labels: Sequence[str] | None = None) -> list[Axes]:
    """Draw for h, and an LSTM's gates and tanh(c), which share of the units sits at either end at each step.

    Upwards the share at the upper end (gate open), downwards that at the lower end (gate closed).

    Parameters
    ----------
    figure : matplotlib Figure
        An empty one; about an inch of height for each panel, of which there are five for an LSTM.
    saturation : Saturation
    labels : sequence of str (T,), optional
        What was read at each step, where the batch was one sequence; as in `hidden_states`.

    Returns
    -------
    list of Axes
        A panel for each part, from the top.

    Raises
    ------
    ValueError
        Labels of another number.
    TypeError
        Not a saturation.
    """
    _check_saturation("saturation", saturation)
    steps = np.arange(len(saturation.h.left_by_step))
    check_labels(labels, len(steps))
    parts = _parts(saturation)
    panels = list(figure.subplots(len(parts), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    for ax, (name, ends) in zip(panels, parts.items(), strict=True):
        for share, sign, color in ((ends.right_by_step, 1, HIGH), (ends.left_by_step, -1, LOW)):
            ax.bar(steps, sign * share, width=1.0, color=color, linewidth=0)
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        frame(ax)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="x", length=0, labelbottom=False)
    ax = panels[-1]
    ax.set_xlim(-0.5, len(steps) - 0.5)
    ax.set_ylim(-1, 1)
    ax.set_yticks([-1, 0, 1], ["100%", "0", "100%"])
    ax.tick_params(axis="x", labelbottom=True)
    name_steps(ax, labels)
    low, high = _end_names(saturation.threshold, saturation.low, saturation.high)
    for side, text, color, at in (("left", f"↓ {low}", LOW, 0.0), ("right", f"↑ {high}", HIGH, 1.0)):
        panels[0].annotate(
            text, (at, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", color=color, weight="bold",
            ha=side,
        )  # fmt: skip
    return panels


def _parts(saturation: Saturation) -> dict[str, Ends]:
    """What there is to draw, by its name in figures."""
    gates = {f"{_GATES[gate]} gate": ends for gate, ends in saturation.gates.items()}
    return {"h": saturation.h} | ({} if saturation.tanh_c is None else {"tanh c": saturation.tanh_c}) | gates


def _end_names(threshold: float, low: float, high: float) -> tuple[str, str]:
    """What the lower and the upper end are."""
    return f"lower end (< −{threshold:g}; gate < {low:g})", f"upper end (> {threshold:g}; gate > {high:g})"


def _check_saturation(name: str, value: Any) -> None:
    if not isinstance(value, Saturation):
        raise TypeError(f"{name}: expected what saturation() returned; got {describe(value)}")
