"""tanh and sigmoid for loops that become vector loops: no branch, no table, no call, one division.

    exp(-y)    = s (1 + q),   -y = n ln 2 + r,  s = 2ⁿ,  q = expm1(r),  |r| <= ln 2 / 2
    sigmoid(x) = 1 / (s q + s + 1),                      y = x
    tanh(x)    = e / (e + 2),  e = s q + s - 1,          y = -2|x|, or 2|x| where that is small: then e + 2 < 2 has the
                                                         smaller rounding, and elsewhere it has almost none

Adding 1.5 · 2²³ (float64: 1.5 · 2⁵²) rounds to an integer and leaves it in the lowest bits: moved to the exponent's
place they are 2ⁿ, and a nan does no harm. ln 2 comes in two parts; the first is the nearest float, and n times it is
taken from y without an error, by a fused multiply-add.

What is left is at most 2 floats from the correctly rounded value, denormal results included; a test sweeps it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .simd import choose, copy_sign, fma, low_bits_to_exponent, polynomial

NUMPY = {types.float32: np.float32, types.float64: np.float64}
# rounds to an integer n, and the lowest bits are the exponent field of 2ⁿ
ROUND = {types.float32: 1.5 * 2.0**23 + 127, types.float64: 1.5 * 2.0**52 + 1023}
LN2 = {
    types.float32: (0.693147182464599609375, -1.904654299957768e-9),
    types.float64: (math.log(2), 2.319046813846299558e-17),
}
TANH_IS_1 = {types.float32: 20.0, types.float64: 40.0}  # of 2|x|
TANH_SMALL = 0.55  # of 2|x|
SIGMOID_IS_1 = {types.float32: 20.0, types.float64: 40.0}
SIGMOID_IS_0 = {types.float32: -105.0, types.float64: -746.0}
LARGEST = {types.float32: 126, types.float64: 1022}  # n whose s (1 + q) stays finite
# Minimax, by weighted least squares with the weights moved to where the error is largest; each coefficient was rounded
# before the later ones were fitted. (expm1(r) - r) / r² in -r, weight r², |r| <= ln 2 / 2: error 2^-28.2, 2^-58.0
EXPM1 = {
    types.float32: (0.5, -0.1666651964187622, 0.0416664220392704, -0.00836881808936596, 0.0013938805786892772),
    types.float64: (
        0.5000000000000013, -0.16666666666666669, 0.04166666666651106, -0.008333333333328466, 0.0013888888948056497,
        -0.00019841269869383366, 2.4801488948223332e-05, -2.7557260170192378e-06, 2.7631610958925054e-07,
        -2.510379078630727e-08,
    ),
}  # fmt: skip


def tanh(x: Any) -> Any:
    """tanh(x), in compiled code only."""


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), in compiled code only."""


@overload(tanh, jit_options={"error_model": "numpy"})
def _tanh(x):
    number = NUMPY[x]
    series, magic, per_ln2 = polynomial(EXPM1[x]), number(ROUND[x]), number(-1 / math.log(2))
    high, low = (number(part) for part in LN2[x])
    one, two, end, small = number(1), number(2), number(TANH_IS_1[x]), number(TANH_SMALL)
    needs_low = x is types.float64  # in float32 n is too small to bring it out

    def implementation(x):
        y = abs(x + x)
        y = choose(y > end, end, y)  # a nan stays
        y = choose(y < small, y, -y)
        t = fma(y, per_ln2, magic)
        n = t - magic
        r = fma(n, high, y)  # -r, and the series is one in -r
        z = r * r
        q = fma(series(r, z), z, -n * low) - r if needs_low else fma(series(r, z), z, -r)
        s = low_bits_to_exponent(t)
        e = fma(s, q, s - one)
        return copy_sign(e / (e + two), x)

    return implementation


@overload(sigmoid, jit_options={"error_model": "numpy"})
def _sigmoid(x):
    number = NUMPY[x]
    series, magic, per_ln2 = polynomial(EXPM1[x]), number(ROUND[x]), number(-1 / math.log(2))
    high, low = (number(part) for part in LN2[x])
    one, largest = number(1), number(ROUND[x] + LARGEST[x])
    top, bottom = number(SIGMOID_IS_1[x]), number(SIGMOID_IS_0[x])

    def implementation(x):
        y = choose(x > top, top, x)  # a nan stays
        y = choose(y < bottom, bottom, y)
        t = fma(y, per_ln2, magic)
        n = t - magic
        r = fma(n, low, fma(n, high, y))  # -r, and the series is one in -r
        z = r * r
        q = fma(series(r, z), z, -r)
        bounded = choose(t > largest, largest, t)
        s = low_bits_to_exponent(bounded)
        rest = low_bits_to_exponent((bounded - t) + magic)  # of 1 / 2ⁿ: 1 unless the result is almost denormal
        return rest / fma(s, q, s + one)

    return implementation
