"""Box-Muller with the arithmetic of torch's CPU build, operation for operation.

    n_1 = r cos(theta),  n_2 = r sin(theta),  theta = 2 pi u_2
    r = sqrt(-2 log(1 - u_1))             in blocks, for tensors of 16 elements and more
    r = sqrt(-2 log1p(-u_2)), theta = 2 pi u_1            one pair at a time, below 16 (always in float64)

float32 blocks use polynomials (torch's AVX2 path), float64 and single pairs the C library, which Python's
`math` calls too; NumPy's functions may be its own, with other last digits, so they do not serve. The compiler
fused the polynomials' multiplications and additions. Each input is one of 2**24 multiples of 2**-24; over all
of them the radius, the sine and the cosine below equal torch 2.13's bit for bit, with a fused step taken in
float64 and then rounded.

References
----------
Box and Muller, "A note on the generation of random normal deviates", Annals of Mathematical Statistics 29
(1958). Moshier, Cephes mathematical library (logf, sinf, cosf), for the polynomials. torch:
ATen/native/cpu/DistributionTemplates.h (NormalFill16), ATen/core/DistributionsHelper.h (normal_distribution).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import FloatArray

_Float32 = NDArray[np.float32]

_SQRT_HALF = np.float32(0.70710678)
_LOG_2_HIGH, _LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# highest power first: P(x) in log(1 + x) = x - x^2/2 + x^3 P(x), P(x^2) in sin(x) = x + x^3 P(x^2) and in
# cos(x) = 1 - x^2/2 + x^4 P(x^2)
_LOG_COEFFICIENTS = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_SIN_COEFFICIENTS = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS_COEFFICIENTS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_QUARTER_PI_PARTS = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)  # summed: pi / 4


def block_pairs(u_1: FloatArray, u_2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn uniforms into standard normals as torch does for 16 elements and more.

    Parameters
    ----------
    u_1, u_2 : ndarray, one shape, float32 or float64
        Uniforms in [0, 1).

    Returns
    -------
    n_1, n_2 : ndarray, same shape and dtype
        The cosine and the sine half of each pair.
    """
    if u_1.dtype == np.float32:
        radius = np.sqrt(np.float32(-2.0) * _log(np.float32(1.0) - u_1))
        sine, cosine = _sin_cos(np.float32(2.0 * math.pi) * u_2)
    else:
        radius = np.sqrt(-2.0 * _by_c_library(math.log, 1.0 - u_1))
        theta = 2.0 * math.pi * u_2
        sine, cosine = _by_c_library(math.sin, theta), _by_c_library(math.cos, theta)
    return radius * cosine, radius * sine


def single_pair(u_1: float, u_2: float) -> tuple[float, float]:
    """Turn two uniforms into two standard normals as torch does below 16 elements, in float64."""
    radius = math.sqrt(-2.0 * math.log1p(-u_2))
    theta = 2.0 * math.pi * u_1
    return radius * math.cos(theta), radius * math.sin(theta)


def _by_c_library(function: Callable[[float], float], x: FloatArray) -> FloatArray:
    return np.fromiter(map(function, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


def _fused(a: _Float32, b: _Float32, c: _Float32 | np.float32) -> _Float32:
    """a * b + c; rounded twice, which for the values that occur here never differs from once."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _polynomial(coefficients: tuple[float, ...], x: _Float32) -> _Float32:
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = _fused(y, x, np.float32(coefficient))
    return y


def _log(x: _Float32) -> _Float32:
    """log(x) for x in (0, 1]: x = 2^e (1 + m) with 1 + m in [sqrt(1/2), sqrt(2)), and a polynomial in m."""
    fraction, exponent = np.frexp(x)
    low = fraction < _SQRT_HALF
    e = (exponent - low).astype(np.float32)
    m = (fraction - np.float32(1.0)) + np.where(low, fraction, np.float32(0.0))
    square = m * m
    tail = _fused(_polynomial(_LOG_COEFFICIENTS, m) * m, square, e * _LOG_2_LOW) - np.float32(0.5) * square
    return (m + tail) + e * _LOG_2_HIGH


def _sin_cos(x: _Float32) -> tuple[_Float32, _Float32]:
    """sin(x) and cos(x), x in [0, 2 pi]: x less the nearest even number j of quarter-pis, two polynomials."""
    j = ((x * np.float32(4.0 / math.pi)).astype(np.int32) + 1) & ~1
    rest = x
    for part in _QUARTER_PI_PARTS:
        rest = _fused(j.astype(np.float32), np.full_like(x, -part), rest)
    square = rest * rest
    even = _polynomial(_COS_COEFFICIENTS, square) * square
    even = _fused(even, square, np.float32(-0.5) * square) + np.float32(1.0)
    odd = _fused(_polynomial(_SIN_COEFFICIENTS, square) * square, rest, rest)
    swapped = j & 2 != 0  # by an odd number of right angles sine and cosine change places
    sine, cosine = np.where(swapped, even, odd), np.where(swapped, odd, even)
    return np.where(j & 4, -sine, sine), np.where((j + 2) & 4, -cosine, cosine)
