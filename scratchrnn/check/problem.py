"""What a user's function is asked to compute, and what the definition computes of it.

    B batch   T time   I input   H hidden   G gates: 4 for the LSTM, 1 for the RNN

The sizes of a problem are pairwise different and above 1, so that a transposed or swapped axis shows; edge cases have a
problem of their own. Numbers are drawn in float32 and widened, so that both dtypes get the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.check.planted import PARTS, Parts
from scratchrnn.layers import LSTM, RNN
from scratchrnn.testing import TOLERANCE, difference

Values = dict[str, FloatArray]  # by name: output, h_n, c_n, c, i, f, g, o, dx, dh_0, dc_0, dweight_ih, ...
Run = Callable[["Problem"], Values]

CELLS = tuple(PARTS)
GATES = "ifgo"
FORWARD = ("output", "h_n", "c_n", "c", *GATES)
BACKWARD = ("dx", "dh_0", "dc_0", "dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh")
ONLY_LSTM = {"c_n", "c", *GATES, "dc_0"}
STEPS, BATCH, INPUT, HIDDEN = 7, 3, 5, 4
SPREAD = 0.6  # of weights and biases: gates neither stuck at their ends nor all in their linear range
EPS32 = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Problem:
    """One call of forward and one of backward."""

    title: str
    cell: str  # of CELLS
    parts: Parts  # exchanged where a mistake is planted
    x: FloatArray  # (T, B, I)
    h_0: FloatArray  # (B, H)
    c_0: FloatArray  # (B, H), LSTM only: for an RNN empty, as d_c_n
    weight_ih: FloatArray  # (G·H, I)
    weight_hh: FloatArray  # (G·H, H)
    bias_ih: FloatArray  # (G·H,)
    bias_hh: FloatArray  # (G·H,)
    d_output: FloatArray  # (T, B, H)
    d_h_n: FloatArray  # (B, H)
    d_c_n: FloatArray  # (B, H)

    @property
    def arguments(self) -> Values:
        """What forward gets, by name, in its order."""
        names = ("x", "h_0", "c_0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return {name: getattr(self, name) for name in names if self.cell == "lstm" or name != "c_0"}

    @property
    def cotangents(self) -> Values:
        """What backward gets besides."""
        names = ("d_output", "d_h_n", "d_c_n")
        return {name: getattr(self, name) for name in names if self.cell == "lstm" or name != "d_c_n"}

    def each(self, change: Callable[[FloatArray], FloatArray]) -> Problem:
        """A copy, every array changed."""
        arrays = [f.name for f in fields(self) if f.name not in {"title", "cell", "parts"}]
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in arrays}
        return replace(self, **changed)

    def cast(self, dtype: Any) -> Problem:
        """The same numbers in another dtype."""
        return self.each(lambda array: array.astype(dtype))


def quantities(cell: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that the cell has."""
    return tuple(name for name in names if cell == "lstm" or name not in ONLY_LSTM)


def definition(p: Problem) -> Values:
    """What is right: the definition, `scratchrnn.kernels.numpy`, in the problem's dtype."""
    options: dict[str, Any] = {"dtype": p.x.dtype, "backend": "numpy", "rng": np.random.default_rng(0)}
    sizes, lstm = (p.x.shape[2], p.h_0.shape[1]), p.cell == "lstm"
    layer: Any = LSTM(*sizes, **options) if lstm else RNN(*sizes, nonlinearity=p.cell.split("_")[1], **options)
    layer.load_state_dict({f"{name}_l0": array for name, array in p.arguments.items() if name[0] in "wb"})
    trace = layer.forward(p.x, (p.h_0[None], p.c_0[None]) if lstm else p.h_0[None], training=False)
    grads = layer.backward(trace, p.d_output, (p.d_h_n[None], p.d_c_n[None]) if lstm else p.d_h_n[None])
    ends, starts = (trace.state, grads.state) if lstm else ((trace.state,), (grads.state,))
    values = {"output": trace.output, "dx": grads.input}
    for name, end, start in zip("hc", ends, starts, strict=False):
        values |= {f"{name}_n": end[0], f"d{name}_0": start[0]}
    if lstm:
        values |= {"c": trace.c[1:], "i": trace.i, "f": trace.f, "g": trace.g, "o": trace.o}
    return values | {f"d{name.removesuffix('_l0')}": array for name, array in grads.parameters.items()}


def draw(cell: str, seed: int) -> list[Problem]:
    """The problems, in float64. The second has everything at once, and serves to try out hypotheses."""
    rng = np.random.default_rng(seed)
    usual = (STEPS, BATCH, INPUT, HIDDEN)
    full = _draw("everything at once", cell, usual, rng)
    zero = np.zeros_like(full.h_0)
    alone = [replace(full, title=f"{name} alone", **_zeros_but(full, name)) for name in full.cotangents]
    return [
        replace(full, title="initial state zero", h_0=zero, c_0=zero[: len(full.c_0)]),
        full,
        *alone,
        _draw("one step", cell, (1, *usual[1:]), rng),
        _draw("batch 1", cell, (STEPS, 1, *usual[2:]), rng),
        _draw("as many inputs as units", cell, (STEPS, BATCH, HIDDEN, HIDDEN), rng),
    ]


PROBE = 1  # of `draw`'s list


def _zeros_but(p: Problem, name: str) -> dict[str, Any]:
    return {other: np.zeros_like(array) for other, array in p.cotangents.items() if other != name}


def _draw(title: str, cell: str, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> Problem:
    steps, batch, inputs, hidden = sizes
    lstm = cell == "lstm"
    rows = hidden * (4 if lstm else 1)

    def normal(*shape: int, spread: float = 1.0) -> FloatArray:
        return (spread * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)

    while True:
        p = Problem(
            title, cell, PARTS[cell],
            x=normal(steps, batch, inputs),
            h_0=normal(batch, hidden), c_0=normal(batch if lstm else 0, hidden),
            weight_ih=normal(rows, inputs, spread=SPREAD), weight_hh=normal(rows, hidden, spread=SPREAD),
            bias_ih=normal(rows, spread=SPREAD), bias_hh=normal(rows, spread=SPREAD),
            d_output=normal(steps, batch, hidden), d_h_n=normal(batch, hidden),
            d_c_n=normal(batch if lstm else 0, hidden),
        )  # fmt: skip
        if cell != "rnn_relu" or _clear_of_kink(p):
            return p


def _clear_of_kink(p: Problem) -> bool:
    """Whether no rounding can carry a pre-activation across relu's kink, where its derivative jumps."""
    linear = np.concatenate([p.h_0[None], definition(p)["output"]])[:-1] @ p.weight_hh.T
    a = p.x @ p.weight_ih.T + p.bias_ih + linear + p.bias_hh
    return bool(np.abs(a).min() > 1000 * EPS32 * np.abs(a).max())


def bounds(p: Problem, truth: Values, rounded: Values | None) -> dict[str, float]:
    """How far a right implementation may lie from `truth`, by quantity: as in `scratchrnn.testing`.

    In float32, where `rounded` is what the definition itself makes in float32, that is
    TOLERANCE["float32_growth"] times the error of `rounded`, but at least TOLERANCE["float32_floor"] times what
    rounding every input once does to the quantity in units of eps.
    """
    if rounded is None:
        return dict.fromkeys(truth, TOLERANCE["float64"])
    amplified, growth, floor = (
        amplification(p, definition, truth),
        TOLERANCE["float32_growth"],
        TOLERANCE["float32_floor"],
    )
    return {k: max(growth * difference(rounded[k], v).ratio, floor * amplified[k]) for k, v in truth.items()}


def amplification(p: Problem, run: Run, truth: Values) -> dict[str, float]:
    """How far each value moves when every argument is rounded once, in units of eps and at least 1.

    As in `scratchrnn.check.torch_truth`: the largest of four evaluations with every number moved by eps/2.
    """
    rng = np.random.default_rng(0)  # a fixed set of directions: a verdict can be repeated

    def moved(array: FloatArray) -> FloatArray:
        return array * (1 + rng.choice([-EPS32 / 2, EPS32 / 2], array.shape))

    near = [run(p.each(moved)) for _ in range(4)]
    return {k: max(1.0, *(difference(n[k], v).ratio / EPS32 for n in near)) for k, v in truth.items()}
