"""What the optimizers and the clipping share: the check of a dict of arrays, and torch's compound operations.

Each operation rounds in the order in which torch's CPU kernel does. Where torch's vectorised kernel fuses a
multiplication with the following addition (FMA), it rounds once less than the two steps here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, describe


def check_arrays(argument: str, arrays: Any, *, in_place: bool) -> dict[str, FloatArray]:
    """Return a new dict of the arrays: of one dtype; if changed in place, writable and without overlap."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{argument}: expected a dict of names and arrays; got {describe(arrays)}")
    first = next(iter(arrays), None)
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument}: expected names as str; got {describe(name)}")
        check_array(f"{argument}[{name!r}]", array)
        if array.dtype != arrays[first].dtype:
            raise TypeError(
                f"{argument}: expected one dtype; got {arrays[first].dtype.name} for {first!r} "
                f"and {array.dtype.name} for {name!r}"
            )
        if in_place:
            check_writable(f"{argument}[{name!r}]", array)
    if in_place:
        for (name, array), (other_name, other) in combinations(arrays.items(), 2):
            # the bounds first: the exact answer is slow, and only interleaved views need it
            if np.may_share_memory(array, other) and np.shares_memory(array, other):
                raise ValueError(
                    f"{argument}: expected arrays of their own; {name!r} and {other_name!r} share memory "
                    f"and would be changed twice (pass a tied array once, its gradients summed)"
                )
    return dict(arrays)


def check_writable(name: str, array: FloatArray) -> None:
    """Raise unless `array` can be changed in place."""
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, as it is changed in place; got a read-only one")


def add_(target: FloatArray, x: FloatArray, alpha: float, scratch: FloatArray) -> None:
    """target += alpha * x. `scratch` is overwritten and may be `x`."""
    np.multiply(x, alpha, out=scratch)
    np.add(target, scratch, out=target)


def addcmul_(target: FloatArray, x: FloatArray, y: FloatArray, value: float, scratch: FloatArray) -> None:
    """target += (value * x) * y. `scratch` is overwritten."""
    np.multiply(x, value, out=scratch)
    np.multiply(scratch, y, out=scratch)
    np.add(target, scratch, out=target)


def addcdiv_(target: FloatArray, x: FloatArray, y: FloatArray, value: float, scratch: FloatArray) -> None:
    """target += (value * x) / y. `scratch` is overwritten and may be `x`."""
    np.multiply(x, value, out=scratch)
    np.divide(scratch, y, out=scratch)
    np.add(target, scratch, out=target)


def lerp_(target: FloatArray, end: FloatArray, weight: float, scratch: FloatArray) -> None:
    """target += weight * (end - target), from the nearer end as in torch. `scratch` is overwritten."""
    w = target.dtype.type(weight)
    np.subtract(end, target, out=scratch)
    if abs(w) < 0.5:
        np.multiply(scratch, w, out=scratch)
        np.add(target, scratch, out=target)
    else:
        np.multiply(scratch, target.dtype.type(1) - w, out=scratch)
        np.subtract(end, scratch, out=target)
