"""Where truncated backpropagation through time cuts: plain numbers, no arrays.

An update every k1 steps, its gradient over the last k2 (BPTT(h; h') of Williams and Peng with h' = k1, h = k2):

    window j ends at      stop  = min((j + 1) k1, T)
    gradient flows to     start = max((j + 1) k1 - k2, 0)     the state there is a constant; 0 where k2 ≥ T
    losses that count     first = max(j k1, start)  ≤ t < stop

Every loss counts once where k2 ≥ k1, and its gradient reaches back at least k2 - k1 + 1 and at most k2 steps, the same
for a step wherever the data end: a shorter last window starts where a whole one would. With k2 > k1 windows overlap:
what one reads beyond its new steps is run again. With k2 < k1 the first k1 - k2 steps of a window are only read, and
their losses are left out.

References
----------
Williams, Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", 1990,
section 3. Sutskever, "Training recurrent neural networks", PhD thesis, 2013 (the names k1 and k2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from scratchrnn._validate import check_int, check_positive_int


class Span(NamedTuple):
    """One window: steps [start, stop), of which the losses of [first, stop) are new."""

    start: int
    first: int
    stop: int


def schedule(steps: int, k1: int, k2: int, begin: int = 0) -> Iterator[Span]:
    """The windows over `steps` steps, in order.

    Parameters
    ----------
    steps : int
        T.
    k1 : int
        Steps between two updates.
    k2 : int
        Steps that the gradient of an update reaches back; T or more for all of them.
    begin : int
        Step at which to go on: the `stop` of a window, or 0.

    Examples
    --------
    >>> [tuple(span) for span in schedule(10, k1=4, k2=4)]
    [(0, 0, 4), (4, 4, 8), (8, 8, 10)]
    >>> [tuple(span) for span in schedule(10, k1=4, k2=6)]
    [(0, 0, 4), (2, 4, 8), (6, 8, 10)]
    >>> [tuple(span) for span in schedule(10, k1=4, k2=3)]
    [(1, 1, 4), (5, 5, 8), (9, 9, 10)]
    """
    check_positive_int("steps", steps), check_positive_int("k1", k1), check_positive_int("k2", k2)
    if check_int("begin", begin, least=0) > steps or (begin % k1 and begin != steps):
        raise ValueError(f"begin: expected a multiple of k1={k1} up to steps={steps}, where a window ends; got {begin}")
    return (span for before in range(begin, steps, k1) if (span := _span(before, steps, k1, k2)).first < span.stop)


def _span(before: int, steps: int, k1: int, k2: int) -> Span:
    start = 0 if k2 >= steps else max(before + k1 - k2, 0)
    return Span(start, max(before, start), min(before + k1, steps))
