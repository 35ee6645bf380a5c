"""What models made of several layers share: names by part, and codes at their edge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_indices


def by_parts(parts: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Arrays of each part under "part.name", in order; the arrays themselves, not copies."""
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def check_codes(name: str, value: Any, count: int) -> IntArray:
    """Return `value` if it is an array (time, batch) of integers, each in 0..count-1."""
    codes = check_indices(name, value, count)
    if codes.ndim != 2:
        raise ValueError(f"{name}: expected shape (time, batch); got {codes.shape}")
    if codes.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one time step; got shape {codes.shape}")
    return codes
