"""A recurrent layer with all that it takes, and all that it gives, by name: for its tests on a device's arrays."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from tests.cuda.emulator import why_unavailable

T, B, I, H = 6, 3, 2, 5
LENGTHS = 4, 6, 2

WHY_NOT = why_unavailable() if importlib.util.find_spec("numba_cuda") else "numba-cuda is not installed"
emulated = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@dataclass
class Case:
    """A layer, its arguments, and what differs from the plain one."""

    layer: dict[str, Any] = field(default_factory=dict)
    cell: str = "lstm"
    lengths: Any = None
    batched: bool = True
    state: bool = False
    d_output: bool = True
    d_state: bool = True
    trace: str = "full"
    clip: float | None = None
    cut: bool = False
    detach_h: bool = False


CASES = {
    "plain": Case(),
    "without cotangents": Case(d_output=False, d_state=False),
    "of the state alone": Case(d_output=False, lengths=LENGTHS, layer={"bidirectional": True}),
    "layers, directions, lengths": Case({"num_layers": 2, "bidirectional": True}, lengths=LENGTHS, state=True),
    "rnn": Case({"num_layers": 2, "bidirectional": True}, "rnn", lengths=LENGTHS, state=True, clip=0.3),
    "batch first": Case({"batch_first": True, "bidirectional": True}, lengths=LENGTHS, state=True),
    "no batch": Case({"num_layers": 2, "bidirectional": True}, batched=False, state=True, cut=True),
    "projection, no bias": Case({"proj_size": 4, "num_layers": 2, "bias": False}, state=True),
    "dropout": Case({"num_layers": 3, "dropout": 0.4, "bidirectional": True}, lengths=LENGTHS),
    "minimal": Case({"bidirectional": True}, lengths=LENGTHS, trace="minimal", detach_h=True),
    "minimal rnn": Case({"num_layers": 2}, "rnn", trace="minimal"),
    "clip, cut, detach_h": Case({"bidirectional": True}, lengths=LENGTHS, clip=0.1, cut=True, detach_h=True),
    "float64": Case({"dtype": np.float64, "bidirectional": True}, lengths=LENGTHS, cut=True),
}


def make(case: Case, backend: str) -> Any:
    kind = srnn.LSTM if case.cell == "lstm" else srnn.RNN
    return kind(I, H, **case.layer, backend=backend, rng=np.random.default_rng(7))


def run(case: Case, backend: str, rng: np.random.Generator, move: Any = lambda value: value) -> dict[str, Any]:
    """Everything that the layer gives, by name, its arguments `move`d to where it is to run."""
    layer = make(case, backend)
    draw = lambda *shape: rng.standard_normal(shape).astype(layer.dtype)  # noqa: E731
    shape = (T, I) if not case.batched else (B, T, I) if case.layer.get("batch_first") else (T, B, I)
    batch = (B,) if case.batched else ()
    rows, size = layer.num_layers * layer.num_directions, layer.output_size
    pair = lambda: tuple(draw(rows, *batch, n) for n in (size, H)[: 1 + layer.cell.has_c])  # noqa: E731
    state, d_state = (a if case.cell == "lstm" else a[0] for a in (pair(), pair()))
    x, d_output = draw(*shape), draw(*shape[:-1], layer.num_directions * size)
    masks = [rng.random(shape[:-1]) < 0.3 for _ in range(2)]

    arguments = move(x), move(state if case.state else None), case.lengths
    output, final = layer(*arguments)
    trace = layer.forward(*arguments, trace=case.trace)
    grads = layer.backward(
        trace, move(d_output if case.d_output else None), move(d_state if case.d_state else None), clip=case.clip,
        cut=masks[0] if case.cut else None, detach_h=masks[1] if case.detach_h else None,
    )  # fmt: skip
    found = {"inferred": output, "inferred state": final, "output": trace.output, "state": trace.state}
    found |= {"dx": grads.input, "d_state": grads.state} | {f"d{name}": d for name, d in grads.parameters.items()}
    for key, one in trace.layers.items():
        names = ["h", "a", "input"] + (["c", "gates", "i", "f", "g", "o"] if layer.cell.has_c else [])
        found |= {f"{key} {name}": getattr(one, name) for name in names}
        found |= {f"{key} by time": one.by_time(one.h[1:]), f"{key} at end": one.at_end(one.h)}
        back = grads.layers[key]
        names = ["h"] + ([] if case.trace == "minimal" else ["a"]) + (["c"] if layer.cell.has_c else [])
        found |= {f"{key} d{name}": getattr(back, name) for name in names}
    found |= {f"mask {n}": mask for n, mask in enumerate(trace.dropout_masks) if mask is not None}
    flat = {}
    for name, value in found.items():
        flat |= {f"{name} {n}": a for n, a in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return flat
