"""Threads that share hidden units and meet after every step: the bits of one thread, whatever is asked of them."""

from __future__ import annotations

import faulthandler
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.kernels import memory
from scratchrnn.kernels.cpu import affine, lstm, lstm_loops, plan, rnn, rnn_loops, threads
from scratchrnn.kernels.cpu.gemm import ROWS
from scratchrnn.kernels.cpu.jit import Kernel
from scratchrnn.kernels.cpu.machine import UNIT

CELLS = ["tanh", "relu", "lstm"]
COUNTS = (2, 3, 4, 7)
T, B, I, H = 29, 5, 13, 7 * 16 + 5  # units of float32 for seven threads with the widest vectors, and some left over
P = 11
STUCK = 300  # seconds, compiling included
LENGTHS = (17, 0, 29, 1, 24)
Arrays = dict[str, np.ndarray]
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
clips = pytest.mark.parametrize("clip", [math.inf, 0.03], ids=["no clip", "clip"])


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = srnn.get_num_threads()
    faulthandler.dump_traceback_later(STUCK, exit=True, file=sys.__stderr__)  # nothing else ends a deadlock
    yield
    faulthandler.cancel_dump_traceback_later()
    srnn.set_num_threads(before)


class Together:
    """Stands in for threads.run_together: how many parts each call had, and whether they ran."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []
        self._run = threads.run_together

    def __call__(self, task: Callable[..., Any], calls: Sequence[Any], call_off: Callable[[], None]) -> bool:
        done = self._run(task, calls, call_off)
        self.calls.append((len(calls), done))
        return done


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Together:
    """Share units wherever there are two vectors of them, with chunks of time that a short sequence crosses."""
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    monkeypatch.setattr(plan, "LEAST_STEP", 1)
    monkeypatch.setattr(plan, "FEW_SAMPLES", 1000)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 1)
    assert 1 < plan.steps_per_chunk(T, B, H, 0) < T / 2
    made = Together()
    monkeypatch.setattr(threads, "run_together", made)
    return made


class Problem:
    """One layer's arrays, and everything that kernels make of them, by name."""

    def __init__(
        self, cell: str, dtype: Any, rng: np.random.Generator, lengths: Sequence[int] | None = None,
        sizes: tuple[int, int, int, int] = (T, B, I, H), projection: int = 0, clip: float = math.inf,
        detach_h: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.cell, self.dtype, self.clip, self.detach_h = cell, dtype, clip, detach_h
        self.steps, self.batch, self.inputs, self.hidden = sizes
        self.lengths = np.full(self.batch, self.steps) if lengths is None else np.array(lengths)
        self.lstm, size = cell == "lstm", projection or self.hidden
        rows = 4 * self.hidden if self.lstm else self.hidden

        def normal(*shape: int) -> np.ndarray:
            return (rng.standard_normal(shape) / 3).astype(dtype)

        self.x = normal(self.steps, self.batch, self.inputs)
        self.x[np.arange(self.steps)[:, None] >= self.lengths] = 0
        # recurrent weights that do not make a chaos, where roundings would grow
        self.w = [normal(rows, self.inputs), normal(rows, size) / dtype(size) ** 0.5, normal(rows), normal(rows)]
        self.w_hr = normal(size, self.hidden) if projection else None
        self.start = [normal(self.batch, size)] + ([normal(self.batch, self.hidden)] if self.lstm else [])
        self.outside = [normal(self.steps + 1, *s.shape) for s in self.start]
        for array in self.outside:
            array[np.arange(self.steps + 1)[:, None] > self.lengths] = 0

    def everything(self, backend: str = "numba") -> Arrays:
        kernels: Any = backends.load(backend)
        module = kernels.lstm if self.lstm else kernels.rnn
        last: Any = self.w_hr if self.lstm else self.cell
        x, w, dtype = self.x, self.w, self.dtype
        output = np.empty((self.steps, *self.start[0].shape), dtype)
        ends = [np.empty_like(s) for s in self.start]
        module.infer(x, *self.start, *w, last, self.lengths, output, *ends)
        states = [np.empty((self.steps + 1, *s.shape), dtype) for s in self.start]
        for array, s in zip(states, self.start, strict=True):
            array[0] = s
        a, da = (np.empty((self.steps, self.batch, len(w[0])), dtype) for _ in range(2))
        gates, again = ([np.empty_like(a)] if self.lstm else [] for _ in range(2))
        module.forward(x, *w, last, self.lengths, *states, *gates)
        bare = [s.copy() for s in states]
        for array in bare:
            array[1:] = np.nan
        module.forward(x, *w, last, self.lengths, *bare, *(None for _ in gates))
        module.preactivations(x, *w, self.lengths, states[0], a)
        if self.lstm:
            module.activate(a, self.lengths, *again)
        d_states, dx = [array.copy() for array in self.outside], np.empty_like(x)
        dw = [np.zeros_like(v) for v in w]
        d_last = ([None if self.w_hr is None else np.zeros_like(self.w_hr)]) if self.lstm else []
        how = (self.clip, self.detach_h) if self.lstm else (self.clip,)
        module.backward(x, *w[:2], last, self.lengths, *states, *gates, *how, *d_states, da, dx, *dw, *d_last)
        found = {"output": output, "a": a, "da": da, "dx": dx}
        for names, arrays in (
            (("h_n", "c_n"), ends), (("h", "c"), states), (("h without gates", "c without gates"), bare),
            (("gates",), gates), (("gates again",), again), (("dh", "dc"), d_states),
            (("dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh"), dw), (("dweight_hr",), d_last),
        ):  # fmt: skip
            found |= {name: array for name, array in zip(names, arrays, strict=False) if array is not None}
        return found


def assert_same(got: Arrays, want: Arrays, when: str) -> None:
    assert got.keys() == want.keys()
    wrong = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert not wrong, f"{when}: other bits in {', '.join(wrong)}"
    assert all(np.isfinite(array).all() for array in want.values())


def parts(hidden: int, dtype: Any, count: int) -> int:
    return min(count, -(-hidden // UNIT.lanes(np.dtype(dtype).itemsize)))


# --- the same bits


@dtypes
@clips
@pytest.mark.parametrize("lengths", [None, LENGTHS, (0, 0, 0, 0, 0)], ids=["whole", "lengths", "nothing"])
@pytest.mark.parametrize("cell", CELLS)
def test_bits_of_one_thread(
    cell: str, lengths: Any, clip: float, dtype: Any, rng: np.random.Generator, together: Together
) -> None:
    p = Problem(cell, dtype, rng, lengths, clip=clip)
    srnn.set_num_threads(1)
    want = p.everything()
    clamped = np.abs(want["da"][np.arange(T)[:, None] < p.lengths]) == dtype(clip)
    assert clip == math.inf or not clamped.size or clamped.mean() > 0.2
    assert together.calls == [], "one thread has nobody to meet"
    for count in COUNTS:
        together.calls.clear()
        srnn.set_num_threads(count)
        assert_same(p.everything(), want, f"{count} threads")
        assert together.calls == [(parts(H, dtype, count), True)] * 4, "infer, forward twice, backward"


@dtypes
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_detached_h(lengths: Any, dtype: Any, rng: np.random.Generator, together: Together) -> None:
    for mask in (rng.random((T, B)) < 0.4, np.zeros((T, B), bool), np.ones((T, B), bool)):
        p = Problem("lstm", dtype, rng, lengths, detach_h=mask)
        srnn.set_num_threads(1)
        want = p.everything()
        for count in COUNTS:
            srnn.set_num_threads(count)
            assert_same(p.everything(), want, f"{count} threads")
        truth = Problem.everything(wide(p), "numpy")
        for name, value in truth.items():
            off = float(np.abs(want[name] - value).max()) / max(1.0, float(np.abs(value).max()))
            assert off < 2000 * np.finfo(dtype).eps, f"{name}: {off:.3g}"
        p.detach_h = None
        plain = p.everything()
        assert (plain["dh"].tobytes() == want["dh"].tobytes()) == (not mask.any())
        p.detach_h = np.asfortranarray(mask)
        p.detach_h.setflags(write=False)
        assert_same(p.everything(), want, "a read-only mask in another order")


@dtypes
@clips
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("cell", CELLS)
def test_values_are_those_of_the_definition(
    cell: str, lengths: Any, clip: float, dtype: Any, rng: np.random.Generator, together: Together
) -> None:
    p = Problem(cell, dtype, rng, lengths, clip=clip)
    srnn.set_num_threads(3)
    got, want = p.everything(), Problem.everything(wide(p), "numpy")
    assert together.calls == [(3, True)] * 4
    for name, value in want.items():
        scale = max(1.0, float(np.abs(value).max()))
        off = float(np.abs(got[name] - value).max()) / scale
        assert off < 2000 * np.finfo(dtype).eps, f"{name}: {off:.3g}"
    assert got["output"].tobytes() == got["h"][1:].tobytes()
    assert got["gates again"].tobytes() == got["gates"].tobytes() if p.lstm else "gates" not in got


def wide(p: Problem) -> Problem:
    """The same problem in float64."""
    other = object.__new__(Problem)
    vars(other).update(vars(p), dtype=np.float64, x=p.x.astype(np.float64))
    for name in ("w", "start", "outside"):
        setattr(other, name, [array.astype(np.float64) for array in getattr(p, name)])
    return other


@dtypes
@pytest.mark.parametrize("cell", CELLS)
def test_odd_sizes(cell: str, dtype: Any, rng: np.random.Generator, together: Together) -> None:
    lanes = UNIT.lanes(np.dtype(dtype).itemsize)
    several = 0
    for steps, batch, inputs, hidden in (
        (1, 1, 1, lanes + 1), (2, 1, 3, 2 * lanes), (40, 2, 1, 3 * lanes - 1), (3, ROWS + 1, 5, 4 * lanes + 1),
        (5, 2 * ROWS, 150, 5 * lanes + 3), (4, 1, 7, 9), (2, 130, 2, 2 * lanes + 1),
    ):  # fmt: skip
        for lengths in (None, rng.integers(0, steps + 1, batch)):
            p = Problem(cell, dtype, rng, lengths, (steps, batch, inputs, hidden))
            srnn.set_num_threads(1)
            want = p.everything()
            for count in (2, 3, 7):
                together.calls.clear()
                srnn.set_num_threads(count)
                assert_same(p.everything(), want, f"{count} threads, sizes {steps, batch, inputs, hidden}")
                shared = parts(hidden, dtype, count)
                assert together.calls == ([(shared, True)] * 4 if shared > 1 else [])
                several += shared > 1
    assert several > 12


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_projection_is_shared_by_samples_only(lengths: Any, rng: np.random.Generator, together: Together) -> None:
    p = Problem("lstm", np.float32, rng, lengths, projection=P)
    srnn.set_num_threads(1)
    want = p.everything()
    for count in COUNTS:
        srnn.set_num_threads(count)
        assert_same(p.everything(), want, f"{count} threads")
    assert together.calls == []


@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_change_from_run_to_run(cell: str, rng: np.random.Generator, together: Together) -> None:
    p = Problem(cell, np.float32, rng, LENGTHS)
    srnn.set_num_threads(4)
    want = p.everything()
    for run in range(10):
        assert_same(p.everything(), want, f"run {run}")
    assert set(together.calls) == {(4, True)}


@dtypes
@pytest.mark.parametrize("cell", [*CELLS, "projected"])
@pytest.mark.parametrize("kind", ["one unit left", "read-only"])
def test_types_depend_on_the_dtype_alone(
    kind: str, cell: str, dtype: Any, rng: np.random.Generator, together: Together
) -> None:
    """Else a call compiles in the middle of a program, whatever was compiled ahead."""
    hidden = UNIT.lanes(np.dtype(dtype).itemsize) + 1
    p = Problem("lstm" if p_size(cell) else cell, dtype, rng, LENGTHS, (T, B, I, hidden), p_size(cell))
    if kind == "read-only":
        for array in (p.x, *p.w, *p.start, *([] if p.w_hr is None else [p.w_hr])):
            array.setflags(write=False)
    for count in (1, 2):
        srnn.set_num_threads(count)
        p.everything()
    assert len(together.calls) == (0 if cell == "projected" else 4)
    modules = (affine, lstm_loops, rnn_loops)
    kernels = [k for module in modules for k in vars(module).values() if isinstance(k, Kernel) and k._dtypes]
    assert len(kernels) > 3
    for kernel in kernels:
        assert len(kernel.dispatcher().signatures) == len(kernel._dtypes), kernel.__name__


def p_size(cell: str) -> int:
    return P if cell == "projected" else 0


def test_who_shares_units() -> None:
    """Few samples and long steps only, as many threads as have whole vectors of units."""
    step = plan.LEAST_STEP
    for busy, lanes in itertools.product((2, 3, 8), (8, 16)):
        few, hidden = plan.FEW_SAMPLES * busy - 1, 10 * lanes + 3
        found = plan.ranges_of_units(few, hidden, busy, step * busy, lanes)
        assert len(found) == busy
        assert [unit for p in found for unit in range(p.unit, p.unit + p.units)] == list(range(hidden))
        assert all((p.first, p.last, p.unit % lanes) == (0, few, 0) for p in found)
        assert plan.ranges_of_units(few + 1, hidden, busy, step * busy, lanes) == []
        assert plan.ranges_of_units(few, hidden, busy, step * busy - 1, lanes) == []
        assert plan.ranges_of_units(few, lanes, busy, step * busy, lanes) == []
    assert plan.ranges_of_units(1, 1000, 1, step, 16) == []


# --- workspace


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cell", [*CELLS, "projected"])
def test_nothing_is_read_before_it_is_written(
    cell: str, count: int, lengths: Any, rng: np.random.Generator, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and workspace hold nan, zeros or a large number at first: the results are the same."""
    p = Problem("lstm" if p_size(cell) else cell, np.float32, rng, lengths, projection=p_size(cell))
    srnn.set_num_threads(count)
    zeros, filled, found = np.zeros, [0], []
    for value in (np.nan, 0.0, 1e30):

        def empty(shape: Any, dtype: Any = float, value: float = value) -> np.ndarray:
            array = zeros(shape, dtype)
            filled[0] += 1
            array.fill(value)
            return array

        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", empty)
            patch.setattr(memory, "empty", empty)
            patch.setattr(np, "empty_like", lambda array: empty(array.shape, array.dtype))
            found.append(p.everything())
    assert filled[0] > 60, "the kernels' own workspace"
    assert_same(found[1], found[0], "zeros")
    assert_same(found[2], found[0], "large numbers")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_state_that_is_not_read_may_be_infinite(
    cell: str, count: int, rng: np.random.Generator, together: Together
) -> None:
    """0 · inf is nan: beyond a sequence's end nothing may be multiplied, not even by zero."""
    p = Problem(cell, np.float32, rng, LENGTHS)
    srnn.set_num_threads(count)
    p.start[0][1] = np.inf  # of the sample that does no step
    found = p.everything()
    for name, array in found.items():
        if name in ("h", "h without gates"):
            assert np.isinf(array[0, 1]).all()
            array = np.delete(array, 1, axis=1)
        elif name == "h_n":
            assert np.isinf(array[1]).all()
            array = np.delete(array, 1, axis=0)
        assert np.isfinite(array).all(), name


# --- neither a thread too few nor a second caller changes anything


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reason", ["a pool too small", "somebody else's turn", "the interpreter ends"])
def test_who_cannot_meet_shares_samples(
    cell: str, reason: str, lengths: Any, rng: np.random.Generator, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = Problem(cell, np.float32, rng, lengths)
    srnn.set_num_threads(4)
    want = p.everything()
    assert set(together.calls) == {(4, True)}
    together.calls.clear()
    by_samples: list[int] = []
    run = threads.run

    def noted(task: Any, calls: Sequence[Any]) -> None:
        by_samples.append(len(calls))
        run(task, calls)

    monkeypatch.setattr(threads, "run", noted)
    if reason == "a pool too small":
        for module in (rnn, lstm):
            monkeypatch.setattr(module, "workers", lambda work: 4)  # as if the number fell since
        srnn.set_num_threads(2)
        assert_same(p.everything(), want, reason)
    elif reason == "somebody else's turn":
        monkeypatch.setattr(threads, "_turn", "somebody's")
        assert_same(p.everything(), want, reason)
        monkeypatch.setattr(threads, "_turn", None)
    else:
        monkeypatch.setattr(sys, "is_finalizing", lambda: True)
        assert_same(p.everything(), want, reason)
    assert together.calls == [(4, False)] * 4
    assert by_samples.count(4) >= 4
    assert threads._turn is None, "the turn was not given back"


def test_signs_of_zeros_are_those_of_one_thread(rng: np.random.Generator) -> None:
    """A gradient that vanishes underflows, to -0 as well: a column does so alike inside a panel and at its edge."""
    steps, size = 300, 120
    layer = srnn.RNN(size, size, rng=rng)
    x = rng.standard_normal((steps, 2, size), dtype=np.float32)
    d_output = np.full((steps, 2, size), -0.0, np.float32)
    d_output[-1] = rng.standard_normal((2, size), dtype=np.float32)
    found = []
    for count in (1, 3):
        srnn.set_num_threads(count)
        grads = layer.backward(layer.forward(x), d_output)
        found.append((grads.h.tobytes(), grads.a.tobytes(), np.asarray(grads.input).tobytes()))
    assert found[0] == found[1]
