"""The persistent engines called with NumPy's arrays: outputs begin as NaN, so that what nobody writes is seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from scratchrnn.kernels.cuda import persistent_backward, persistent_forward, persistent_preactivations
from scratchrnn.kernels.cuda.plan import Plan
from scratchrnn.kernels.cuda.queue import Queue
from tests.cuda.recurrences import Arrays, Recurrence

PATIENCE = 1 << 20


def unset(*shape: int) -> np.ndarray:
    """Memory that nobody has written."""
    return np.full(shape, np.nan, np.float32)


def aligned(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy that begins `offset` bytes beyond a multiple of 16."""
    memory = np.empty(array.nbytes + 32, np.uint8)
    start = -memory.ctypes.data % 16 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def forward(
    queue: Queue, plan: Plan, p: Recurrence, *, keeps: bool = True, ends: bool = True, in_place: bool = False,
    offset: int = 0, patience: int = PATIENCE,
) -> Arrays:  # fmt: skip
    """What forward writes: y, and c and gates where it `keeps` them, h_n and c_n where it has `ends`."""
    steps, batch, _ = p.a_x.shape
    state = (batch, plan.hidden)
    found: dict[str, Any] = {"y": aligned(unset(steps, *state), offset)}
    a_x = p.a_x.copy()
    if keeps and p.lstm:
        found |= {"c": unset(steps, *state), "gates": a_x if in_place else unset(*a_x.shape)}
    if ends:
        found |= {"h_n": unset(*state)} | ({"c_n": unset(*state)} if p.lstm else {})
    persistent_forward.forward(
        queue, plan, p.cell, a_x, p.bias, p.weight_hh, p.lengths, aligned(p.h_0), p.c_0, found["y"],
        found.get("c"), found.get("gates"), found.get("h_n"), found.get("c_n"), patience,
    )  # fmt: skip
    return found


def preactivations(queue: Queue, plan: Plan, p: Recurrence, h: np.ndarray) -> np.ndarray:
    """(1) from h (T, B, H) of the step before."""
    a = p.a_x.copy()
    persistent_preactivations.preactivations(queue, plan, p.cell, a, p.bias, p.weight_hh, p.lengths, aligned(h))
    return a


def backward(
    queue: Queue, plan: Plan, p: Recurrence, kept: Arrays, *, offset: int = 0, patience: int = PATIENCE
) -> Arrays:
    """What backward makes of h, c and gates that forward kept (h and c with the initial state)."""
    dh, dc = p.outside[0].copy(), p.outside[1].copy() if p.lstm else None
    da = aligned(unset(*p.a_x.shape), offset)
    detach_h = None if p.detach_h is None else p.detach_h.astype(np.uint8)
    h, c, gates = (None, kept["c"], kept["gates"]) if p.lstm else (kept["h"][1:], None, None)
    persistent_backward.backward(
        queue, plan, p.cell, p.weight_hh, p.lengths, h, c, gates, p.clip, detach_h, dh, dc, da, patience
    )
    return {"da": da, "dh": dh} | ({} if dc is None else {"dc": dc})


def kept(p: Recurrence) -> Arrays:
    """h, c and gates by the definition, rounded to float32: what backward starts from."""
    return {name: array.astype(np.float32) for name, array in p.definition("float64").items()}
