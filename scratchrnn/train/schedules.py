"""Learning rates over a run: factors that the optimizer's own rate is multiplied by, as functions of the update.

Update n counts from 1; total is N, the last factor is `to`:

    constant      1
    linear        1 - (1 - to) (n - 1)/N                           to beyond N
    cosine        to + (1 - to) (1 + cos(π (n - 1)/N))/2           to beyond N
    steps         factor^⌊(n - 1)/every⌋
    warmup        n/(w + 1) for n ≤ w, then another schedule from its own update 1 on

So the first update has the whole rate, and `to` is what the update after the N-th would have.

References
----------
Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5 (cosine).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scratchrnn._validate import check_positive_int, check_real, describe


@dataclass(frozen=True)
class Schedule:
    """A factor for each update; two with one `text` are the same.

    Attributes
    ----------
    text : str
        The call that made it.
    factor : callable
        Of the update's number, from 1.
    """

    text: str
    factor: Callable[[int], float]

    def __call__(self, number: int) -> float:
        """The factor of update `number`."""
        return self.factor(number)

    def __repr__(self) -> str:
        return self.text


def constant() -> Schedule:
    """The rate stays.

    >>> constant()(1000)
    1.0
    """
    return Schedule("constant()", lambda number: 1.0)


def linear(total: int, to: float = 0.0) -> Schedule:
    """The rate falls in a straight line over `total` updates to `to` times what it was.

    >>> schedule = linear(4, to=0.5)
    >>> [schedule(n) for n in range(1, 7)]
    [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    """
    check_positive_int("total", total), check_real("to", to, least=0.0)
    return Schedule(f"linear({total}, to={to!r})", lambda number: 1 - (1 - to) * min(number - 1, total) / total)


def cosine(total: int, to: float = 0.0) -> Schedule:
    """The rate falls along half a period of the cosine over `total` updates to `to` times what it was.

    >>> schedule = cosine(4, to=0.5)
    >>> [round(schedule(n), 4) for n in range(1, 7)]
    [1.0, 0.9268, 0.75, 0.5732, 0.5, 0.5]
    """
    check_positive_int("total", total), check_real("to", to, least=0.0)

    def factor(number: int) -> float:
        return to + (1 - to) * (1 + math.cos(math.pi * min(number - 1, total) / total)) / 2

    return Schedule(f"cosine({total}, to={to!r})", factor)


def steps(every: int, factor: float = 0.1) -> Schedule:
    """The rate is multiplied by `factor` after each `every` updates.

    >>> schedule = steps(2, factor=0.5)
    >>> [schedule(n) for n in range(1, 7)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    check_positive_int("every", every), check_real("factor", factor, least=0.0)
    return Schedule(f"steps({every}, factor={factor!r})", lambda number: factor ** ((number - 1) // every))


def warmup(updates: int, then: Schedule) -> Schedule:
    """The rate rises in a straight line over the first `updates`, and goes on as `then` does from its start.

    >>> schedule = warmup(3, then=linear(4))
    >>> [schedule(n) for n in range(1, 7)]
    [0.25, 0.5, 0.75, 1.0, 0.75, 0.5]
    """
    check_positive_int("updates", updates)
    if not isinstance(then, Schedule):
        raise TypeError(f"then: expected a schedule, such as constant(); got {describe(then)}")

    def factor(number: int) -> float:
        return number / (updates + 1) if number <= updates else then(number - updates)

    return Schedule(f"warmup({updates}, then={then!r})", factor)
