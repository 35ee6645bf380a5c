"""Mistakes in how a sequence runs: a table of hypotheses, each a small function that plants it in `planted.run`.

They change every number, forward and backward or backward alone, and can be planted one on top of another. Mistakes in
one result, which leave the others alone, are in `slips.py`, wrong derivatives in `slopes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.check import planted
from scratchrnn.check.planted import Mistake, around, at_steps, before, cut_at, with_gates, with_parts
from scratchrnn.check.problem import GATES, Problem, Run, Values
from scratchrnn.check.slopes import slopes

ROWS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # whose first axis is that of the gates
KNOWN_ORDERS = {"iofg": "ONNX, there written i, o, f, c", "igfo": "TensorFlow 1, there written i, j, f, o"}
STARTS = {"h_0": "dh_0", "c_0": "dc_0"}


def mistakes(cell: str) -> tuple[Mistake, ...]:
    """Every one that a cell can have: first those of forward, then those of backward alone. Names may repeat.

    Where the user's gradient may follow the mistaken forward pass or ignore the mistake, both are in the table.
    """
    lstm = cell == "lstm"
    table = [
        *(_gate_orders() if lstm else ()),
        *_biases(lstm),
        *_functions(cell),
        *_weights(),
        *_states(lstm),
        *_time(),
    ]
    return (*table, *_cotangents(lstm), *_truncated(lstm), *slopes(cell))


# Forward


def _gate_orders() -> Iterator[Mistake]:
    for order in permutations(GATES):
        written = "".join(order)
        if written == GATES:
            continue
        shown = ", ".join(order)
        known = f" (the order of {KNOWN_ORDERS[written]})" if written in KNOWN_ORDERS else ""
        yield Mistake(
            f"gate order {shown}",
            f"The rows of weights and biases are read as {shown}{known}. They come as i, f, g, o, as in torch, cuDNN "
            "and Keras: split them in that order.",
            _reordered([order.index(name) for name in GATES]),
        )


def _reordered(blocks: list[int]) -> Callable[[Run], Run]:
    def plant(run: Run) -> Run:
        def mistaken(p: Problem) -> Values:
            rows = np.arange(len(p.bias_ih)).reshape(4, -1)[blocks].ravel()
            values = run(replace(p, **{name: getattr(p, name)[rows] for name in ROWS}))
            back = np.argsort(rows)
            return values | {f"d{name}": values[f"d{name}"][back] for name in ROWS}

        return mistaken

    return plant


def _biases(lstm: bool) -> Iterator[Mistake]:
    both = ("bias_ih", "bias_hh")
    for names in (("bias_ih",), ("bias_hh",), both):
        title, verb = " and ".join(names), "are" if len(names) > 1 else "is"
        yield from _scaled_biases(
            f"missing {title}", f"{title} {verb} not added to the pre-activations. Add both biases.", names, 0.0
        )
        yield from _scaled_biases(
            f"{title} added twice",
            f"{title} {verb} added twice to the pre-activations. Add each bias once.",
            names,
            2.0,
        )
    for used, left in (both, both[::-1]):
        yield from _scaled_biases(
            f"{used} in place of {left}",
            f"{used} is added twice, {left} never. Add each bias once.",
            (used,),
            2.0,
            left,
        )
    if lstm:  # by the gate's function, so that it stays with gate f whatever becomes of rows and biases
        yield Mistake(
            "forget bias + 1",
            "1 is added to the forget gate's bias inside the cell, as in TensorFlow 1. Put it in the bias at "
            "initialisation, or leave it away.",
            with_gates({1: planted.SIGMOID_PLUS_1}),
        )


def _scaled_biases(
    name: str, wrong: str, names: tuple[str, ...], factor: float, dropped: str = ""
) -> Iterator[Mistake]:
    factors = dict.fromkeys(names, factor) | ({dropped: 0.0} if dropped else {})

    def scaled(p: Problem) -> Problem:
        return replace(p, **{k: f * getattr(p, k) for k, f in factors.items()})

    def after(p: Problem, values: Values) -> Values:
        return values | {f"d{k}": f * values[f"d{k}"] for k, f in factors.items()}

    yield Mistake(name, wrong, before(scaled))
    yield Mistake(name, wrong, around(scaled, after))


def _functions(cell: str) -> Iterator[Mistake]:
    if cell != "lstm":
        wanted = cell.split("_")[1]
        others = {"tanh": planted.TANH, "relu": planted.RELU, "sigmoid": planted.SIGMOID, "identity": planted.IDENTITY}
        for name, phi in others.items():
            if name != wanted:
                yield Mistake(f"{name} for {wanted}", f"The state is {name}(a). Use {wanted}.", with_gates({0: phi}))
        return
    right = dict(zip(GATES, ("sigmoid", "sigmoid", "tanh", "sigmoid"), strict=True))
    swaps = {
        "sigmoid": {"tanh": planted.TANH, "no nonlinearity": planted.IDENTITY, "relu": planted.RELU},
        "tanh": {"sigmoid": planted.SIGMOID, "relu": planted.RELU, "no nonlinearity": planted.IDENTITY},
    }
    for k, gate in enumerate(GATES):
        for name, phi in swaps[right[gate]].items():
            yield Mistake(
                f"{name} for {right[gate]} on gate {gate}",
                f"Gate {gate} has {name}. Use {right[gate]}: i, f and o are sigmoids, g is a tanh.",
                with_gates({k: phi}),
            )
    for name, phi in {"tanh missing": planted.IDENTITY, "sigmoid": planted.SIGMOID, "relu": planted.RELU}.items():
        yield Mistake(
            f"{name} on the cell's output" if name == "tanh missing" else f"{name} for tanh on the cell's output",
            f"The hidden state is {'o · c' if name == 'tanh missing' else f'o · {name}(c)'}. It is o · tanh(c).",
            with_parts(squash=phi),
        )
    hard = {"clip(a/6 + 1/2)": planted.HARD_SIGMOID_TORCH, "clip(a/5 + 1/2)": planted.HARD_SIGMOID_KERAS}
    for formula, phi in hard.items():
        yield Mistake(
            "hard sigmoid",
            f"The gates i, f and o are hard sigmoids, {formula} to 0..1. Use 1 / (1 + exp(-a)).",
            with_gates({0: phi, 1: phi, 3: phi}),
        )


def _weights() -> Iterator[Mistake]:
    for name, square in (("weight_hh", "H"), ("weight_ih", "I")):

        def turned_round(p: Problem, name: str = name) -> Problem:
            weight, hidden = getattr(p, name), p.h_0.shape[1]
            turned: dict[str, Any] = {name: planted.transposed(weight, hidden)}
            return replace(p, **turned) if weight.shape[1] == hidden else p

        def after(p: Problem, values: Values, name: str = name) -> Values:
            hidden = p.h_0.shape[1]
            d = values[f"d{name}"]
            return values | {f"d{name}": planted.transposed(d, hidden)} if d.shape[1] == hidden else values

        yield Mistake(
            f"transposed {name}",
            f"Each gate's block (H, {square}) of {name} is multiplied the wrong way round. The product is W times a "
            f"column, `v @ {name}.T` for rows.",
            around(turned_round, after),
        )


def _states(lstm: bool) -> Iterator[Mistake]:
    starts = tuple(STARTS) if lstm else ("h_0",)
    for names in [(name,) for name in starts] + ([starts] if lstm else []):

        def zeroed(p: Problem, names: tuple[str, ...] = names) -> Problem:
            return replace(p, **{name: np.zeros_like(getattr(p, name)) for name in names})

        def after(p: Problem, values: Values, names: tuple[str, ...] = names) -> Values:
            return values | {STARTS[name]: np.zeros_like(getattr(p, name)) for name in names}

        title = " and ".join(names)
        wrong = (
            f"{title} {'are' if len(names) > 1 else 'is'} not used: the sequence starts from zeros. Start from {title}."
        )
        yield Mistake(f"{title} ignored", wrong, before(zeroed))
        yield Mistake(f"{title} ignored", wrong, around(zeroed, after))
    if lstm:
        yield Mistake(
            "h_0 and c_0 swapped",
            "The sequence starts from h = c_0 and c = h_0. The state comes as h_0, c_0.",
            around(lambda p: replace(p, h_0=p.c_0, c_0=p.h_0), lambda p, v: v | {"dh_0": v["dc_0"], "dc_0": v["dh_0"]}),
        )
    yield Mistake(
        "state not carried",
        "Every step starts from the initial state. Hand each step's state to the next.",
        with_parts(carries=False),
    )


def _time() -> Iterator[Mistake]:
    def backwards(p: Problem) -> Problem:
        return replace(p, x=p.x[::-1], d_output=p.d_output[::-1])

    def restored(p: Problem, values: Values) -> Values:
        return {k: v[::-1] if k in {"output", "c", "dx", "da", *GATES} else v for k, v in values.items()}

    wrong = "The sequence is read from its last step to its first. Start at x[0]."
    yield Mistake("reversed time", wrong, around(backwards, restored))
    yield Mistake(
        "reversed time",
        wrong + " The output is in the order of the steps as they ran.",
        around(lambda p: replace(p, x=p.x[::-1]), lambda p, v: v | {"dx": v["dx"][::-1]}),
    )
    yield Mistake(
        "input one step late",
        "Step t reads x[t-1], and the first step zeros. Step t reads x[t].",
        around(
            lambda p: replace(p, x=np.concatenate([np.zeros_like(p.x[:1]), p.x[:-1]])),
            lambda p, v: v | {"dx": np.concatenate([v["dx"][1:], np.zeros_like(v["dx"][:1])])},
        ),
    )


# Backward alone


def _cotangents(lstm: bool) -> Iterator[Mistake]:
    for name in ("d_output", "d_h_n", "d_c_n")[: 3 if lstm else 2]:
        title = {"d_output": "the output's gradient", "d_h_n": "final-hidden gradient", "d_c_n": "final-cell gradient"}
        yield Mistake(
            f"{title[name]} dropped",
            f"{name} has no effect on the gradients. Start the recursion from it.",
            before(lambda p, name=name: replace(p, **{name: np.zeros_like(getattr(p, name))})),  # type: ignore[misc]
            forward=False,
        )
        yield Mistake(
            f"{title[name]} added twice",
            f"{name} enters the recursion twice. Add it once.",
            before(lambda p, name=name: replace(p, **{name: 2 * getattr(p, name)})),  # type: ignore[misc]
            forward=False,
        )
    yield Mistake(
        "d_output of the last step only",
        "d_output counts at the last step alone. Add what comes back from the step after to it, do not replace it.",
        before(lambda p: replace(p, d_output=at_steps(p.d_output, [len(p.x) - 1]))),
        forward=False,
    )
    yield Mistake(
        "d_output of the last step overwritten",
        "The last step gets d_h_n in place of d_output + d_h_n. Add them.",
        before(lambda p: replace(p, d_output=at_steps(p.d_output, range(len(p.x) - 1)))),
        forward=False,
    )
    yield Mistake(
        "gradient of sample 0 only",
        "Only the first sample of the batch is carried back. Sum the parameters' gradients over all samples.",
        before(first_sample),
        forward=False,
    )


def _truncated(lstm: bool) -> Iterator[Mistake]:
    cuts = {"h and c": ("cut_h", "cut_c"), "h": ("cut_h",), "c": ("cut_c",)} if lstm else {"h": ("cut_h",)}
    for states, names in cuts.items():
        partly = lstm and states != "h and c"
        for first in (0, 1):  # whether the initial state is cut off too

            def cut(p: Problem, names: tuple[str, ...] = names, first: int = first) -> Problem:
                steps: dict[str, Any] = dict.fromkeys(names, frozenset(range(first, len(p.x))))
                return replace(p, parts=replace(p.parts, **steps))

            yield Mistake(
                f"no gradient through {states}" if partly else "no backpropagation through time",
                f"A step sends no gradient through {states} to the step before. Carry it back.",
                before(cut),
                forward=False,
            )
    for k in range(1, 7):
        steps = f"{k} step{'s' if k > 1 else ''}"

        def last(p: Problem, k: int = k) -> Problem:
            first = max(len(p.x) - k, 0)
            kept = at_steps(p.d_output, range(first, len(p.x)))
            return replace(p, d_output=kept, parts=cut_at(p.parts, {first} if first else set()))

        def windows(p: Problem, k: int = k) -> Problem:
            return replace(p, parts=cut_at(p.parts, set(range(k, len(p.x), k))))

        yield Mistake(
            "gradient of the last step only" if k == 1 else f"gradient of the last {steps} only",
            f"The loop back in time ends after {steps}. Let it run to step 0.",
            before(last),
            forward=False,
        )
        if k > 1:  # windows of one step: no backpropagation through time
            yield Mistake(
                f"truncated to windows of {steps}",
                f"No gradient crosses from a window of {steps} to the one before: truncated BPTT, not the gradient.",
                before(windows),
                forward=False,
            )
            yield Mistake(
                f"each loss carried back {steps}",
                f"The gradient of each step's loss goes back {steps} and no further. That is truncated BPTT, not the "
                "gradient.",
                _carried_back(k),
                forward=False,
            )


def _carried_back(k: int) -> Callable[[Run], Run]:
    def plant(run: Run) -> Run:
        def mistaken(p: Problem) -> Values:
            last = len(p.x) - 1
            total: Values = {}
            for s in range(len(p.x)):
                one = replace(p, d_output=at_steps(p.d_output, [s]), parts=cut_at(p.parts, {s - k + 1} - {0}))
                if s < last:
                    one = replace(one, d_h_n=np.zeros_like(p.d_h_n), d_c_n=np.zeros_like(p.d_c_n))
                values = run(one)
                total |= {q: v + total[q] if q in total and q[0] == "d" else v for q, v in values.items()}
            return total

        return mistaken

    return plant


def first_sample(p: Problem) -> Problem:
    """The gradient of sample 0 alone."""

    def kept(d: FloatArray) -> FloatArray:  # (..., B, H)
        return d * (np.arange(d.shape[-2]) == 0)[:, None]

    return replace(p, d_output=kept(p.d_output), d_h_n=kept(p.d_h_n), d_c_n=kept(p.d_c_n))
