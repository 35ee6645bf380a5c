"""Mistakes in the derivative of one step, on the way back: a part of the table in `mistakes.py`.

y = φ(a):  a sigmoid's derivative is y (1 - y), a tanh's 1 - y², of the value y and not of the pre-activation a
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.check import planted
from scratchrnn.check.planted import Mistake, with_gates, with_parts
from scratchrnn.check.problem import GATES


def slopes(cell: str) -> Iterator[Mistake]:
    """Every one that a cell can have."""
    yield Mistake(
        "transposed weight_hh in backward",
        "dh_{t-1} is da @ weight_hh.T, gate by gate. It is da @ weight_hh.",
        with_parts(transposed_back=True),
        forward=False,
    )
    right = planted.PARTS[cell].gates
    for k, phi in enumerate(right):
        gate = GATES[k] if cell == "lstm" else "a"
        bare = replace(phi, slope=planted.IDENTITY.slope)
        yield Mistake(
            f"derivative missing on gate {gate}" if cell == "lstm" else "derivative missing",
            f"The gradient passes the nonlinearity of {gate} unchanged. Multiply by its derivative.",
            with_gates({k: bare}),
            forward=False,
        )
        if phi is not planted.RELU:
            other, name = (planted.TANH, "1 - y²") if phi is planted.SIGMOID else (planted.SIGMOID, "y (1 - y)")
            yield Mistake(
                f"derivative {name} on gate {gate}" if cell == "lstm" else f"derivative {name}",
                f"The derivative at {gate} is taken as {name}. A sigmoid's is y (1 - y), a tanh's 1 - y².",
                with_gates({k: replace(phi, slope=other.slope)}),
                forward=False,
            )
    yield from _elsewhere(right)
    if cell == "lstm":
        yield Mistake(
            "c_t for c_{t-1} in backward",
            "The gradient of f is dc_t ⊙ c_t. It is dc_t ⊙ c_{t-1}: what f was multiplied with.",
            with_parts(late_c=True),
            forward=False,
        )
        squashes: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
            "is missing": planted.IDENTITY.slope,
            "is 1 - c²": lambda a, y: 1 - a**2,
            "is 1 - tanh(tanh(c))²": lambda a, y: 1 - np.tanh(y) ** 2,
        }
        for name, slope in squashes.items():
            yield Mistake(
                "derivative of tanh(c)",
                f"On the way from h to c the derivative of tanh {name}. It is 1 - tanh(c)².",
                with_parts(squash=replace(planted.TANH, slope=slope)),
                forward=False,
            )


def _elsewhere(right: tuple[planted.Function, ...]) -> Iterator[Mistake]:
    """Derivatives at the wrong one of a pre-activation a and its value y: two ways to write them, confused."""

    def of_value(phi: planted.Function) -> planted.Function:
        return replace(phi, slope=lambda a, y: phi.slope(y, phi.value(y)))

    def of_a(phi: planted.Function) -> planted.Function:
        return replace(phi, slope=lambda a, y: phi.slope(a, a))

    if planted.RELU in right:  # whose derivative is the same at both
        return
    groups = {" on gate g": (2,), " on gates i, f, o": (0, 1, 3), "": (0, 1, 2, 3)} if len(right) > 1 else {"": (0,)}
    ways = {
        "derivative at the activation": (of_value, "reads y as if it were a: y went through the nonlinearity already"),
        "derivative at the pre-activation": (of_a, "reads a as if it were y: y (1 - y) and 1 - y² are of the value"),
    }
    for title, (moved, why) in ways.items():
        for where, gates in groups.items():
            yield Mistake(
                title + where,
                f"With a the pre-activation and y its value, the derivative{where} {why}.",
                with_gates({k: moved(right[k]) for k in gates}),
                forward=False,
            )
