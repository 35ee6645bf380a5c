"""What the sentences of a report share: names, numbers as they are written, the latest measurement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scratchrnn import plots
from scratchrnn._typing import FloatArray
from scratchrnn.gradflow import Decay
from scratchrnn.study import Measurement, Results

NAMES = {"rnn": "RNN", "lstm": "LSTM"}
COLORS = {"rnn": plots.BLUE, "lstm": plots.VERMILION}  # whether or not the other is there


def measured(results: Results) -> tuple[dict[str, Measurement], str]:
    """The latest measurement of each model that has one, and whether that is "trained" or "untrained"."""
    after = {cell: one.after for cell, one in results.models.items() if one.after is not None}
    if len(after) == len(results.models):
        return after, "trained"
    before = {cell: one.before for cell, one in results.models.items() if one.before is not None}
    return (before, "untrained") if len(before) == len(results.models) else ({}, "")


def not_measured(results: Results) -> str:
    """Say what is missing, where there is no measurement of all models."""
    found = [NAMES[cell] for cell, one in results.models.items() if one.before]
    if not found:
        return "No measurement was reached."
    return f"Only the untrained {found[0]} was measured: there is nothing to compare it with."


def colors(results: Results) -> list[str]:
    """One for each model, in their order."""
    return [COLORS[cell] for cell in results.models]


def names(results: Results) -> str:
    """The models, as a sentence names them."""
    return " and ".join(NAMES[cell] for cell in results.models)


def count(number: float, noun: str) -> str:
    """`number` with thousands apart, and its noun in the right number."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def number(value: float) -> str:
    """A number above 0 in two digits; far from 1, as a power of ten."""
    if 1e-3 <= value < 1e4:
        return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}·10<sup>{int(exponent)}</sup>".replace("-", "−")


def mark(decay: Decay) -> str:
    """A horizon, with ! where the gradient explodes and + where the horizon is the end of what was measured."""
    return f"{decay.horizon}{'!' if decay.exploding else '+' if decay.censored else ''}"


def rule(results: Results, m: Measurement) -> str:
    """What the familiar rule counts, with + where it counts every step."""
    return f"{m.memory.seed_rule}{'+' if m.memory.seed_rule >= results.settings.trial_length else ''}"


def trained(what: str, changes: Mapping[str, tuple[str, str]]) -> str:
    """What training did to a number of each model, given as it is written before and after: a sentence.

    >>> trained("the horizon", {"RNN": ("6", "11"), "LSTM": ("8", "8")})
    'Training moved the horizon from 6 to 11 in the RNN and left it at 8 in the LSTM.'
    >>> trained("the horizon", {"RNN": ("6", "6"), "LSTM": ("8", "8")})
    'Training left the horizon at 6 in the RNN and at 8 in the LSTM.'
    """
    moved = [f"from {a} to {b} in the {name}" for name, (a, b) in changes.items() if a != b]
    left = [f"at {b} in the {name}" for name, (a, b) in changes.items() if a == b]
    parts = [
        f"{verb} {'it' if moved and verb == 'left' else what} {' and '.join(found)}"
        for verb, found in (("moved", moved), ("left", left))
        if found
    ]
    return f"Training {' and '.join(parts)}."


def part(number: int, of: int) -> str:
    """How many of how many."""
    return f"{number or 'none'} of {of}"


def relative(norms: FloatArray) -> FloatArray:
    """Norms by distance over that at distance 0; zeros where that is 0, as it is if every unit is saturated."""
    ratio: FloatArray = norms / norms[0] if norms[0] > 0 else np.zeros_like(norms)
    return ratio
