"""Random recurrences for the engines, and what the definition makes of them: arrays as `persistent_forward` takes them.

The definition starts from x; here x is a_x, what the input gives to each pre-activation, and W_ih is the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scratchrnn.kernels.cuda.plan import GATES, Plan
from scratchrnn.kernels.cuda.tile import Tile, choose
from scratchrnn.kernels.numpy import lstm, rnn

Arrays = dict[str, np.ndarray]


def cut(
    cell: str,
    batch: int,
    hidden: int,
    units: int,
    groups: int,
    backward: bool,
    tile: Tile | None = None,
    staged: int = 0,
) -> Plan:
    """A plan with so many units a block, so many groups, and at least so many samples staged at once; 0: all."""
    gates = GATES[cell.partition("_")[0]]
    per_group = -(-batch // groups)
    rows, columns = (units, gates * hidden) if backward else (gates * units, hidden)
    tile = tile or choose(rows, columns, per_group)
    assert tile is not None
    assert rows <= tile.all_rows
    assert columns <= tile.columns
    plan = Plan(hidden, units, -(-hidden // units), -(-batch // per_group), per_group, staged, tile)
    staged = min(plan.stride, -(-staged // tile.samples) * tile.samples) if staged else plan.stride
    return Plan(hidden, units, plan.blocks, plan.groups, per_group, staged, tile)


@dataclass
class Recurrence:
    """One call of an engine, forward and backward."""

    cell: str
    a_x: np.ndarray  # (T, B, R) zero beyond a sequence's end
    bias: np.ndarray  # (R,)
    weight_hh: np.ndarray  # (R, H)
    lengths: np.ndarray  # (B,)
    h_0: np.ndarray  # (B, H)
    c_0: np.ndarray | None  # (B, H) of an LSTM
    outside: tuple[np.ndarray, ...]  # dL/dh_t and, of an LSTM, dL/dc_t (T+1, B, H)
    clip: float = math.inf
    detach_h: np.ndarray | None = None  # (T, B)
    known: dict[str, Arrays] = field(default_factory=dict)  # the definition's results, by dtype

    @property
    def lstm(self) -> bool:
        """Whether it has a c."""
        return self.cell == "lstm"

    def definition(self, dtype: str) -> Arrays:
        """h, c (T+1, B, H), gates, da (T, B, R), total dh, dc, by the definition."""
        if dtype not in self.known:
            self.known[dtype] = self._definition(dtype)
        return self.known[dtype]

    def _definition(self, dtype: str) -> Arrays:
        steps, batch, rows = self.a_x.shape
        hidden = self.h_0.shape[1]
        x, bias, weight_hh = (array.astype(dtype) for array in (self.a_x, self.bias, self.weight_hh))
        eye, zero = np.eye(rows, dtype=dtype), np.zeros(rows, dtype)
        h, c = np.zeros((2, steps + 1, batch, hidden), dtype)
        gates, da, dx = np.zeros((3, steps, batch, rows), dtype)
        h[0] = self.h_0
        outside = [array.astype(dtype) for array in self.outside]
        sums = [np.zeros_like(eye), np.zeros_like(weight_hh), np.zeros_like(zero), np.zeros_like(zero)]
        if self.c_0 is None:
            kind = self.cell.removeprefix("rnn_")
            rnn.forward(x, eye, weight_hh, bias, zero, kind, self.lengths, h)
            rnn.backward(x, eye, weight_hh, kind, self.lengths, h, self.clip, *outside, da, dx, *sums)
            return {"h": h, "da": da, "dh": outside[0]}
        c[0] = self.c_0
        lstm.forward(x, eye, weight_hh, bias, zero, None, self.lengths, h, c, gates)
        lstm.backward(
            x, eye, weight_hh, None, self.lengths, h, c, gates, self.clip, self.detach_h, *outside, da, dx, *sums, None
        )
        return {"h": h, "c": c, "gates": gates, "da": da, "dh": outside[0], "dc": outside[1]}


def draw(
    rng: np.random.Generator, cell: str, batch: int, hidden: int, steps: int, lengths: Any = None,
    clip: float = math.inf, detaching: bool = False,
) -> Recurrence:  # fmt: skip
    """Random numbers: states that neither vanish nor saturate."""
    rows = GATES[cell.partition("_")[0]] * hidden

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    length = np.full(batch, steps, np.int32) if lengths is None else np.asarray(lengths, np.int32)
    assert length.shape == (batch,)
    a_x = normal(steps, batch, rows)
    a_x[np.arange(steps)[:, None] >= length] = 0
    has_c = cell == "lstm"
    outside = tuple(normal(steps + 1, batch, hidden) for _ in range(1 + has_c))
    for array in outside:
        array[np.arange(steps + 1)[:, None] > length] = 0
    detach_h = rng.random((steps, batch)) < 0.4 if detaching and has_c else None
    weight_hh = normal(rows, hidden) / np.float32(math.sqrt(hidden))
    c_0 = normal(batch, hidden) if has_c else None
    return Recurrence(cell, a_x, normal(rows), weight_hh, length, normal(batch, hidden), c_0, outside, clip, detach_h)
