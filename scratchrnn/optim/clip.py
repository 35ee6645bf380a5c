"""Gradient norms and clipping.

All gradients are taken as one vector g (N,):

    norm  = (sum |g_n|^p)^(1/p),  max |g_n| for p = inf
    g     = g min(1, max_norm / (norm + 1e-6))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_bool, check_real
from scratchrnn.optim._arrays import check_arrays

# below this, squares of the larger elements have lost digits to underflow
_SMALLEST_SUM = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)


def global_norm(gradients: Mapping[str, FloatArray], *, norm_type: float = 2.0) -> float:
    """Return the norm of all gradients taken as one vector.

    Parameters
    ----------
    gradients : dict of str to ndarray
        Float32 or float64, one dtype. An empty dict has norm 0.
    norm_type : float
        The p of the p-norm, above 0; `math.inf` for the largest magnitude.

    Returns
    -------
    float
        NaN if an element is NaN, inf if one is infinite.

    Raises
    ------
    TypeError, ValueError
        Not a dict of arrays of one dtype, or p not above 0 (torch takes 0 and below, which are no norms).

    Notes
    -----
    As `torch.nn.utils.get_total_norm`, but computed in float64 and scaled where powers leave its range, so
    that none overflows; torch gives inf for float32 gradients whose squares do, from about 1.8e19 on.
    """
    p = _check_bound("norm_type", norm_type)
    if p == 0.0:
        raise ValueError("norm_type: expected a number above 0; got 0")
    arrays = check_arrays("gradients", gradients, in_place=False)
    with np.errstate(all="ignore"):
        return _norm(np.array([_norm(g, p) for g in arrays.values()]), p)


def clip_grad_norm_(
    gradients: Mapping[str, FloatArray],
    max_norm: float,
    *,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients in place by one factor, so that their common norm is at most `max_norm`.

    Parameters
    ----------
    gradients : dict of str to ndarray
        Scaled in place by min(1, max_norm / (norm + 1e-6)); one dtype, writable, no two sharing memory.
    max_norm : float
        At least 0; `math.inf` only measures.
    norm_type : float
        The p of the p-norm, above 0; `math.inf` for the largest magnitude.
    error_if_nonfinite : bool
        Raise if the norm is NaN or inf. Otherwise, as in torch, a NaN norm makes every gradient NaN and an
        infinite one makes finite elements 0 and infinite ones NaN.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    TypeError, ValueError
        An argument is not as above, or the norm is not finite and `error_if_nonfinite` (torch:
        RuntimeError). The gradients are then unchanged.

    Notes
    -----
    As `torch.nn.utils.clip_grad_norm_`, which returns a 0-d tensor and reads the gradients from the
    parameters. The norm is that of `global_norm`; only where torch's overflows to inf does the result
    differ by more than rounding.

    References
    ----------
    Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (2013), algorithm 1.

    Examples
    --------
    >>> gradients = {"w": np.array([3.0, 0.0]), "b": np.array([4.0])}
    >>> clip_grad_norm_(gradients, 1.0)
    5.0
    >>> print(gradients["w"].round(4).tolist(), gradients["b"].round(4).tolist())
    [0.6, 0.0] [0.8]
    """
    limit = _check_bound("max_norm", max_norm)
    check_bool("error_if_nonfinite", error_if_nonfinite)
    arrays = check_arrays("gradients", gradients, in_place=True)
    total = global_norm(arrays, norm_type=norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        names = [name for name, g in arrays.items() if not np.isfinite(g).all()]
        where = f"elements of {names} are not finite" if names else "all elements are finite"
        raise ValueError(f"gradients: expected a finite norm; got {total} ({where})")
    factor = limit / (total + 1e-6)
    if not factor >= 1.0:  # also where it is NaN
        with np.errstate(all="ignore"):
            for g in arrays.values():
                np.multiply(g, factor, out=g)
    return total


def clip_grad_value_(gradients: Mapping[str, FloatArray], clip_value: float) -> None:
    """Clip every element of the gradients in place to [-clip_value, clip_value].

    Parameters
    ----------
    gradients : dict of str to ndarray
        One dtype, writable, no two sharing memory. NaN stays NaN.
    clip_value : float
        At least 0 (torch takes negative values, which set every element to one number); may be `math.inf`.

    Raises
    ------
    TypeError, ValueError
        An argument is not as above. The gradients are then unchanged.

    Notes
    -----
    As `torch.nn.utils.clip_grad_value_`.

    Examples
    --------
    >>> gradients = {"w": np.array([3.0, -0.5])}
    >>> clip_grad_value_(gradients, 1.0)
    >>> print(gradients["w"].tolist())
    [1.0, -0.5]
    """
    bound = _check_bound("clip_value", clip_value)
    for g in check_arrays("gradients", gradients, in_place=True).values():
        np.clip(g, -bound, bound, out=g)


def _norm(values: FloatArray, p: float) -> float:
    """p-norm of one array of any shape, in float64."""
    if p != math.inf:
        powers = np.square(values, dtype=np.float64) if p == 2.0 else np.abs(values, dtype=np.float64) ** p
        total = float(np.sum(powers))
        if _SMALLEST_SUM < total < math.inf:
            return float(total ** (1.0 / p))
    magnitudes = np.abs(values, dtype=np.float64)
    largest = float(np.max(magnitudes, initial=0.0))
    if p == math.inf or largest == 0.0 or not math.isfinite(largest):
        return largest
    return float(largest * np.sum((magnitudes / largest) ** p) ** (1.0 / p))


def _check_bound(name: str, value: Any) -> float:
    """Return `value` as a float of at least 0, infinity included."""
    return math.inf if isinstance(value, Real) and value == math.inf else check_real(name, value, least=0.0)
