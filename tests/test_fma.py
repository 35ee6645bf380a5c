"""a * b + c rounded once, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from scratchrnn._fma import fma


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_is_rounded_once(dtype: Any, rng: np.random.Generator) -> None:
    kind, digits = np.dtype(dtype).type, np.finfo(dtype).nmant + 1
    step = 2.0 ** (1 - digits)
    cases = [
        (rng.normal(size=300).astype(dtype), *(rng.normal(size=2) * 2.0 ** rng.integers(-40, 40, size=2)))
        for _ in range(40)
    ]
    # a sum beside the middle of two neighbours by less than a second rounding could see
    beside = np.array([1 + step, 1 - step, 1 + 2 * step, -1 - step], dtype)
    cases += [(beside, step / 2 * (1 - step), 1 + odd * step) for odd in range(1, 40, 2)]
    twice = 0
    for a, b, c in cases:
        b, c = float(kind(b)), float(kind(c))
        exact = [Fraction(float(value)) * Fraction(b) + Fraction(c) for value in a]
        got = fma(a, b, c)
        assert got.dtype == dtype
        assert got.astype(np.float64).tolist() == [nearest(value, digits) for value in exact]
        twice += int(np.sum((a.astype(np.float64) * b + c).astype(dtype) != got))
    assert twice >= 20  # so that the cases do tell rounding once from rounding twice


def nearest(value: Fraction, digits: int) -> float:
    """The binary number of so many digits nearest to `value`, ties to even."""
    if value == 0:
        return 0.0
    size = abs(value)
    power = size.numerator.bit_length() - size.denominator.bit_length()
    power -= size < Fraction(2) ** power
    step = Fraction(2) ** (power + 1 - digits)
    return float(round(value / step) * step)
