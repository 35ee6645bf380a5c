"""Random calls of a backend's modules, with everything that they find, by name; and of its linear layer."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from scratchrnn.testing import TOLERANCE, assert_close, difference

Arrays = dict[str, np.ndarray]
CELLS = ("tanh", "relu", "lstm", "projected")


def module(folder: str, name: str) -> ModuleType:
    """A module of kernels/."""
    return importlib.import_module(f"scratchrnn.kernels.{folder}.{name}")


@dataclass
class Problem:
    """What goes into one call of each function."""

    cell: str
    x: np.ndarray  # (T, B, I)
    lengths: np.ndarray
    weights: Arrays  # weight_ih, weight_hh, bias_ih, bias_hh
    weight_hr: np.ndarray | None
    start: tuple[np.ndarray, ...]  # h_0, and c_0 of an LSTM
    outside: tuple[np.ndarray, ...]  # dL/dh_t, and dL/dc_t
    given: Arrays  # parameters' gradients that stand there before
    clip: float = math.inf
    detach_h: np.ndarray | None = None

    @property
    def lstm(self) -> bool:
        return len(self.start) == 2

    def astype(self, dtype: Any) -> Problem:
        def to(found: Any) -> Any:
            if isinstance(found, dict):
                return {name: array.astype(dtype) for name, array in found.items()}
            return tuple(array.astype(dtype) for array in found)

        hr = None if self.weight_hr is None else self.weight_hr.astype(dtype)
        return replace(
            self, x=self.x.astype(dtype), weights=to(self.weights), weight_hr=hr, start=to(self.start),
            outside=to(self.outside), given=to(self.given),
        )  # fmt: skip


def draw(
    cell: str,
    rng: np.random.Generator,
    sizes: tuple[int, int, int, int, int],  # T, B, I, H, P
    *,
    lengths: Any = None,
    clip: float = math.inf,
    detaching: bool = False,
) -> Problem:
    """Draw a problem in float32 values held as float64, so that both dtypes see the same numbers."""
    steps, batch, inputs, hidden, proj = sizes
    lstm, size = cell in ("lstm", "projected"), proj if cell == "projected" else hidden
    rows = 4 * hidden if lstm else hidden
    lengths = np.full(batch, steps) if lengths is None else np.array(lengths)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    def weight(*shape: int) -> np.ndarray:  # neither vanishing nor exploding: float32 is compared, too
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32).astype(np.float64)

    x = normal(steps, batch, inputs)
    x[np.arange(steps)[:, None] >= lengths] = 0
    shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, size), "bias_ih": (rows,), "bias_hh": (rows,)}
    weights = {name: weight(*shape) for name, shape in shapes.items()}
    given = {f"d{name}": normal(*shape) for name, shape in shapes.items()}
    weight_hr = weight(proj, hidden) if cell == "projected" else None
    if weight_hr is not None:
        given["dweight_hr"] = normal(proj, hidden)
    start = (normal(batch, size), normal(batch, hidden))[: 1 + lstm]
    outside = (normal(steps + 1, batch, size), normal(steps + 1, batch, hidden))[: 1 + lstm]
    for array in outside:
        array[np.arange(steps + 1)[:, None] > lengths] = 0
    detach_h = rng.random((steps, batch)) < 0.4 if detaching and lstm else None
    return Problem(cell, x, lengths, weights, weight_hr, start, outside, given, clip, detach_h)


def forward_of(folder: str, p: Problem) -> Arrays:
    """What infer, forward, preactivations and activate find."""
    cell = module(folder, "lstm" if p.lstm else "rnn")
    steps, batch, _ = p.x.shape
    kind: Any = p.weight_hr if p.lstm else p.cell
    output, ends = np.empty((steps, *p.start[0].shape), p.x.dtype), [np.empty_like(s) for s in p.start]
    cell.infer(p.x, *p.start, *p.weights.values(), kind, p.lengths, output, *ends)
    found = {"output": output} | dict(zip(("h_n", "c_n"), ends, strict=False))
    states, gates = _slots(p), np.empty((steps, batch, p.weights["bias_ih"].size), p.x.dtype)
    cell.forward(p.x, *p.weights.values(), kind, p.lengths, *states, *([gates] if p.lstm else []))
    found |= dict(zip("hc", states, strict=False)) | ({"gates": gates} if p.lstm else {})
    if p.lstm:
        without = _slots(p)
        cell.forward(p.x, *p.weights.values(), kind, p.lengths, *without, None)
        found |= {"h without gates": without[0], "c without gates": without[1]}
    a = np.empty_like(gates)
    cell.preactivations(p.x, *p.weights.values(), p.lengths, states[0], a)
    found["a"] = a
    if p.lstm:
        again = np.empty_like(gates)
        cell.activate(a, p.lengths, again)
        found["gates again"] = again
    return found


def backward_of(folder: str, p: Problem, forward: Arrays) -> Arrays:
    """What backward finds, given what forward found, on top of what stands in the parameters' gradients."""
    cell = module(folder, "lstm" if p.lstm else "rnn")
    d_states, given = [d.copy() for d in p.outside], {name: d.copy() for name, d in p.given.items()}
    da, dx = np.empty_like(forward["a"]), np.empty_like(p.x)
    weights = (p.weights["weight_ih"], p.weights["weight_hh"])
    sums = [given[f"d{name}"] for name in p.weights]
    if p.lstm:
        kept = (forward["h"], forward["c"], forward["gates"])
        last = (p.clip, p.detach_h, *d_states, da, dx, *sums, given.get("dweight_hr"))
        cell.backward(p.x, *weights, p.weight_hr, p.lengths, *kept, *last)
    else:
        cell.backward(p.x, *weights, p.cell, p.lengths, forward["h"], p.clip, *d_states, da, dx, *sums)
    return dict(zip(("dh", "dc"), d_states, strict=False)) | {"da": da, "dx": dx} | given


def _slots(p: Problem) -> list[np.ndarray]:
    states = [np.empty((len(p.x) + 1, *s.shape), s.dtype) for s in p.start]
    for array, s in zip(states, p.start, strict=True):
        array[0] = s
    return states


def everything(folder: str, p: Problem) -> Arrays:
    """What all functions find."""
    found = forward_of(folder, p)
    return found | backward_of(folder, p, found)


def check(folder: str, p: Problem, dtype: str) -> Arrays:
    """Compare a backend with the definition, and each function with the others; return what the backend found."""
    got, want = everything(folder, p.astype(dtype)), everything("numpy", p)
    theirs = want if dtype == "float64" else everything("numpy", p.astype(dtype))
    for name in want:
        close(name, got[name], want[name], theirs[name])
    for name in ("h", "c", "gates"):
        for again in (f"{name} without gates", f"{name} again"):
            if again in got:
                same(again, got[again], got[name])
    same("output", got["output"], got["h"][1:])
    own = p.lengths, np.arange(len(p.lengths))
    for name in ("h", "c"):
        if name in got:
            same(f"{name}_n", got[f"{name}_n"], got[name][own])
    nothing_beyond(got, p.lengths)
    return got


def nothing_beyond(found: Arrays, lengths: np.ndarray) -> None:
    """Exact zeros beyond each sequence's end."""
    beyond = np.arange(len(found["h"]))[:, None] > lengths
    for name in {"h", "c", "dh", "dc"} & set(found):
        assert not found[name][beyond].any(), name
    for name in {"output", "gates", "gates again", "a", "da", "dx"} & set(found):
        assert not found[name][beyond[1:]].any(), name


def close(name: str, got: np.ndarray, want: np.ndarray, theirs: np.ndarray) -> None:
    """As far from the truth as rounding allows; in float32, as twice the definition in float32."""
    assert got.dtype == theirs.dtype
    if got.dtype == np.float64:
        assert_close(name, got, want, rel=TOLERANCE["float64"])
        return
    mine, its = difference(got, want), difference(theirs, want)
    # of the rms: which is the largest of many rounding errors is luck
    bound = max(TOLERANCE["float32_growth"] * its.rms_ratio, TOLERANCE["float32_floor"])
    assert mine.rms_ratio <= bound, f"{name}: ours {mine}, the definition's {its}"


def same(name: str, got: np.ndarray, want: np.ndarray) -> None:
    """The same bits."""
    assert got.tobytes() == want.tobytes(), f"{name}: worst difference {np.abs(got - want).max():.3g}"
