"""Shared by all tests: random numbers fixed per test, memory that nobody wrote is NaN, few threads."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

# before NumPy starts its threads: test processes run side by side, and a sum must not depend on the machine
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import numba
import numpy as np
import pytest
from numba.extending import overload

from scratchrnn import backends
from scratchrnn.kernels import memory

# no database: what a run tries depends on the code alone
hypothesis.settings.register_profile("scratchrnn", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("scratchrnn")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of the test's own: the same numbers in any order, alone or in parallel."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


_empty, _empty_like = np.empty, np.empty_like
# Numba registers NumPy's functions by identity, at its first compilation: it must see the real ones
numba.njit(lambda: _empty_like(_empty(1)))()


def _poisoned(allocate: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(allocate)
    def allocate_nan(*args: Any, **kwargs: Any) -> Any:
        out = allocate(*args, **kwargs)
        if isinstance(out, np.ndarray) and out.dtype.kind == "f":
            out.fill(np.nan)
        return out

    return allocate_nan


_nan, _nan_like = _poisoned(_empty), _poisoned(_empty_like)


# compiled code keeps the real ones; Numba compares the two signatures, annotations included
@overload(_nan)
def _(shape, dtype=float):
    if dtype is float:
        return lambda shape, dtype=float: _empty(shape)
    return lambda shape, dtype=float: _empty(shape, dtype)


@overload(_nan_like)
def _(prototype, dtype=None):
    return lambda prototype, dtype=None: _empty_like(prototype, dtype)


@pytest.fixture(params=backends.available())
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every backend that can run here."""
    with backends.use_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def nan_in_unwritten_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill what np.empty and np.empty_like return with NaN: an element that nobody writes shows at once."""
    monkeypatch.setattr(np, "empty", _nan)
    monkeypatch.setattr(np, "empty_like", _nan_like)
    with memory.poisoned():
        yield
