"""What finite differences found: frozen records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GradRow:
    """One argument's worst place.

    Attributes
    ----------
    argument : str
        Its name; "all at once" for the direction over everything.
    index : tuple of int or None
        Of the element; None for a random direction.
    analytic, numeric : float
        The derivative that backward returned, and the finite difference.
    error, allowed : float
        Their distance relative to the gradient's scale, and the bound on it.
    kink : bool
        Whether the function bends sharply within the step, as relu does at zero: no derivative to compare with.
    problem : str
        What is wrong besides: a shape or a dtype. Empty if nothing is.
    """

    argument: str
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    error: float
    allowed: float
    kink: bool = False
    problem: str = ""

    @classmethod
    def failed(cls, argument: str, problem: str) -> GradRow:
        """A gradient that cannot be compared."""
        return cls(argument, None, math.nan, math.nan, math.inf, 0.0, problem=problem)

    @property
    def ok(self) -> bool:
        """Whether backward is right here."""
        return not self.problem and self.error <= self.allowed

    def __str__(self) -> str:
        if self.problem:
            return f"{self.argument}: {self.problem}"
        place = "in a random direction" if self.index is None else f"at {self.index}"
        text = (
            f"{self.argument}: {place} backward says {self.analytic:.10g}, finite differences {self.numeric:.10g}; "
            f"relative error {self.error:.2g}, allowed {self.allowed:.2g}"
        )
        if self.kink and not self.ok:
            text += "; the function has a kink here (as relu at zero), so no derivative: try other inputs"
        return text


@dataclass(frozen=True)
class GradReport:
    """Every argument's gradient against finite differences.

    Attributes
    ----------
    rows : tuple of GradRow
        First the direction over all arguments, then each argument's worst place.
    """

    rows: tuple[GradRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every gradient is right."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def failures(self) -> tuple[GradRow, ...]:
        """The rows that are not."""
        return tuple(row for row in self.rows if not row.ok)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold: what is no finite number becomes None."""
        return {"ok": self.ok, "rows": [_plain(row) for row in self.rows]}

    def __str__(self) -> str:
        if self.ok:
            worst = max(self.rows, key=lambda row: row.error / row.allowed)
            return f"{len(self.rows) - 1} gradients agree with finite differences; worst {worst}"
        return "\n  ".join([f"{len(self.failures)} gradients do not agree:", *map(str, self.failures)])


def _plain(row: GradRow) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "argument": row.argument,
        "index": None if row.index is None else list(row.index),
        "analytic": plain(row.analytic),
        "numeric": plain(row.numeric),
        "error": plain(row.error),
        "allowed": row.allowed,
        "kink": row.kink,
        "problem": row.problem,
        "ok": row.ok,
    }
