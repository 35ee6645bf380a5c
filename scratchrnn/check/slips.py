"""Mistakes in one result, which leave the others alone: the second table of hypotheses.

Each says what the result would be, from what `planted.run` makes of the same problem. NaN is what a slip leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.check import planted
from scratchrnn.check.mistakes import first_sample
from scratchrnn.check.problem import GATES, Problem, Run

BY_STEP = {"output", "c", "dx", *GATES}  # (T, B, ·)
BY_SAMPLE = {"h_n", "c_n", "dh_0", "dc_0"}  # (B, ·)
PARAMETERS = {"dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh"}
SWAPPED = {"h_n": "c_n", "c_n": "h_n", "dh_0": "dc_0", "dc_0": "dh_0", "output": "c", "c": "output"}


@dataclass(frozen=True)
class Slip:
    """A hypothesis: a name, what is wrong and what to do, and what the result would be; None where it cannot be."""

    name: str
    wrong: str  # with what to do
    of: Callable[[Problem, Run, str], FloatArray | None]


def slips(cell: str) -> tuple[Slip, ...]:
    """Every one, those that say all of a result before those that leave some of it open."""
    return (*_values(), *scales(), *_shifts(), *_parameters(), *(_gate_rows() if cell == "lstm" else ()), *_open())


def _values() -> Iterator[Slip]:
    yield Slip("zeros returned", "All zeros. Nothing was written to it.", lambda p, run, q: np.zeros_like(run(p)[q]))
    yield Slip(
        "sample 0 in every row",
        "Every row of the batch has the numbers of sample 0. Compute each sample's own.",
        lambda p, run, q: _broadcast(run(p)[q]) if q in BY_STEP | BY_SAMPLE else None,
    )
    yield Slip(
        "only batch row 0",
        "Row 0 of the batch is right and the others are zero. Fill every row.",
        lambda p, run, q: _rows(run(p)[q], 0.0) if q in BY_STEP | BY_SAMPLE else None,
    )
    yield Slip(
        "another result's numbers",
        "The hidden state stands where the cell state belongs, or the other way round. Swap them.",
        lambda p, run, q: run(p)[SWAPPED[q]] if SWAPPED.get(q) in run(p) else None,
    )


def scales() -> Iterator[Slip]:
    """A factor on all of a result."""

    def scaled(factor: Callable[[int, int], float]) -> Callable[[Problem, Run, str], FloatArray | None]:
        return lambda p, run, q: factor(len(p.x), len(p.h_0)) * run(p)[q]

    yield Slip("sign flipped", "The sign is the opposite one.", scaled(lambda t, b: -1.0))
    for name, what, factor in (
        ("averaged over the batch", "divided by the batch size B", lambda t, b: 1 / b),
        ("averaged over time", "divided by the number of steps T", lambda t, b: 1 / t),
        ("averaged over batch and time", "divided by B·T", lambda t, b: 1 / (b * t)),
    ):
        yield Slip(
            name, f"It is {what}. The gradient of a sum is a sum: divide in the loss, if at all.", scaled(factor)
        )
    yield Slip("twice the value", "It is twice what it should be: something is added twice.", scaled(lambda t, b: 2.0))
    yield Slip("half the value", "It is half of what it should be.", scaled(lambda t, b: 0.5))


def _shifts() -> Iterator[Slip]:
    wrong = "Each step has the value of the step before. Store the state after the step, not before."

    def late(p: Problem, run: Run, q: str) -> FloatArray | None:
        values, start = run(p), {"output": p.h_0, "c": p.c_0}
        if q in start:
            return np.concatenate([start[q][None], values[q][:-1]])
        ends = {"h_n": ("output", p.h_0), "c_n": ("c", p.c_0)}
        if q in ends:
            name, first = ends[q]
            return values[name][-2] if len(p.x) > 1 and name in values else first if len(p.x) == 1 else None
        return None

    def padded(p: Problem, run: Run, q: str) -> FloatArray | None:
        v = run(p)[q]
        return np.concatenate([np.zeros_like(v[:1]), v[:-1]]) if q in BY_STEP else None

    def early(p: Problem, run: Run, q: str) -> FloatArray | None:
        v = run(p)[q]
        return np.concatenate([v[1:], np.zeros_like(v[:1])]) if q in BY_STEP else None

    yield Slip("one-step shift", wrong, late)
    yield Slip("one-step shift", wrong + " The first step is zero.", padded)
    yield Slip("one-step shift", "Each step has the value of the step after, the last step zeros.", early)
    yield Slip(
        "reversed time",
        "The steps come out last to first.",
        lambda p, run, q: run(p)[q][::-1] if q in BY_STEP else None,
    )
    yield Slip(
        "state of the first step",
        "It is the state after the first step. It should be that after the last.",
        lambda p, run, q: run(p)[{"h_n": "output", "c_n": "c"}[q]][0] if q in {"h_n", "c_n"} & run(p).keys() else None,
    )


def _parameters() -> Iterator[Slip]:
    yield Slip(
        "gradient of sample 0 only",
        "It has the contribution of the first sample alone. Sum over the batch.",
        lambda p, run, q: run(first_sample(p))[q] if q in PARAMETERS else None,
    )
    for place, t in (("first", 0), ("last", -1)):
        yield Slip(
            f"gradient of the {place} step only",
            f"It has the contribution of the {place} step alone, overwritten and not summed. Use += over the steps.",
            lambda p, run, q, t=t: _of_steps(p, run, q, t),  # type: ignore[misc]
        )

    def reads_new(p: Problem, run: Run, q: str) -> FloatArray | None:
        values = run(p)
        return np.einsum("tbg,tbh->gh", values["da"], values["output"]) if q == "dweight_hh" else None

    def from_zero(p: Problem, run: Run, q: str) -> FloatArray | None:
        values = run(p)
        da, read = values["da"][1:], values["output"][:-1]
        return np.einsum("tbg,tbh->gh", da, read) if q == "dweight_hh" else None

    yield Slip("one-step shift", "dweight_hh pairs da_t with h_t. It is the sum of da_t h_{t-1}.", reads_new)
    yield Slip("first step left out", "dweight_hh misses the step that reads h_0. Sum from t = 0, with h_0.", from_zero)
    yield Slip(
        "transposed blocks",
        "Each gate's square block is transposed. It has the layout of the weight.",
        lambda p, run, q: _turned(p, run(p)[q]) if q in {"dweight_ih", "dweight_hh"} else None,
    )


def _gate_rows() -> Iterator[Slip]:
    for order in permutations(range(4)):
        if order == (0, 1, 2, 3):
            continue
        shown = ", ".join(GATES[k] for k in order)

        def of(p: Problem, run: Run, q: str, order: tuple[int, ...] = order) -> FloatArray | None:
            values = run(p)
            if q in GATES:
                return values[GATES[order[GATES.index(q)]]]
            if q not in PARAMETERS:
                return None
            rows = np.arange(len(values[q])).reshape(4, -1)[list(order)].ravel()
            return values[q][rows]

        yield Slip(f"gate order {shown}", f"The gates come out as {shown}. The order is i, f, g, o.", of)


def _open() -> Iterator[Slip]:
    yield Slip(
        "only batch row 0 right",
        "Row 0 of the batch is right, the other rows are not. Look for an index that misses the batch axis.",
        lambda p, run, q: _rows(run(p)[q], np.nan) if q in BY_STEP | BY_SAMPLE else None,
    )
    for place, t in (("first", 0), ("last", -1)):
        yield Slip(
            f"only the {place} step right",
            f"The {place} step is right, the other steps are not. Look at what is carried from step to step.",
            lambda p, run, q, t=t: _kept(run(p)[q], t) if q in BY_STEP else None,  # type: ignore[misc]
        )


def _broadcast(v: FloatArray) -> FloatArray:
    return np.broadcast_to(v[..., :1, :], v.shape)


def _rows(v: FloatArray, rest: float) -> FloatArray:
    """Row 0 of the batch as it is, `rest` in the others."""
    out = np.full_like(v, rest)
    out[..., 0, :] = v[..., 0, :]
    return out


def _kept(v: FloatArray, t: int) -> FloatArray:
    out = np.full_like(v, np.nan)
    out[t] = v[t]
    return out


def _turned(p: Problem, d: FloatArray) -> FloatArray | None:
    hidden = p.h_0.shape[1]
    return planted.transposed(d, hidden) if d.shape[1] == hidden else d


def _of_steps(p: Problem, run: Run, q: str, t: int) -> FloatArray | None:
    values = run(p)
    da = values["da"][t]
    h_prev = np.concatenate([p.h_0[None], values["output"]])[:-1][t]
    sums = {"dweight_ih": da.T @ p.x[t], "dweight_hh": da.T @ h_prev, "dbias_ih": da.sum(0), "dbias_hh": da.sum(0)}
    return sums.get(q)
