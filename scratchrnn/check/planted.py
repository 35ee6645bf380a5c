"""The recurrent nets with exchangeable parts, so that a mistake can be planted: one sequence, forward and backward.

    B batch   T time   I input   H hidden   G gates: 4 for the LSTM, 1 for the RNN

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh                                     (1)   (B, G·H)
    i, f, g, o = φ_i(a_i), φ_f(a_f), φ_g(a_g), φ_o(a_o)                             (2)   (B, H) each
    c_t = f ⊙ c_{t-1} + i ⊙ g                                                       (3)   (B, H)
    h_t = o ⊙ φ_c(c_t)                                                              (4)   (B, H)
    RNN: h_t = φ(a_t)

This is no reference: that is `scratchrnn.kernels.numpy`. With the parts as they should be it is equal to it, which the
tests hold; with one part exchanged it shows what a known mistake would compute. A mistake is planted by a function from
`run` to another `run`, so that one can be planted on top of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scratchrnn._typing import FloatArray

if TYPE_CHECKING:
    from scratchrnn.check.problem import Problem, Run, Values


@dataclass(frozen=True)
class Function:
    """A nonlinearity and its derivative."""

    value: Callable[[FloatArray], FloatArray]  # of the pre-activation a
    slope: Callable[[FloatArray, FloatArray], FloatArray]  # of a and of the value y there


def _hard(slope: float) -> Function:
    return Function(
        lambda a: np.clip(slope * a + 0.5, 0, 1), lambda a, y: np.where((y > 0) & (y < 1), slope, 0.0).astype(a.dtype)
    )


SIGMOID = Function(lambda a: 0.5 * (1 + np.tanh(0.5 * a)), lambda a, y: y * (1 - y))
SIGMOID_PLUS_1 = Function(lambda a: SIGMOID.value(a + 1), SIGMOID.slope)
TANH = Function(np.tanh, lambda a, y: 1 - y**2)
RELU = Function(lambda a: np.maximum(a, 0), lambda a, y: (y > 0).astype(a.dtype))
IDENTITY = Function(lambda a: a, lambda a, y: np.ones_like(a))
HARD_SIGMOID_TORCH, HARD_SIGMOID_KERAS = _hard(1 / 6), _hard(0.2)


@dataclass(frozen=True)
class Parts:
    """What can be exchanged."""

    gates: tuple[Function, ...]  # φ_i, φ_f, φ_g, φ_o; or φ alone
    squash: Function = TANH  # φ_c
    cut_h: frozenset[int] = frozenset()  # steps t that send no gradient to h_{t-1}
    cut_c: frozenset[int] = frozenset()  # steps t that send no gradient to c_{t-1}
    carries: bool = True  # whether a step reads the state of the step before; otherwise always h_0 and c_0
    late_c: bool = False  # whether the gradient of f pairs with c_t in place of c_{t-1}
    transposed_back: bool = False  # whether da goes back through W_hh transposed, gate by gate


PARTS = {
    "lstm": Parts((SIGMOID, SIGMOID, TANH, SIGMOID)),
    "rnn_tanh": Parts((TANH,)),
    "rnn_relu": Parts((RELU,)),
}


def transposed(weight: FloatArray, hidden: int) -> FloatArray:  # (G·H, H) to (G·H, H)
    """Each gate's square block transposed."""
    return np.concatenate([block.T for block in weight.reshape(-1, hidden, weight.shape[1])])


def run(p: Problem) -> Values:
    """Everything that forward and backward make of a problem, with its parts as they are."""
    steps, hidden = len(p.x), p.h_0.shape[1]
    parts, lstm = p.parts, p.cell == "lstm"
    h, c = [p.h_0], [p.c_0 if lstm else p.h_0]
    a: list[FloatArray] = []
    gates: list[list[FloatArray]] = []
    for t in range(steps):
        h_prev, c_prev = (h[-1], c[-1]) if parts.carries else (h[0], c[0])
        a.append(p.x[t] @ p.weight_ih.T + p.bias_ih + h_prev @ p.weight_hh.T + p.bias_hh)  # (1)
        y = [phi.value(a_y) for phi, a_y in zip(parts.gates, np.split(a[t], len(parts.gates), axis=1), strict=True)]
        gates.append(y)  # (2)
        if lstm:
            i, f, g, o = y
            c.append(f * c_prev + i * g)  # (3)
            h.append(o * parts.squash.value(c[-1]))  # (4)
        else:
            h.append(y[0])

    dh, dc = p.d_h_n, p.d_c_n if lstm else np.zeros_like(p.h_0)
    dh_0 = dc_0 = np.zeros_like(p.h_0)
    da = [p.x[0]] * steps  # each replaced
    weight_back = transposed(p.weight_hh, hidden) if parts.transposed_back else p.weight_hh
    for t in reversed(range(steps)):
        dh = dh + p.d_output[t]
        if lstm:
            i, f, g, o = gates[t]
            y_c = parts.squash.value(c[t + 1])
            dc = dc + dh * o * parts.squash.slope(c[t + 1], y_c)  # undoes (4), in c
            c_prev = c[t] if parts.carries else c[0]
            read = c[t + 1] if parts.late_c else c_prev
            dy = [dc * g, dc * read, dc * i, dh * y_c]  # undoes (3) and (4), in i, f, g, o
            dc_prev = dc * f  # undoes (3), in c_prev
        else:
            dy, dc_prev = [dh], dc
        blocks = zip(parts.gates, np.split(a[t], len(dy), axis=1), gates[t], dy, strict=True)
        da[t] = np.concatenate([d * phi.slope(a_y, y) for phi, a_y, y, d in blocks], axis=1)  # undoes (2)
        dh_prev = da[t] @ weight_back  # undoes (1), in h_prev
        dh, dc = dh_prev * (t not in parts.cut_h), dc_prev * (t not in parts.cut_c)
        if not parts.carries:  # every step reads the initial state
            dh_0, dc_0 = dh_0 + dh, dc_0 + dc
            dh, dc = np.zeros_like(dh), np.zeros_like(dc)
    dh_0, dc_0 = dh_0 + dh, dc_0 + dc

    d, h_read = np.stack(da), np.stack(h[:-1] if parts.carries else [h[0]] * steps)
    dbias = d.sum(axis=(0, 1))
    values = {
        "output": np.stack(h[1:]), "h_n": h[-1], "dx": d @ p.weight_ih, "dh_0": dh_0,
        "dweight_ih": np.einsum("tbg,tbi->gi", d, p.x), "dweight_hh": np.einsum("tbg,tbh->gh", d, h_read),
        "dbias_ih": dbias, "dbias_hh": dbias, "da": d,
    }  # fmt: skip
    if lstm:
        values |= {"c_n": c[-1], "c": np.stack(c[1:]), "dc_0": dc_0}
        values |= {name: np.stack([y[k] for y in gates]) for k, name in enumerate("ifgo")}
    return values


# How a mistake is planted


@dataclass(frozen=True)
class Mistake:
    """A hypothesis: a name, what is wrong and what to do, and how to plant it."""

    name: str
    wrong: str  # with what to do
    plant: Callable[[Run], Run]
    forward: bool = True  # whether it changes the outputs; otherwise gradients alone


def around(change: Callable[[Problem], Problem], after: Callable[[Problem, Values], Values]) -> Callable[[Run], Run]:
    """Plant by another problem, and by what is made of its values; `after` gets the problem as it was."""
    return lambda run: lambda p: after(p, run(change(p)))


def before(change: Callable[[Problem], Problem]) -> Callable[[Run], Run]:
    """Plant by another problem."""
    return around(change, lambda p, values: values)


def with_parts(**parts: Any) -> Callable[[Run], Run]:
    """Plant by other parts."""
    return before(lambda p: replace(p, parts=replace(p.parts, **parts)))


def with_gates(functions: Mapping[int, Function]) -> Callable[[Run], Run]:
    """Plant by the nonlinearity of some gates, by their place."""

    def change(p: Problem) -> Problem:
        gates = tuple(functions.get(k, phi) for k, phi in enumerate(p.parts.gates))
        return replace(p, parts=replace(p.parts, gates=gates))

    return before(change)


def cut_at(parts: Parts, steps: set[int]) -> Parts:
    """Parts whose steps t in `steps` send no gradient to the step before."""
    return replace(parts, cut_h=parts.cut_h | steps, cut_c=parts.cut_c | steps)


def at_steps(d: FloatArray, steps: Iterable[int]) -> FloatArray:
    """A cotangent at some steps, zero at the others."""
    kept, where = np.zeros_like(d), list(steps)
    kept[where] = d[where]
    return kept
