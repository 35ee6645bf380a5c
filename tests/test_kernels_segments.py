"""Kernels on pieces of a sequence: cut between two blocks, everything has the bits of one call, on every backend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from scratchrnn import backends

I, H, P = 3, 40, 7  # 4H above 128: a product's sum over the gates is cut, too
CELLS = ("tanh", "relu", "lstm", "projected")
BATCHES = (5, 50)  # blocks of 25 and of 2 steps
Arrays = dict[str, np.ndarray]
pytestmark = [
    pytest.mark.parametrize("cell", CELLS),
    pytest.mark.parametrize("batch", BATCHES),
    pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"]),
    pytest.mark.parametrize("ragged", [False, True], ids=["whole", "lengths"]),
]


@dataclass
class Problem:
    """A sequence of three blocks and a bit, weights, and what one call of a backend makes of them."""

    cell: str
    kernels: Any
    x: np.ndarray
    lengths: np.ndarray
    w: Arrays  # weight_ih, weight_hh, bias_ih, bias_hh
    w_hr: np.ndarray | None
    start: tuple[np.ndarray, ...]  # h_0, and c_0 of an LSTM
    clip: float = math.inf
    detach_h: np.ndarray | None = None  # (T, B) of an LSTM

    @property
    def lstm(self) -> bool:
        return len(self.start) == 2

    @property
    def module(self) -> Any:
        return self.kernels.lstm if self.lstm else self.kernels.rnn

    def states(self) -> list[np.ndarray]:
        found = [np.empty((len(self.x) + 1, *s.shape), s.dtype) for s in self.start]
        for array, s in zip(found, self.start, strict=True):
            array[0] = s
        return found

    def gates(self) -> np.ndarray:
        return np.empty((*self.x.shape[:2], self.w["bias_ih"].size), self.x.dtype)

    def forward(self, part: slice, states: list[np.ndarray], gates: np.ndarray | None) -> None:
        slots = [s[part.start : part.stop + 1] for s in states]
        lengths = self.within(part)
        if self.lstm:
            kept = None if gates is None else gates[part]
            self.module.forward(self.x[part], *self.w.values(), self.w_hr, lengths, *slots, kept)
        else:
            self.module.forward(self.x[part], *self.w.values(), self.cell, lengths, *slots)

    def infer(self, part: slice, start: Any) -> tuple[np.ndarray, list[np.ndarray]]:
        steps = part.stop - part.start
        output, end = np.empty((steps, *start[0].shape), self.x.dtype), [np.empty_like(s) for s in start]
        last = self.w_hr if self.lstm else self.cell
        self.module.infer(self.x[part], *start, *self.w.values(), last, self.within(part), output, *end)
        return output, end

    def preactivations(self, part: slice, h: np.ndarray, a: np.ndarray) -> None:
        w = [self.w[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        self.module.preactivations(self.x[part], *w, self.within(part), h[part.start : part.stop + 1], a[part])

    def backward(self, part: slice, states: Any, gates: Any, d_states: Any, da: Any, dx: Any, dw: Arrays) -> None:
        slots, d_slots = ([s[part.start : part.stop + 1] for s in group] for group in (states, d_states))
        weights = (self.w["weight_ih"], self.w["weight_hh"])
        out = (da[part], dx[part], dw["weight_ih"], dw["weight_hh"], dw["bias_ih"], dw["bias_hh"])
        if self.lstm:
            how = (self.clip, None if self.detach_h is None else self.detach_h[part])
            last = (self.w_hr, self.within(part), *slots, gates[part], *how, *d_slots, *out, dw.get("weight_hr"))
        else:
            last = (self.cell, self.within(part), *slots, self.clip, *d_slots, *out)
        self.module.backward(self.x[part], *weights, *last)

    def zeros(self) -> Arrays:
        zeros = {name: np.zeros_like(w) for name, w in self.w.items()}
        return zeros if self.w_hr is None else zeros | {"weight_hr": np.zeros_like(self.w_hr)}

    def within(self, part: slice) -> np.ndarray:
        return np.clip(self.lengths - part.start, 0, part.stop - part.start)

    @property
    def whole(self) -> slice:
        return slice(0, len(self.x))

    def parts(self, blocks: int) -> list[slice]:
        size = blocks * backends.block_steps(self.x.shape[1])
        return [slice(n, min(n + size, len(self.x))) for n in range(0, len(self.x), size)]


@pytest.fixture
def problem(cell: str, batch: int, dtype: Any, ragged: bool, rng: np.random.Generator, each_backend: str) -> Problem:
    block = backends.block_steps(batch)
    steps = 3 * block + max(1, block // 2)
    lengths = np.full(batch, steps)
    if ragged:  # ends inside blocks, at their edges, and before the last piece begins
        lengths = rng.integers(1, steps + 1, batch)
        lengths[:4] = block, steps, 2 * block, 1

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / 3).astype(dtype)

    lstm, size = cell in ("lstm", "projected"), P if cell == "projected" else H
    rows = 4 * H if lstm else H
    x = normal(steps, batch, I)
    x[np.arange(steps)[:, None] >= lengths] = 0
    w = {
        "weight_ih": normal(rows, I),
        "weight_hh": normal(rows, size),
        "bias_ih": normal(rows),
        "bias_hh": normal(rows),
    }
    start = (normal(batch, size), normal(batch, H)) if lstm else (normal(batch, size),)
    w_hr = normal(P, H) if cell == "projected" else None
    return Problem(cell, backends.load(each_backend), x, lengths, w, w_hr, start)


def same(name: str, got: np.ndarray, want: np.ndarray) -> None:
    assert got.tobytes() == want.tobytes(), f"{name}: worst difference {np.abs(got - want).max():.3g}"


def test_forward_and_infer(problem: Problem) -> None:
    states, gates = problem.states(), problem.gates()
    problem.forward(problem.whole, states, gates)
    for size in (1, 2):
        again, cut_gates, start, outputs = problem.states(), problem.gates(), list(problem.start), []
        for part in problem.parts(size):
            problem.forward(part, again, cut_gates)
            output, start = problem.infer(part, start)
            outputs.append(output)
        beyond = np.arange(len(problem.x) + 1)[:, None] > problem.lengths
        for name, got, want in zip("hc", again, states, strict=False):
            same(name, got, want)
            assert not got[beyond].any()
        if problem.lstm:
            same("gates", cut_gates, gates)
            assert not gates[beyond[1:]].any()
        same("output", np.concatenate(outputs), states[0][1:])
        for name, got, want in zip(("h_n", "c_n"), start, states, strict=False):
            same(name, got, want[problem.lengths, np.arange(len(got))])
    without_gates = problem.states()
    problem.forward(problem.whole, without_gates, None)
    for name, got, want in zip("hc", without_gates, states, strict=False):
        same(name, got, want)


def test_what_was_not_kept_is_computed_again(problem: Problem) -> None:
    states, gates = problem.states(), problem.gates()
    problem.forward(problem.whole, states, gates)
    a = problem.gates()
    problem.preactivations(problem.whole, states[0], a)
    cut, cut_gates = problem.gates(), problem.gates()
    for part in problem.parts(1):
        problem.preactivations(part, states[0], cut)
        if problem.lstm:
            problem.module.activate(cut[part], problem.within(part), cut_gates[part])
    same("a", cut, a)
    assert not a[np.arange(len(a))[:, None] >= problem.lengths].any()
    if problem.lstm:
        same("gates", cut_gates, gates)
        return
    h = problem.states()[0]
    h[1:] = np.maximum(a, 0) if problem.cell == "relu" else np.tanh(a)
    near = 1e-6 if a.dtype == np.float32 else 1e-14
    np.testing.assert_allclose(h, states[0], rtol=0, atol=near)


@pytest.mark.parametrize("detaching", [False, True], ids=["", "detach_h"])
@pytest.mark.parametrize("clip", [math.inf, 0.5])
def test_backward(clip: float, detaching: bool, problem: Problem, rng: np.random.Generator) -> None:
    problem.clip = clip
    if detaching and problem.lstm:
        problem.detach_h = rng.random(problem.x.shape[:2]) < 0.3
    states, gates = problem.states(), problem.gates()
    problem.forward(problem.whole, states, gates)
    outside = [rng.standard_normal(s.shape).astype(s.dtype) for s in states]  # at every slot, slot 0 too
    for array in outside:
        array[np.arange(len(array))[:, None] > problem.lengths] = 0
    found = []
    for parts in ([problem.whole], problem.parts(1), problem.parts(2)):
        d_states = [array.copy() for array in outside]
        da, dx, dw = problem.gates(), np.empty_like(problem.x), problem.zeros()
        for part in reversed(parts):
            problem.backward(part, states, gates, d_states, da, dx, dw)
        assert (np.abs(da).max() == clip) == (clip == 0.5)
        found.append(dw | dict(zip(("dh", "dc"), d_states, strict=False)) | {"da": da, "dx": dx})
    for other in found[1:]:
        for name, want in found[0].items():
            same(name, other[name], want)


def test_gradients_of_parameters_are_added_to(problem: Problem, rng: np.random.Generator) -> None:
    states, gates = problem.states(), problem.gates()
    problem.forward(problem.whole, states, gates)
    outside = [rng.standard_normal(s.shape).astype(s.dtype) for s in states]
    for array in outside:
        array[np.arange(len(array))[:, None] > problem.lengths] = 0
    first = problem.parts(1)[0]
    before = {name: rng.standard_normal(v.shape).astype(v.dtype) for name, v in problem.zeros().items()}
    alone, added = problem.zeros(), {name: v.copy() for name, v in before.items()}
    for dw in (alone, added):
        rest = [array.copy() for array in outside], problem.gates(), np.empty_like(problem.x)
        problem.backward(first, states, gates, *rest, dw)
    for name, want in alone.items():
        assert want.any()
        same(name, added[name], before[name] + want)
