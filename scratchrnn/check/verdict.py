"""What a comparison of a user's functions with the definition found: a frozen record, and its text."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scratchrnn import testing
from scratchrnn.check.diagnose import Finding
from scratchrnn.check.report import CheckReport
from scratchrnn.check.where import split

WIDTH = 80  # of the text


@dataclass(frozen=True, eq=False)
class ReferenceReport:
    """A user's forward and backward against the definition.

    Attributes
    ----------
    cell : str
    reports : tuple of CheckReport
        One per problem and dtype; in a row, `ours` is the user's error and `torch` that of the definition in float32.
    mistakes : tuple of Finding
        What was recognised.
    unexplained : tuple of str
        Results that are wrong, and that no known mistake explains.
    not_checked : tuple of str
        What was not returned, not given or not taken, and so not compared.
    errors : tuple of str
        Exceptions that the user's functions raised, and returns that could not be read, each with the call's shapes.
    by_step, by_gate : dict of str to tuple of float
        The error of each result in the first problem that fails, by time step, and of parameters by gate.
    exception : BaseException or None
        The first that was raised.
    """

    cell: str
    reports: tuple[CheckReport, ...]
    mistakes: tuple[Finding, ...] = ()
    unexplained: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    by_step: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    by_gate: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    exception: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether all that was returned is right; what was not returned is in `not_checked`."""
        compared = any(report.rows for report in self.reports)
        return compared and not self.errors and not self.mistakes and all(r.ok for r in self.reports if r.rows)

    @property
    def table(self) -> str:
        """The error of every quantity, over all problems; and where the first that fails goes wrong."""
        from rich.console import Console

        from scratchrnn.check import table

        text = io.StringIO()
        console = Console(file=text, width=WIDTH, highlight=False, force_terminal=False, color_system=None)
        shown = [report for report in self.reports if any(not math.isnan(row.want) for row in report.rows)]
        if shown:
            table.print_quantities(console, shown, compared="rounded")
        first = next((report for report in self.reports if report.rows and not report.ok), None)
        if first is not None and (self.by_step or self.by_gate):
            console.print(f"\nFirst to fail: {first.sizes}, {first.dtype}")
            table.print_errors(console, "by step, t =", [str(t) for t in range(self._steps)], self.by_step)
            table.print_errors(console, "by gate", list("ifgo") if self.cell == "lstm" else ["a"], self.by_gate)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    @property
    def _steps(self) -> int:
        return max(map(len, self.by_step.values()), default=0)

    def raise_if_wrong(self) -> None:
        """Raise AssertionError with this report as its message, unless everything compared is right."""
        if not self.ok:
            raise AssertionError(str(self)) from self.exception

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold: an error that is no finite number becomes None."""
        return {
            "ok": self.ok,
            "cell": self.cell,
            "mistakes": [{k: _plain(v) for k, v in asdict(finding).items()} for finding in self.mistakes],
            "unexplained": list(self.unexplained),
            "not_checked": list(self.not_checked),
            "errors": list(self.errors),
            "checks": [report.to_dict() for report in self.reports],
        }

    def __str__(self) -> str:
        bad = [report for report in self.reports if report.rows and not report.ok]
        compared = [report for report in self.reports if report.rows]
        dtypes = " and ".join(dict.fromkeys(report.dtype for report in compared)) or "nothing compared"
        verdict = f"wrong in {len(bad)} of {len(compared)} problems" if bad else f"{len(compared)} problems"
        verdict += ", all right" if self.ok else ""
        lines = [f"{self.cell} against the definition, {dtypes}: {verdict}"]
        for head, items in (("Mistake", self.mistakes), ("Error", self.errors)):
            lines += ["", *(_wrapped(f"{head}: {item}") for item in items)] if items else []
        if self.unexplained:
            lines += ["", _wrapped(f"No known mistake fits {', '.join(self.unexplained)}.")]
            lines += [_wrapped(f"  {worst}") for worst in map(self._worst, self.unexplained) if worst]
        lines += ["", *(_wrapped(f"Not checked: {item}") for item in self.not_checked)] if self.not_checked else []
        lines += ["", self.table, "", _legend()] if self.table else []
        return "\n".join(lines)

    def _worst(self, quantity: str) -> str:
        rows = [row for report in self.reports for row in report.failures if split(row.quantity)[0] == quantity]
        return str(max(rows, key=lambda row: row.used)) if rows else ""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _legend() -> str:
    growth, floor = testing.TOLERANCE["float32_growth"], testing.TOLERANCE["float32_floor"]
    return textwrap.fill(
        f"Errors are relative to the definition in float64. Bound in float64: {testing.TOLERANCE['float64']:g}; in "
        f"float32: {growth:g} times the error of the definition's own float32 (rounded), or {floor:.1e} times by how "
        f"much the result amplifies the rounding of its inputs.",
        WIDTH,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
