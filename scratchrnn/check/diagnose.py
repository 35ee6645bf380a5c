"""Which known mistake makes these numbers? Hypotheses, tried out one by one.

A mistake is named only if, planted in the definition, it gives the user's own numbers: every result of that side, in
every problem, to the accuracy that a right implementation must have. The hypotheses are a mistake of `mistakes.py`, or
none, and in what it leaves open a slip of `slips.py`; or two mistakes at once. The fewest that explain everything are
named; where several sets of equal size do, all are, since the numbers cannot tell them apart. Where nothing explains
everything, slips still explain single results, and of the rest nothing is said.

Numbers of less precision than the inputs are recognised by the size of their errors: those that rounding to float32,
to 10 bits (TF32, half precision) or to 7 bits (bfloat16) would make, in every result at once. Such coarse numbers can
still show a mistake, if it is the only one that explains them, and ten times better than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations, product

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.check import planted
from scratchrnn.check.mistakes import mistakes
from scratchrnn.check.planted import Mistake
from scratchrnn.check.problem import PROBE, Problem, Run, Values, amplification
from scratchrnn.check.slips import Slip, scales, slips
from scratchrnn.testing import TOLERANCE, difference

UNITS = TOLERANCE["float32_growth"] * TOLERANCE["float32_floor"] / 2.0**-23  # of eps, times the amplification
PRECISIONS = {"float64": 0.0, "float32": 2.0**-23, "10 bits": 2.0**-10, "7 bits": 2.0**-7}


@dataclass(frozen=True)
class Finding:
    """A mistake that was recognised.

    Attributes
    ----------
    name : str
    wrong : str
        What is wrong, and what to do.
    side : str
        "forward" or "backward": which function has it.
    quantities : tuple of str
        The results that it explains.
    without, with_it : float
        How far the user's numbers lie from what is right, and from what the definition gives with the mistake planted:
        the largest `scratchrnn.testing.difference(...).ratio`. `with_it` is None for what was seen directly.
    others : tuple of str
        Mistakes that would give the same numbers.
    """

    name: str
    wrong: str
    side: str
    quantities: tuple[str, ...]
    without: float
    with_it: float | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.side}: {self.name}. {self.wrong}"
        if self.quantities:
            text += f" Seen in {', '.join(self.quantities)}"
            text += "." if self.with_it is None else f": error {self.without:.2g} as it is, {self.with_it:.2g} with"
            text += "" if self.with_it is None else " this mistake planted in the definition."
        return text + (f" The numbers could also be from: {'; '.join(self.others)}." if self.others else "")


@dataclass(frozen=True)
class Side:
    """What one function returned, next to what is right, problem by problem; None where it raised."""

    name: str  # "forward" or "backward"
    problems: Sequence[Problem]
    got: Sequence[Values]
    right: Sequence[Values]
    allowed: Sequence[dict[str, float]]
    dtype: str


@dataclass(frozen=True)
class Diagnosis:
    """What is known of one side."""

    findings: tuple[Finding, ...] = ()
    unexplained: tuple[str, ...] = ()  # results that are wrong, for no known reason
    follows: tuple[str, ...] = ()  # wrong gradients that are right for the mistaken forward pass
    plants: tuple[Callable[[Run], Run], ...] = ()  # ways to plant what was found, for the other side


@dataclass(frozen=True)
class _Base:
    """A hypothesis of mistakes, none, one or two, planted."""

    names: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    run: Run
    follows: bool = False  # whether it contains what was found in forward


@dataclass
class _Fit:
    """A base that explains every result, some by way of a slip."""

    base: _Base
    slips: dict[str, Slip] = field(default_factory=dict)  # by result

    @property
    def size(self) -> int:
        """How many mistakes it takes."""
        return len(self.base.names) + len({slip.name for slip in self.slips.values()})


def diagnose(cell: str, side: Side, context: Sequence[Callable[[Run], Run]] = ()) -> Diagnosis:
    """Name what is wrong on a side; `context` is how to plant what was found in the forward pass."""
    wrong = _wrong(side)
    if not wrong:
        return Diagnosis()
    search = _Search(cell, side, context)
    for precision, eps in PRECISIONS.items():
        if eps < PRECISIONS[side.dtype]:
            continue
        search.eps = eps
        if precision != side.dtype and len(wrong) == len(search.names) and search.fits(search.bases[0]):
            return Diagnosis((_imprecise(search, wrong),))
        fits = search.all(thorough=precision in {"float64", "float32"}) if precision != "7 bits" else []
        if fits:
            found = _told(search, fits, wrong)
            if precision != side.dtype:
                noise = _imprecise(search, search.names, search.with_it(fits[0], search.names))
                found = replace(found, findings=(*found.findings, noise))
            return found
    search.eps = PRECISIONS[side.dtype]
    return _piecewise(search, wrong)


class _Search:
    """The hypotheses for one side, tried on the probe first and then on every problem."""

    def __init__(self, cell: str, side: Side, context: Sequence[Callable[[Run], Run]]) -> None:
        self.side, self.eps = side, 0.0
        self.names = tuple(dict.fromkeys(q for got in side.got for q in got))
        self.slips = slips(cell)
        table = [m for m in mistakes(cell) if m.forward or side.name == "backward"]
        bare = _Base((), (), _remembering(planted.run))
        after = [_Base((), (), _remembering(plant(planted.run)), follows=True) for plant in context]
        self.bases = [bare, *after]
        self.singles = [
            _Base((m.name,), (m,), _remembering(m.plant(base.run)), base.follows)
            for base in self.bases
            for m in table
            if not (base.follows and m.forward)
        ]
        both = [m for m in table if m.forward == (side.name == "forward")]
        self.pairs = [
            _Base((a.name, b.name), (a, b), _remembering(b.plant(a.plant(base.run))), base.follows)
            for base in self.bases
            for a, b in combinations(both, 2)
            if a.name != b.name
        ]
        self._amplified: dict[int, dict[str, float]] = {}
        have = [k for k, got in enumerate(side.got) if got]
        probe = PROBE if PROBE in have else have[0]
        self.order = [probe, *(k for k in have if k != probe)]

    def all(self, thorough: bool) -> list[_Fit]:
        """Every hypothesis of least cost that explains everything."""
        fits = [_Fit(base) for base in [*self.bases[1:], *self.singles] if self.fits(base)]
        if thorough and not any(fit.size == 0 for fit in fits):
            mixed = [
                self.mixed(base) for base in [*self.bases, *self.singles] if base is self.bases[0] or self.touches(base)
            ]
            fits += [fit for fit in mixed if fit is not None and fit.slips]
        if thorough and min((fit.size for fit in fits), default=3) > 2:
            fits += [_Fit(base) for base in self.pairs if self.fits(base)]
        fits = sorted((fit for fit in fits if fit.size == min(f.size for f in fits)), key=self.contradicted)
        if thorough:
            return fits
        sure = len({fit.base.names for fit in fits}) == 1
        return fits if sure and 10 * self.with_it(fits[0], self.names) < self.without(self.names) else []

    def contradicted(self, fit: _Fit) -> bool:
        """Whether it is a mistake of forward, which the user's forward does not have, in backward."""
        return self.side.name == "backward" and any(m.forward for m in fit.base.mistakes)

    def fits(self, base: _Base) -> bool:
        """Whether a base alone gives every result of every problem."""
        return all(self.same(k, q, base.run, self.value(base.run, k, q)) for k in self.order for q in self.side.got[k])

    def touches(self, base: _Base) -> bool:
        """Whether a base gives some result of the probe that is wrong, up to a factor: then slips may do the rest."""
        k = self.order[0]
        p, right, allowed = self.side.problems[k], self.side.right[k], self.side.allowed[k]
        wrong = [q for q in self.side.got[k] if self.error(k, q, right[q]) > allowed[q]]
        return any(
            self.same(k, q, base.run, self.value(base.run, k, q))
            or any(self.same(k, q, base.run, slip.of(p, base.run, q)) for slip in scales())
            for q in wrong
        )

    def mixed(self, base: _Base) -> _Fit | None:
        """A base and, where it alone does not give a result, a slip that does."""
        fit = _Fit(base)
        for q in self.names:
            if self.given(base.run, q):
                continue
            slip = self.slip(base.run, q, prefer={slip.name for slip in fit.slips.values()})
            if slip is None:
                return None
            fit.slips[q] = slip
        return fit

    def given(self, run: Run, q: str) -> bool:
        return all(self.same(k, q, run, self.value(run, k, q)) for k in self.order if q in self.side.got[k])

    def slip(self, run: Run, q: str, prefer: Iterable[str] = ()) -> Slip | None:
        """The first slip that gives a result in every problem, those preferred before others."""
        found = [slip for slip in self.slips if self.slipped(run, q, slip)]
        return min(found, key=lambda slip: slip.name not in prefer, default=None)

    def slipped(self, run: Run, q: str, slip: Slip) -> bool:
        have = [k for k in self.order if q in self.side.got[k]]
        return all(self.same(k, q, run, slip.of(self.side.problems[k], run, q)) for k in have)

    def value(self, run: Run, k: int, q: str) -> FloatArray:
        return run(self.side.problems[k])[q]

    def error(self, k: int, q: str, want: FloatArray) -> float:
        got, closed = self.side.got[k][q], ~np.isnan(want)
        return np.inf if not closed.any() else difference(got[closed], want[closed]).ratio

    def same(self, k: int, q: str, run: Run, want: FloatArray | None) -> bool:
        """Whether the user's result is `want`, to the accuracy in question."""
        if want is None:
            return False
        error, allowed = self.error(k, q, want), UNITS * self.eps
        if self.eps == 0:
            return error <= TOLERANCE["float64"]
        if error <= allowed:
            return True
        # where rounding is coarse, what amplifies it would excuse anything
        fine = self.eps <= PRECISIONS["float32"] and error <= 100 * allowed
        return fine and error <= allowed * self.amplified(run, k)[q]

    def amplified(self, run: Run, k: int) -> dict[str, float]:
        key = hash((id(run), k))
        if key not in self._amplified:
            p = self.side.problems[k]
            self._amplified[key] = amplification(p, run, run(p))
        return self._amplified[key]

    def without(self, names: Iterable[str]) -> float:
        """How far these results lie from what is right."""
        ks = self.order
        return max(
            (self.error(k, q, self.side.right[k][q]) for q in names for k in ks if q in self.side.got[k]), default=0.0
        )

    def with_it(self, fit: _Fit, names: Iterable[str]) -> float:
        """How far they lie from what a hypothesis gives."""
        errors = [0.0]
        for q in names:
            for k in self.order:
                if q in self.side.got[k]:
                    p, run = self.side.problems[k], fit.base.run
                    want = fit.slips[q].of(p, run, q) if q in fit.slips else run(p)[q]
                    errors.append(np.inf if want is None else self.error(k, q, want))
        return max(errors)


def _told(search: _Search, fits: Sequence[_Fit], wrong: tuple[str, ...]) -> Diagnosis:
    """The first of the fits in words, the others by name."""
    first, side = fits[0], search.side.name
    others = tuple(dict.fromkeys(_title(fit) for fit in fits[1:] if _title(fit) != _title(first)))
    explained = tuple(q for q in wrong if q not in first.slips)
    findings = []
    for m in first.base.mistakes:
        without, with_it = search.without(explained), search.with_it(first, explained)
        findings.append(Finding(m.name, m.wrong, side, explained, without, with_it, others))
    for name in dict.fromkeys(slip.name for slip in first.slips.values()):
        own = tuple(q for q, slip in first.slips.items() if slip.name == name)
        slip = first.slips[own[0]]
        findings.append(Finding(name, slip.wrong, side, own, search.without(own), search.with_it(first, own), others))
    names = first.base.names
    follows = explained if first.base.follows and not names else ()
    return Diagnosis(tuple(findings), (), follows, tuple(_plants(search, names)))


def _plants(search: _Search, names: tuple[str, ...]) -> Iterator[Callable[[Run], Run]]:
    """Every way to plant the mistakes of these names."""
    own = [[b.mistakes[0] for b in search.singles if b.names == (name,) and not b.follows] for name in names]
    for ways in product(*own) if own else ():
        yield reduce(lambda inner, m: lambda run: m.plant(inner(run)), ways, lambda run: run)


def _title(fit: _Fit) -> str:
    return " and ".join(dict.fromkeys([*fit.base.names, *(slip.name for slip in fit.slips.values())]))


def _piecewise(search: _Search, wrong: tuple[str, ...]) -> Diagnosis:
    """What single results say, where nothing explains all of them."""
    fit = _Fit(search.bases[0])
    for q in wrong:
        slip = search.slip(search.bases[0].run, q, prefer={slip.name for slip in fit.slips.values()})
        if slip is not None:
            fit.slips[q] = slip
    told = _told(search, [fit], tuple(fit.slips))
    return Diagnosis(told.findings, tuple(q for q in wrong if q not in fit.slips))


def _imprecise(search: _Search, names: tuple[str, ...], error: float | None = None) -> Finding:
    """Less precision than the inputs have, by the size of the error."""
    error = search.without(names) if error is None else error
    bits = -np.log2(error)
    precision, why = (
        ("float32", "Something computes or keeps its numbers in float32. Look for a cast or a default dtype.")
        if bits > 16
        else ("10 bits", "Such are the products of TF32 tensor cores and of half precision. Switch them off to check.")
        if bits > 9
        else ("7 bits", "Such are products in bfloat16. Compute in float32 to check.")
    )
    text = f"The errors have the size that rounding to {precision} makes, which is all the evidence. {why}"
    return Finding(f"precision of {precision}", text, search.side.name, names, error)


def _wrong(side: Side) -> tuple[str, ...]:
    """The results that are wrong in some problem."""
    names = dict.fromkeys(q for got in side.got for q in got)
    return tuple(
        q for q in names
        if any(
            not difference(got[q], right[q]).ratio <= allowed[q]
            for got, right, allowed in zip(side.got, side.right, side.allowed, strict=True) if q in got
        )
    )  # fmt: skip


def _remembering(run: Run) -> Run:
    """The same, computing each problem once."""
    known: dict[int, tuple[Problem, Values]] = {}

    def remembered(p: Problem) -> Values:
        if id(p) not in known:
            known[id(p)] = p, run(p)  # with the problem itself, so that its id stays its own
        return known[id(p)][1]

    return remembered
