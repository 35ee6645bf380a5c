"""tanh and sigmoid for loops that become vector loops: no branch, no table, no call.

    x = n ln 2 + r,  n = round(x / ln 2),  |r| <= ln 2 / 2;  ln 2 in two parts, so that n times the first is exact
    expm1(r)   = r + r² (1/2! + r/3! + r²/4! + ...)                       up to r⁷ in float32, r¹³ in float64
    expm1(x)   = 2ⁿ expm1(r) + (2ⁿ - 1)
    tanh(x)    = sign(x) · e / (e + 2),      e = expm1(2|x|)
    sigmoid(x) = (x >= 0 ? 1 : e) / (1 + e), e = exp(-|x|)

The quotient is corrected once by its own residual, with the rounding of the denominator in it. What is left is below
2 ulp over the whole range, denormal results included; a test sweeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .simd import choose, copy_sign, fma, power_of_two, round_to_int

# ln 2 with 16 trailing zero bits (float32) or 20 (float64), and the rest
LN2 = {
    types.float32: (0.693145751953125, 1.42860682030941723212e-6),
    types.float64: (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
DEGREE = {types.float32: 7, types.float64: 13}
TANH_IS_1 = {types.float32: 10.0, types.float64: 20.0}
EXP_IS_0 = {types.float32: 104.0, types.float64: 746.0}
NUMPY = {types.float32: np.float32, types.float64: np.float64}


def tanh(x: Any) -> Any:
    """tanh(x), in compiled code only."""


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), in compiled code only."""


def _expm1_parts(real: Any) -> Callable[[Any], tuple[Any, Any]]:
    """Make x -> (n, expm1(r)), the series written out."""
    number = NUMPY[real]
    high, low = (number(v) for v in LN2[real])
    per_ln2 = number(1 / math.log(2))
    c = tuple(number(1 / math.factorial(k)) for k in range(DEGREE[real], 1, -1))
    if real is types.float32:

        @register_jitable
        def parts(x):
            n = round_to_int(x * per_ln2)
            r = fma(-n, low, fma(-n, high, x))
            p = fma(fma(fma(fma(fma(c[0], r, c[1]), r, c[2]), r, c[3]), r, c[4]), r, c[5])
            return n, fma(p * r, r, r)
    else:

        @register_jitable
        def parts(x):
            n = round_to_int(x * per_ln2)
            r = fma(-n, low, fma(-n, high, x))
            p = fma(fma(fma(fma(fma(c[0], r, c[1]), r, c[2]), r, c[3]), r, c[4]), r, c[5])
            p = fma(fma(fma(fma(fma(fma(p, r, c[6]), r, c[7]), r, c[8]), r, c[9]), r, c[10]), r, c[11])
            return n, fma(p * r, r, r)

    return parts


@overload(tanh, jit_options={"error_model": "numpy"})
def _tanh(x):
    number, end, parts = NUMPY[x], NUMPY[x](TANH_IS_1[x]), _expm1_parts(x)
    one, two = number(1), number(2)

    def implementation(x):
        y = abs(x)
        y = choose(y > end, end, y)  # a nan stays
        n, q = parts(y + y)
        s = power_of_two(n)
        e = fma(s, q, s - one)
        d = e + two
        rest = choose(e < two, e - (d - two), two - (d - e))
        reciprocal = one / d
        v = e * reciprocal
        v = fma(fma(-v, rest, fma(-v, d, e)), reciprocal, v)
        return copy_sign(v, x)

    return implementation


@overload(sigmoid, jit_options={"error_model": "numpy"})
def _sigmoid(x):
    number, end, parts = NUMPY[x], NUMPY[x](EXP_IS_0[x]), _expm1_parts(x)
    zero, half, one = number(0), number(0.5), number(1)

    def implementation(x):
        y = abs(x)
        y = choose(y > end, end, y)
        n, q = parts(-y)
        first = round_to_int(n * half)
        e = (one + q) * power_of_two(first) * power_of_two(n - first)  # in two factors: it may be denormal
        d = one + e
        a = choose(x >= zero, one, e)
        rest = e - (d - one)
        reciprocal = one / d
        v = a * reciprocal
        return fma(fma(-v, rest, fma(-v, d, a)), reciprocal, v)

    return implementation
