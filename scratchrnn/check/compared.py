"""What a user's function returned, held against the definition: problem by problem, in one dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn import testing
from scratchrnn.check.calls import Answer, Caller
from scratchrnn.check.diagnose import Side
from scratchrnn.check.problem import HIDDEN, Problem, Values, bounds, definition
from scratchrnn.check.report import Row
from scratchrnn.check.where import Geometry

STATES = {"output", "c", "i", "f", "g", "o", "dx"}  # (T, B, ·)


@dataclass(frozen=True, eq=False)
class Asked:
    """A user's function and what it may return."""

    side: str
    caller: Caller
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Standard:
    """What is right in one dtype, problem by problem, and how far from it a right implementation may lie."""

    problems: Sequence[Problem]
    truths: Sequence[Values]
    rounded: Sequence[Values | None]  # what the definition makes in float32
    allowed: Sequence[dict[str, float]]

    @classmethod
    def of(cls, dtype: str, problems: Sequence[Problem]) -> Standard:
        """That of some problems."""
        truths = [definition(p) for p in problems]
        rounded = [definition(p.cast(np.float32)) if dtype == "float32" else None for p in problems]
        return cls(problems, truths, rounded, [bounds(*given) for given in zip(problems, truths, rounded, strict=True)])


@dataclass(frozen=True, eq=False)
class Compared:
    """All calls of one function in one dtype; an answer is None where it was not called."""

    asked: Asked
    dtype: str
    standards: Mapping[str, Standard]
    answers: Sequence[Answer | None]
    again: Answer  # the first call once more, at the end

    @classmethod
    def of(cls, asked: Asked, dtype: str, standards: Mapping[str, Standard]) -> Compared:
        """Call the function, once for each problem that is another to it."""
        problems, truths = standards[dtype].problems, standards[dtype].truths
        given = [p.cast(dtype) for p in problems]
        inputs = [(id(p.x), id(p.h_0)) for p in problems]
        new = [asked.side == "backward" or key not in inputs[:k] for k, key in enumerate(inputs)]
        answers = [
            asked.caller(p, truth, asked.side == "backward") if call else None
            for p, truth, call in zip(given, truths, new, strict=True)
        ]
        again = asked.caller(given[0], truths[0], asked.side == "backward")
        return cls(asked, dtype, standards, answers, again)

    @property
    def standard(self) -> Standard:
        """That of this dtype."""
        return self.standards[self.dtype]

    @property
    def errors(self) -> list[str]:
        """Why calls gave nothing to compare."""
        return [a.error for a in self.answers if a is not None and a.error]

    @property
    def exception(self) -> BaseException | None:
        """The first that the function raised."""
        return next((a.exception for a in self.answers if a is not None and a.exception is not None), None)

    @property
    def returned(self) -> bool:
        """Whether some call gave something to compare."""
        return any(a is not None and not a.error for a in self.answers)

    def rows(self, k: int) -> list[Row]:
        """The results of problem k, measured."""
        answer = self.answers[k]
        if answer is None:
            return []
        if answer.error:
            return [Row.failed(self.asked.caller.name, answer.error)]
        rows = [self._row(k, q, answer, self.standard.allowed[k][q]) for q in self.asked.names if q in answer.values]
        return rows + [Row.failed(q, problem) for q, problem in answer.misfits.items() if q not in answer.values]

    def _row(self, k: int, q: str, answer: Answer, allowed: float) -> Row:
        want, rounded = self.standard.truths[k][q], self.standard.rounded[k]
        d = testing.difference(answer.values[q], want)
        own = None if rounded is None else testing.difference(rounded[q], want).ratio
        where = _where(self.standard.problems[k], q, d.index)
        return Row(q, d.ratio, own, None, allowed, None, d.index, where, d.got, d.want, answer.misfits.get(q, ""))

    @property
    def first_wrong(self) -> int | None:
        """The first problem with a row that fails."""
        return next((k for k in range(len(self.answers)) if not all(row.ok for row in self.rows(k))), None)

    def spread(self, k: int) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
        """The errors in a problem, by step and by gate."""
        answer = self.answers[k]
        by_step: dict[str, tuple[float, ...]] = {}
        by_gate: dict[str, tuple[float, ...]] = {}
        for q, got in ({} if answer is None else answer.values).items():
            want = self.standard.truths[k][q]
            error = np.where(np.isfinite(got), np.abs(got - want), np.inf) / (np.abs(want).max() or 1.0)
            if q in STATES:
                by_step[q] = tuple(float(e.max()) for e in error)
            elif q.startswith(("dw", "db")):
                by_gate[q] = tuple(float(e.max()) for e in error.reshape(-1, HIDDEN * error[0].size))
        return by_step, by_gate

    @property
    def misshapen(self) -> dict[str, tuple[Any, Any]]:
        """Results that had a shape beyond repair in some problem: both shapes in the first."""
        return {q: shapes for a in reversed(self.answers) if a is not None for q, shapes in a.misshapen.items()}

    def side(self) -> Side:
        """For `diagnose`; numbers that came in float32 are judged as such."""
        answers = [a if a is not None and not a.error else None for a in self.answers]
        dtype = "float32" if any(a is not None and "float32" in a.dtypes.values() for a in answers) else self.dtype
        got = [
            {} if a is None else {q: v for q, v in a.values.items() if np.isfinite(v).all() and q not in self.misshapen}
            for a in answers
        ]
        own = self.standards[dtype]
        return Side(self.asked.side, own.problems, got, own.truths, own.allowed, dtype)


def _where(p: Problem, q: str, index: tuple[int, ...]) -> str:
    """The place in words, as in `scratchrnn check`."""
    batch = p.x.shape[1]
    kind, hidden = p.cell[:4].rstrip("_"), p.h_0.shape[1]
    geometry = Geometry(kind, hidden, hidden, 1, False, True, np.full(batch, len(p.x)))
    if q in {"output", "dx"}:
        return geometry.where(q, index)
    if q == "c":  # without slot 0 here
        index = (index[0] + 1, *index[1:])
    if q in {"h_n", "c_n", "dh_0", "dc_0"}:
        return geometry.where(q, (0, *index)).removeprefix("l0 ")
    return geometry.where(f"{q}_l0", index)
