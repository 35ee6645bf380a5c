"""The figures of a table, from values that come batch by batch and are not kept.

    n, m, M₂ of two groups a, b            (Chan, Golub, LeVeque 1979; one value at a time it is Welford's rule)
    n  = n_a + n_b
    m  = m_a + (m_b - m_a) n_b / n
    M₂ = M₂_a + M₂_b + (m_b - m_a)² n_a n_b / n
    std = √(M₂ / (n - 1))                  as torch.std has it

Dimensions: N steps of sequences, H units.

References
----------
Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, Stanford,
1979.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import FloatArray


@dataclass(frozen=True)
class Figures:
    """What a table says of one quantity, over all steps of all sequences; padding and initial states are left out.

    NaN and infinite values are counted, and left out of everything else; where nothing else is left, a figure is NaN.

    Attributes
    ----------
    shape : tuple of two int
        Steps of all sequences together, and units.
    mean, std, min, max : float
        `std` with N - 1 in the denominator.
    near_zero : float
        Share of |value| < 0.01, for a gate the share that is closed; or another limit, see `Limits`.
    saturated : float or None
        Share of |value| > 0.99, for a gate the share below 0.01 or above 0.99; None for what is not bounded by ±1: c,
        the input, h of a relu net and h after a projection.
    nan_count, inf_count : int
    """

    shape: tuple[int, int]
    mean: float
    std: float
    min: float
    max: float
    near_zero: float
    saturated: float | None
    nan_count: int
    inf_count: int


class Running:
    """Figures of values that are added batch by batch.

    Parameters
    ----------
    near_zero : float
        |value| below it is near zero.
    low, high : float, optional
        Values below `low` and above `high` are saturated; no word on saturation when absent.
    """

    def __init__(self, near_zero: float, low: float | None = None, high: float | None = None) -> None:
        self._near_zero, self._low, self._high = near_zero, low, high
        self._rows = self._units = self._count = self._nan = self._inf = self._zeros = self._ends = 0
        self._mean = self._squares = 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, values: FloatArray) -> None:
        """Take more values (N, H)."""
        self._rows += len(values)
        self._units = values.shape[1]
        finite = np.isfinite(values)
        if finite.all():
            known = values.ravel()
        else:
            known = values[finite]
            nan = int(np.isnan(values).sum())
            self._nan += nan
            self._inf += values.size - known.size - nan
        if not known.size:
            return
        self._zeros += int((np.abs(known) < self._near_zero).sum())
        if self._low is not None and self._high is not None:
            self._ends += int(((known < self._low) | (known > self._high)).sum())
        self._min, self._max = min(self._min, float(known.min())), max(self._max, float(known.max()))
        mean = float(known.mean(dtype=np.float64))
        with np.errstate(over="ignore"):
            squares = float(np.square(np.subtract(known, mean, dtype=np.float64)).sum())
            self._merge(known.size, mean, squares)

    def _merge(self, count: int, mean: float, squares: float) -> None:
        total, apart = self._count + count, mean - self._mean
        self._mean += apart * (count / total)
        self._squares += squares + apart * apart * (self._count * (count / total))
        self._count = total

    def figures(self) -> Figures:
        """What the values so far amount to."""
        count, nothing = self._count, math.nan
        return Figures(
            shape=(self._rows, self._units),
            mean=self._mean if count else nothing,
            std=math.sqrt(self._squares / (count - 1)) if count > 1 else nothing,
            min=self._min if count else nothing,
            max=self._max if count else nothing,
            near_zero=self._zeros / count if count else nothing,
            saturated=None if self._low is None else self._ends / count if count else nothing,
            nan_count=self._nan,
            inf_count=self._inf,
        )
