"""Calls of kernels as data: each part made once, by whoever comes; what cannot be entered so, Python calls."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest

from scratchrnn.interop import torch as interop
from scratchrnn.kernels.cpu import native, openmp, plan
from scratchrnn.kernels.cpu.jit import do
from tests.test_kernels_cpu_openmp import ALARM, four, needs_openmp, program, team

torch = pytest.importorskip("torch")

__all__ = ["four", "team"]  # fixtures

CODE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))
SIZE = ctypes.CFUNCTYPE(ctypes.c_int32)


def make(job: native.Job) -> None:
    """Come for one part."""
    native.enter()(job.address)


def address(function: Any) -> int:
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found


@numba.njit(nogil=True)
def fill(array, count, number, there, mask):
    for n in range(count):
        if there and mask[n]:
            array[n] = number


def filled(dtype: Any) -> tuple[Any, tuple[Any, ...]]:
    array = np.zeros(7, dtype)
    arguments = array, np.int64(5), 2.5, True, np.arange(7) != 3
    fill(*arguments)
    array[:] = 0
    return array, arguments


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kernel_gets_its_arguments(dtype: Any) -> None:
    array, arguments = filled(dtype)
    parts = native.parts_of(fill, [arguments])
    assert parts is not None
    make(native.Job(parts))
    assert array.tolist() == [2.5, 2.5, 2.5, 0, 2.5, 0, 0]
    array[:] = 0
    other = native.parts_of(do, [((fill, (array, np.int64(7), -math.inf, False, arguments[4])),)])
    assert other is not None
    make(native.Job(other))
    assert not array.any()


def frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change",
    [
        lambda a: (a[0][::2], *a[1:]),
        lambda a: (a[0].reshape(1, 7), *a[1:]),
        lambda a: (a[0].astype(">f4"), *a[1:]),
        lambda a: (frozen(a[0]), *a[1:]),
        lambda a: (a[0], np.int32(5), *a[2:]),
        lambda a: (*a[:2], 2, *a[3:]),
        lambda a: (*a[:2], np.float32(2), *a[3:]),
        lambda a: (*a[:4], a[4].astype(np.int64)),
    ],
)
def test_other_arguments_are_left_to_python(change: Callable[[Any], Any]) -> None:
    """What the kernel is not compiled for, before and after a call that it is compiled for."""
    _, arguments = filled(np.float32)
    other = change((arguments[0].copy(), *arguments[1:]))
    assert native.parts_of(fill, [other]) is None
    assert native.parts_of(fill, [arguments]) is not None
    assert native.parts_of(fill, [other]) is None


def test_another_calling_convention_is_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    _, arguments = filled(np.float32)
    monkeypatch.setattr(native, "_codes", {})
    monkeypatch.setattr(native, "ARRAY", "piippii")
    assert native.parts_of(fill, [arguments]) is None
    monkeypatch.setattr(native, "numba", None)  # nothing has the name that it had
    assert native.parts_of(fill, [arguments]) is None


def test_each_part_is_made_once_and_in_its_order() -> None:
    seen: list[int] = []

    @CODE
    def code(arguments: Any) -> int:
        seen.append(arguments[0])
        return 0

    where = address(code)
    job = native.Job([[(where, [1]), (where, [2])], [], [(where, [3])]])
    assert job.begun() == 0
    for expected in ([1, 2], [1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3]):
        make(job)
        assert seen == expected
    assert job.begun() == 3
    job.check()


def test_a_kernel_that_fails_is_told() -> None:
    seen: list[int] = []

    @CODE
    def code(arguments: Any) -> int:
        seen.append(arguments[0])
        return 1

    job = native.Job([[(address(code), [0])] * 3])
    make(job)
    assert seen == [0]  # nothing more of that part
    with pytest.raises(RuntimeError, match="a compiled kernel failed"):
        job.check()


@pytest.mark.parametrize(("there", "begun"), [(1, 0), (2, 1), (3, 1)])
def test_nobody_begins_in_too_small_a_team(there: int, begun: int) -> None:
    @CODE
    def code(_: Any) -> int:
        return 0

    @SIZE
    def size() -> int:
        return there

    job = native.Job([[(address(code), [0])]] * 2, 2, address(size))
    make(job)
    assert job.begun() == begun


@needs_openmp
def test_calls_of_a_team(team: openmp.Team) -> None:
    arrays = [filled(np.float32) for _ in range(4)]
    calls = [((fill, arguments),) for _, arguments in arrays]
    team.run(do, calls)
    assert all(array.sum() == 10 for array, _ in arrays)
    team.run(fill, [arguments for _, arguments in arrays])
    torch.set_num_threads(2)
    for array, _ in arrays:
        array[:] = 0
    assert not team.run_together(do, calls, lambda: None)
    assert not any(array.any() for array, _ in arrays)
    team.run(do, calls)  # two threads, four parts
    assert all(array.sum() == 10 for array, _ in arrays)
    torch.set_num_threads(4)
    assert team.run_together(do, calls, lambda: None)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each region's calls could be handed over as data."""
    seen: list[bool] = []
    parts_of = native.parts_of

    def noted(task: Any, calls: Any) -> Any:
        parts = parts_of(task, calls)
        seen.append(parts is not None)
        return parts

    monkeypatch.setattr(native, "parts_of", noted)
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    monkeypatch.setattr(plan, "LEAST_STEP", 1)
    return seen


@needs_openmp
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [2, 16])
@pytest.mark.parametrize(
    "options", [("LSTM", {}), ("LSTM", {"proj_size": 8}), ("RNN", {}), ("RNN", {"nonlinearity": "relu"})]
)
def test_every_kernel_of_a_module_is_entered(dtype: str, batch: int, options: Any, counted: list[bool]) -> None:
    kind, more = options
    module = getattr(interop, kind)(6, 40, dtype=getattr(torch, dtype), **more)
    found = []
    for n in (1, 4):
        torch.set_num_threads(n)
        torch.manual_seed(0)
        x = torch.randn(9, batch, 6, dtype=getattr(torch, dtype), requires_grad=True)
        weights = list(module.parameters())
        first = torch.autograd.grad(module(x)[0].square().sum(), [x, *weights], create_graph=True)
        second = torch.autograd.grad(sum((d * d).sum() for d in first), [x, *weights])
        with torch.no_grad():
            output = module(x)[0]
        found.append(b"".join(t.detach().numpy().tobytes() for t in (output, *first, *second)))
    assert found[0] == found[1]
    assert counted
    assert all(counted)


@needs_openmp
def test_python_calls_what_cannot_be_entered(counted: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = interop.LSTM(6, 40), torch.randn(9, 16, 6)
    want = module(x)[0]
    monkeypatch.setattr(native, "_codes", {})
    monkeypatch.setattr(native, "ARRAY", "?")
    assert torch.equal(module(x)[0], want)
    assert counted.count(False) == counted.count(True) > 0


@needs_openmp
def test_interrupts_of_a_module() -> None:
    """A signal's error comes out of the call that it met, at any moment of it; later calls compute the same bits."""
    text = """
torch.set_grad_enabled(False)
for n in range(300):
    x = inputs[n % 2]
    try:
        signal.setitimer(signal.ITIMER_REAL, 10 ** random.uniform(-5, -2))
        few(x)
        signal.setitimer(signal.ITIMER_REAL, 0)
        whole += 1
    except Alarm:
        rung += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
torch.set_grad_enabled(True)
seen = [u for u in unseen if "__del__" not in repr(u.object)]  # in a destructor nothing is lost
print(rung > 20, whole > 20, everything() == want, seen)
"""
    assert program(ALARM + text) == "True True True []\n"
