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
from scratchrnn.kernels import blocks, memory

# modules of a child process, which load the stub driver on import: no place to look for doctests
collect_ignore_glob = ["cuda/driver/*.py"]

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


# the tests of every backend, on an emulated CUDA device in place of this machine's backends
EMULATE_CUDA = os.environ.get("SCRATCHRNN_TESTS_EMULATE_CUDA") == "1"


def _marked(backend: str) -> Any:
    """A backend as a parameter: tests on one that needs a GPU run with -m gpu."""
    on_gpu = "cuda" in backends.REGISTRY[backend].devices
    return pytest.param(backend, marks=pytest.mark.gpu) if on_gpu else backend


@pytest.fixture(scope="session", autouse=True)
def emulated_cuda(request: pytest.FixtureRequest) -> Iterator[None]:
    """With SCRATCHRNN_TESTS_EMULATE_CUDA=1: the backend "cuda" runs, its kernels as compiled, on the CPU."""
    if not EMULATE_CUDA:
        yield
        return
    from tests.cuda.emulator import kept
    from tests.cuda.emulator.device import emulated_device

    # tests/cuda looks for races; here that would double the time
    device = emulated_device(sms=2, races=False, global_races=False)
    with kept.kept_in(request.config.cache.mkdir("emulator")), device, pytest.MonkeyPatch.context() as patch:
        _make_blocks_small(patch)  # a launch takes a millisecond here: let sequences of several blocks be short
        yield


def pytest_configure() -> None:
    """Say at once why there can be no emulated device."""
    if EMULATE_CUDA:
        from tests.cuda.layers import WHY_NOT

        if WHY_NOT is not None:
            raise pytest.UsageError(f"SCRATCHRNN_TESTS_EMULATE_CUDA=1: {WHY_NOT}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On an emulated device there is nothing for tests that ask for no backend."""
    if EMULATE_CUDA:
        parts: dict[bool, list[pytest.Item]] = {True: [], False: []}
        for item in items:
            parts["each_backend" in getattr(item, "fixturenames", ())].append(item)
        items[:] = parts[True]
        config.hook.pytest_deselected(items=parts[False])


@pytest.fixture
def host_memory() -> None:
    """For tests that measure memory: that of the device is elsewhere, except of an emulated one."""
    if EMULATE_CUDA:
        pytest.skip("the emulated device's memory is the host's")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of sums over time as small on a GPU as on the CPU, so that short sequences have several."""
    _make_blocks_small(monkeypatch)


def _make_blocks_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(blocks, "SUM_ROWS_CUDA", blocks.SUM_ROWS)


@pytest.fixture(params=["cuda"] if EMULATE_CUDA else [_marked(name) for name in backends.available()])
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every backend that can run here."""
    with backends.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[name for name in backends.available() if backends.REGISTRY[name].has_tangents])
def each_backend_with_tangents(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every backend that can run here and has what second derivatives need."""
    with backends.use_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def nan_in_unwritten_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill what np.empty and np.empty_like return with NaN: an element that nobody writes shows at once."""
    monkeypatch.setattr(np, "empty", _nan)
    monkeypatch.setattr(np, "empty_like", _nan_like)
    with memory.poisoned():
        yield
