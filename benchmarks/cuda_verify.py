"""Results against the float64 truth, on the device: what verify.py does, without moving gigabytes to the host.

The truth is verify.py's own equations. Two ratios of each result, as `scratchrnn.testing.difference` defines them: the
largest error over the largest element, and the root mean squares; the larger of the two counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cases import Case
from verify import WrongResultError, expected

Tensor = Any  # of torch


def distance(got: Tensor, want: Tensor) -> float:
    """`scratchrnn.testing.difference(got, want).ratio`."""
    got, want = got.double(), want.double()
    error, scale = (got - want).abs(), want.abs().max().item()
    if not math.isfinite(error.sum().item()):
        return math.inf
    largest = error.max().item()
    if scale == 0.0:
        return 0.0 if largest == 0.0 else math.inf
    mean_squares = (error / scale).square().mean().item(), (want / scale).square().mean().item()
    return max(math.sqrt(mean_squares[0] / mean_squares[1]), largest / scale)


def check(case: Case, results: Mapping[str, Tensor], true: Mapping[str, Tensor], tolerance: float) -> dict[str, float]:
    """Distance of each result from the truth.

    Raises
    ------
    WrongResultError
        A result is missing, of the wrong shape or dtype, or further from the truth than `tolerance`.
    """
    missing = expected(case) - set(results)
    if missing:
        raise WrongResultError(f"{case}: missing {', '.join(sorted(missing))}")
    errors = {}
    for name, got in results.items():
        if str(got.dtype) != f"torch.{case.dtype}":
            raise WrongResultError(f"{case}: {name}: expected dtype {case.dtype}; got {got.dtype}")
        if got.shape != true[name].shape:
            raise WrongResultError(f"{case}: {name}: expected shape {tuple(true[name].shape)}; got {tuple(got.shape)}")
        errors[name] = distance(got, true[name])
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        worst = max(wrong, key=lambda name: wrong[name])
        raise WrongResultError(
            f"{case}: {worst}: off by {wrong[worst]:.3g} of the largest or usual element; {tolerance:.3g} allowed"
        )
    return errors
