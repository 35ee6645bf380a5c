"""Fused multiply-add, a * b + c with a single rounding, which NumPy lacks and compiled torch uses.

    float32: a * b is exact in float64; the sum is rounded to odd there, then to float32
    float64: a * b = p + p',  c + p' = s + s',  p + s = t + t',  and t + odd(t' + s') rounded once

Rounding to odd (of the two neighbours of an inexact result, the one whose last bit is 1) keeps enough of what
was cut off that the second rounding falls as if it were the only one.

References
----------
Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd",
IEEE Transactions on Computers 57 (2008). Dekker, "A floating-point technique for extending the available
precision", Numerische Mathematik 18 (1971), for the exact product.
"""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray

_SPLITTER = 2.0**27 + 1.0  # cuts 53 bits into 26 and 26


def fma(a: FloatArray, b: float, c: float) -> FloatArray:
    """Return a * b + c, rounded once, in the dtype of `a`.

    Parameters
    ----------
    a : ndarray, float32 or float64, any shape
        Of magnitude 0 or 1e-20 to 1e20, as uniform and normal draws are.
    b, c : float
        Taken as numbers of that dtype. In float64 of magnitude 0 or 2**-800 to 2**800: beyond, the exact
        product could overflow or lose bits.
    """
    if a.dtype == np.float32:
        exact = a.astype(np.float64) * np.float64(np.float32(b))
        return _sum_to_odd(exact, np.float64(np.float32(c))).astype(np.float32)
    product, product_error = _two_product(a, np.float64(b))
    inner, inner_error = _two_sum(product_error, np.float64(c))
    outer, outer_error = _two_sum(product, inner)
    return outer + _sum_to_odd(outer_error, inner_error)


def _two_sum(x: FloatArray, y: FloatArray | np.float64) -> tuple[FloatArray, FloatArray]:
    """Return s = x + y rounded, and e, such that s + e = x + y exactly."""
    s = x + y
    y_part = s - x
    return s, (x - (s - y_part)) + (y - y_part)


def _two_product(x: FloatArray, y: np.float64) -> tuple[FloatArray, FloatArray]:
    """Return p = x * y rounded, and e, such that p + e = x * y exactly."""
    p = x * y
    x_high = _SPLITTER * x - (_SPLITTER * x - x)
    y_high = _SPLITTER * y - (_SPLITTER * y - y)
    x_low, y_low = x - x_high, y - y_high
    return p, ((x_high * y_high - p) + x_high * y_low + x_low * y_high) + x_low * y_low


def _sum_to_odd(x: FloatArray, y: FloatArray | np.float64) -> FloatArray:
    """Return x + y in float64, rounded to odd."""
    s, e = _two_sum(x, y)
    bits = np.ascontiguousarray(s).view(np.int64)
    move = (e != 0.0) & (bits & 1 == 0)
    return np.where(move, np.nextafter(s, np.copysign(np.inf, e)), s)
