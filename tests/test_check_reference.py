"""`check.reference`: each planted mistake is named, a right implementation passes, and nothing more is claimed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.check import planted, problem, reference
from scratchrnn.check.mistakes import mistakes
from scratchrnn.testing import difference
from tests.own_rnn import Own

OUTPUTS = ("output", "h_n", "c_n", "c", "i", "f", "g", "o")
GRADIENTS = ("dx", "dh_0", "dc_0", "dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh")
PARAMETERS = GRADIENTS[3:]

FORWARD = {
    "h_0 ignored": "h_0 ignored",
    "c_0 ignored": "c_0 ignored",
    "h_0 and c_0 swapped": "h_0 and c_0 swapped",
    "no bias_ih": "missing bias_ih",
    "no bias_hh": "missing bias_hh",
    "bias_ih twice": "bias_ih added twice",
    "bias_ih for bias_hh": "bias_ih in place of bias_hh",
    "forget bias": "forget bias + 1",
    "transposed W_hh": "transposed weight_hh",
    "reversed": "reversed time",
    "state not carried": "state not carried",
    "hard sigmoid": "hard sigmoid",
    "sigmoid on g": "sigmoid for tanh on gate g",
    "relu on g": "relu for tanh on gate g",
    "tanh on o": "tanh for sigmoid on gate o",
    "no tanh": "tanh missing on the cell's output",
    "sample 0 in all": "sample 0 in every row",
    "row 0 only": "only batch row 0",
    "row 0 right, others noise": "only batch row 0 right",
    "bfloat16": "precision of 7 bits",
    "TF32": "precision of 10 bits",
    "float32 inside": "precision of float32",
}
BACKWARD = {
    "backward: transposed W_hh": ("transposed weight_hh in backward", GRADIENTS),
    "backward: d_h_n dropped": ("final-hidden gradient dropped", GRADIENTS),
    "backward: d_c_n dropped": ("final-cell gradient dropped", GRADIENTS),  # deeplearning4j#8838
    "backward: d_output dropped": ("the output's gradient dropped", GRADIENTS),  # chainer#8037
    "backward: d_output at the end only": ("d_output of the last step only", GRADIENTS),  # mxnet#18203: overwritten
    "backward: sample 0": ("gradient of sample 0 only", GRADIENTS),
    "backward: last step only": ("gradient of the last step only", GRADIENTS),
    "backward: windows": ("truncated to windows of 3 steps", GRADIENTS),
    "backward: no BPTT": ("no backpropagation through time", GRADIENTS),
    "backward: 1 - c²": ("derivative of tanh(c)", GRADIENTS),
    "backward: tanh' of tanh(c)": ("derivative of tanh(c)", GRADIENTS),
    "backward: f with c_t": ("c_t for c_{t-1} in backward", GRADIENTS),
    "backward: f' of y": ("derivative at the activation on gates i, f, o", GRADIENTS),
    "backward: g' of y": ("derivative at the activation on gate g", GRADIENTS),
    "backward: slopes of a": ("derivative at the pre-activation", GRADIENTS),
    "backward: g' missing": ("derivative missing on gate g", GRADIENTS),
    "backward: W_hh from h_t": ("one-step shift", ("dweight_hh",)),
    "backward: overwritten": ("gradient of the first step only", PARAMETERS),
    "backward: mean over batch": ("averaged over the batch", PARAMETERS),
    "backward: mean over time": ("averaged over time", PARAMETERS),
    "backward: sign": ("sign flipped", GRADIENTS),
    "backward: zeros": ("zeros returned", GRADIENTS),
}


def named(report: srnn.check.ReferenceReport) -> list[str]:
    return [mistake.name for mistake in report.mistakes]


# --- what is right


def test_a_right_implementation_passes_in_both_precisions() -> None:
    report = reference(Own().forward, Own().backward)
    assert report.ok, report
    assert {r.dtype for r in report.reports} == {"float32", "float64"}
    assert {row.quantity for r in report.reports for row in r.rows} == {*OUTPUTS, *GRADIENTS}
    assert (report.mistakes, report.unexplained, report.not_checked, report.errors) == ((), (), (), ())
    assert "all right" in str(report)
    report.raise_if_wrong()


def _variant(k: int) -> Own:
    """A right LSTM whose arithmetic is ordered in another way."""

    class Reordered(Own):
        def steps(self, x: Any, h: Any, c: Any, wi: Any, wh: Any, bi: Any, bh: Any) -> Any:
            trace = []
            for x_t in x:
                both, weight = np.concatenate([x_t, h], 1), np.concatenate([wi, wh], 1)
                terms = [both @ weight.T + (bi + bh), (bi + x_t @ wi.T) + (bh + h @ wh.T)]
                a = [*terms, np.einsum("bi,gi->bg", both, weight) + bi + bh][k]
                i, f, g, o = np.split(a, 4, 1)
                half = x.dtype.type(0.5)
                i, f, o = ((np.tanh(v * half) + 1) * half for v in (i, f, o))
                g = np.tanh(g)
                s = {"h_in": h, "c_in": c, "x": x_t, "i": i, "f": f, "g": g, "o": o}
                c = i * g + f * c
                h = o * np.tanh(c)
                trace.append(s | {"c": c, "h": h})
            return trace

    return Reordered()


@pytest.mark.parametrize(("k", "seed"), [*itertools.product(range(3), range(4))])
def test_no_false_alarm(k: int, seed: int) -> None:
    own = _variant(k)
    report = reference(own.forward, own.backward, seed=seed)
    assert report.ok, report


def _torch_forward(kind: str) -> Callable[..., Any]:
    def forward(x: Any, *rest: Any) -> Any:
        *state, wi, wh, bi, bh = map(torch.from_numpy, rest)
        x = torch.from_numpy(x)
        options = {"nonlinearity": kind.split("_")[1]} if kind != "lstm" else {}
        make: Any = torch.nn.LSTM if kind == "lstm" else torch.nn.RNN
        m = make(x.shape[2], wh.shape[1], dtype=x.dtype, **options)
        with torch.no_grad():
            for p, value in zip(m.parameters(), (wi, wh, bi, bh), strict=True):
                p.copy_(value)
        output, end = m(x, tuple(s[None] for s in state) if kind == "lstm" else state[0][None])
        return output, tuple(e[0] for e in end) if kind == "lstm" else end[0]

    return forward


@pytest.mark.parametrize("kind", ["lstm", "rnn_tanh", "rnn_relu"])
def test_torch_passes(kind: str) -> None:
    report = reference(_torch_forward(kind), cell=kind, seed=3)
    assert report.ok, report


def test_nothing_planted_is_the_definition() -> None:
    for cell in problem.CELLS:
        for p in problem.draw(cell, 1):
            made, right = planted.run(p), problem.definition(p)
            assert max(difference(made[q], right[q]).ratio for q in right) < 1e-13


# --- mistakes, one at a time


@pytest.mark.parametrize("bug", FORWARD)
def test_forward_mistakes_are_named(bug: str) -> None:
    report = reference(Own(bug).forward, dtypes=["float64"])
    assert named(report) == [FORWARD[bug]], report
    assert not report.ok
    (mistake,) = report.mistakes
    assert (mistake.side, set(mistake.quantities), mistake.others) == ("forward", set(OUTPUTS), ())
    if mistake.with_it is not None:
        assert mistake.with_it < 1e-12 < mistake.without
    assert mistake.name in str(report)


@pytest.mark.parametrize("bug", BACKWARD)
def test_backward_mistakes_are_named(bug: str) -> None:
    report = reference(Own(bug).forward, Own(bug).backward, dtypes=["float64"])
    name, quantities = BACKWARD[bug]
    assert named(report) == [name], report
    (mistake,) = report.mistakes
    assert (mistake.side, mistake.quantities, mistake.others) == ("backward", quantities, ())
    assert mistake.with_it is not None
    assert mistake.with_it < 1e-12 < mistake.without


@pytest.mark.parametrize("order", ["".join(o) for o in itertools.permutations("ifgo")])
def test_every_gate_order(order: str) -> None:
    own = Own(order=order)
    report = reference(own.forward, own.backward, dtypes=["float64"])
    if order == "ifgo":
        assert report.ok
        return
    assert named(report) == [f"gate order {', '.join(order)}"]
    # the gradients are right for the order that forward takes
    assert report.mistakes[0].quantities == (*OUTPUTS, *GRADIENTS)
    assert report.unexplained == ()
    assert ("ONNX" in str(report)) == (order == "iofg")
    assert ("TensorFlow" in str(report)) == (order == "igfo")


def test_k_of_truncation_is_named() -> None:
    for k in (2, 4):
        own = Own("backward: windows", k=k)
        assert named(reference(own.forward, own.backward, dtypes=["float64"])) == [f"truncated to windows of {k} steps"]


def test_one_step_shift() -> None:
    report = reference(Own("shifted output").forward)
    assert [(m.name, m.quantities) for m in report.mistakes] == [("one-step shift", ("output",))]


def test_a_mistake_in_float32_is_named() -> None:
    for bug, name in (("forget bias", "forget bias + 1"), ("no tanh", "tanh missing on the cell's output")):
        assert named(reference(Own(bug).forward, dtypes=["float32"])) == [name]
    own = Own("backward: d_c_n dropped")
    assert named(reference(own.forward, own.backward, dtypes=["float32"])) == ["final-cell gradient dropped"]


def test_weight_ih_transposed_runs_only_where_it_is_square() -> None:
    report = reference(Own("transposed W_ih").forward)
    assert named(report) == ["transposed weight_ih"]
    assert "fn_forward raised ValueError: matmul" in report.errors[0]
    assert "x (7, 3, 5), h_0 (3, 4), c_0 (3, 4), weight_ih (16, 5)" in report.errors[0]
    assert "own_rnn.py" in report.errors[0]


def test_float32_for_float64() -> None:
    report = reference(Own("float32").forward)
    assert named(report) == ["float32 returned for float64"]
    assert "jax_enable_x64" in str(report)
    assert reference(Own("float32").forward, dtypes=["float32"]).ok


def test_state_kept_between_calls() -> None:
    report = reference(Own("state kept").forward)
    assert "state kept between calls" in named(report)
    assert report.unexplained == ()


def test_thinc_in_a_few_lines() -> None:
    # the array LSTM of thinc 9.1.1: forward fills row 0 of a batch alone, backward allocates its result and returns it
    def forward(*args: Any) -> Any:
        return Own("row 0 only").forward(*args)["output"]

    def backward(*args: Any) -> Any:
        names = dict(zip(GRADIENTS, args, strict=False))
        return {name: np.zeros_like(array) for name, array in names.items()}

    report = reference(forward, backward)
    assert [(m.side, m.name) for m in report.mistakes] == [
        ("forward", "only batch row 0"),
        ("backward", "zeros returned"),
    ]
    assert str(report).index("zeros returned") < str(report).index("quantity")


def rnn(phi: str, bias: bool = True) -> Callable[..., Any]:
    value = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}[phi]

    def forward(x: Any, h: Any, wi: Any, wh: Any, bi: Any, bh: Any) -> Any:
        output = []
        for x_t in x:
            h = value(x_t @ wi.T + bi + h @ wh.T + bh * bias)
            output.append(h)
        return np.stack(output), h

    return forward


def test_rnn() -> None:
    assert reference(rnn("tanh"), cell="rnn_tanh").ok
    assert reference(rnn("relu"), cell="rnn_relu").ok
    assert named(reference(rnn("relu"), cell="rnn_tanh")) == ["relu for tanh"]
    assert named(reference(rnn("tanh"), cell="rnn_relu")) == ["tanh for relu"]
    assert named(reference(rnn("sigmoid"), cell="rnn_tanh")) == ["sigmoid for tanh"]
    assert named(reference(rnn("tanh", bias=False), cell="rnn_tanh")) == ["missing bias_hh"]


@pytest.mark.parametrize("cell", problem.CELLS)
def test_every_hypothesis_changes_something_and_no_two_agree(cell: str) -> None:
    problems = problem.draw(cell, 0)
    runs: dict[str, list[Any]] = {}
    for m in mistakes(cell):
        made = [m.plant(planted.run)(p) for p in problems]
        runs.setdefault(m.name, []).append({(k, q): v for k, values in enumerate(made) for q, v in values.items()})
        right = [planted.run(p) for p in problems]
        changed = {q for k, values in enumerate(right) for q, v in values.items() if not np.allclose(made[k][q], v)}
        assert any(q[0] == "d" for q in changed), m.name
        assert m.forward == bool(changed & set(OUTPUTS)), m.name
    for (a, some), (b, others) in itertools.combinations(runs.items(), 2):
        for one, other in itertools.product(some, others):
            assert any(not np.allclose(v, other[key], rtol=1e-9, atol=1e-12) for key, v in one.items()), (a, b)


# --- no false certainty


@pytest.mark.parametrize(
    ("bugs", "expected"),
    [
        (("no bias_hh", "forget bias"), {"missing bias_hh", "forget bias + 1"}),
        (("no bias_ih", "forget bias"), {"missing bias_ih", "forget bias + 1"}),
        (("bias_ih twice", "forget bias"), {"bias_ih added twice", "forget bias + 1"}),
        (("no tanh", "transposed W_hh"), {"tanh missing on the cell's output", "transposed weight_hh"}),
        (("shifted output", "no bias_hh"), {"one-step shift", "missing bias_hh"}),
        (("TF32", "forget bias"), {"precision of 10 bits", "forget bias + 1"}),
        (("backward: mean over batch", "backward: d_c_n dropped"),
         {"averaged over the batch", "final-cell gradient dropped"}),
        (("backward: sign", "backward: no BPTT"), {"sign flipped", "no backpropagation through time"}),
        (("forget bias", "backward: windows"), {"forget bias + 1", "truncated to windows of 3 steps"}),
    ],
)  # fmt: skip
def test_two_mistakes_are_both_named(bugs: tuple[str, ...], expected: set[str]) -> None:
    own = Own(*bugs)
    backward = own.backward if any(bug.startswith("backward") for bug in bugs) else None
    assert set(named(reference(own.forward, backward, dtypes=["float64"]))) == expected


def test_a_forget_bias_is_seen_in_every_gate_order() -> None:
    for order in ("iofg", "ifog", "fiog"):
        own = Own("forget bias", order=order)
        report = reference(own.forward, own.backward, dtypes=["float64"])
        assert set(named(report)) == {f"gate order {', '.join(order)}", "forget bias + 1"}


@pytest.mark.parametrize(
    "bugs",
    [
        ("no tanh", "transposed W_hh", "no bias_ih"),
        ("backward: windows", "backward: 1 - c²", "backward: W_hh from h_t"),
    ],
)
def test_what_is_unknown_is_said_to_be(bugs: tuple[str, ...]) -> None:
    own = Own(*bugs)
    report = reference(own.forward, own.backward, dtypes=["float64"])
    assert report.mistakes == ()
    assert "No known mistake fits" in str(report)
    assert set(report.unexplained) >= {"dx", "dh_0"}
    assert not report.ok


def test_an_error_of_its_own_is_not_taken_for_a_known_one() -> None:
    def forward(*args: Any) -> Any:
        values = Own().forward(*args)
        return values | {"output": values["output"] * 1.001, "c": values["c"] + 0.01}

    report = reference(forward)
    assert named(report) == []
    assert set(report.unexplained) == {"output", "c"}


def test_what_cannot_be_told_apart_is_said() -> None:
    # dc_0 is all that comes back, and is zero either way
    own = Own("backward: zeros")

    def backward(*args: Any) -> Any:
        return {"dc_0": own.backward(*args)["dc_0"]}

    (mistake,) = reference(own.forward, backward).mistakes
    # what forward would show comes last
    assert (mistake.name, *mistake.others[:2]) == (
        "no backpropagation through time", "no gradient through c", "zeros returned",
    )  # fmt: skip
    assert mistake.others[2:] == ("c_0 ignored", "h_0 and c_0 ignored")
    assert "The numbers could also be from" in str(mistake)


def planted_pair(cell: str, plant: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The definition with a mistake of the table, as a user's two functions."""
    run = plant(planted.run)

    def call(*args: Any) -> Any:
        x, h_0, *rest = args
        c_0 = rest.pop(0) if cell == "lstm" else h_0[:0]
        parameters, cotangents = rest[:4], [*rest[4:]] or [np.zeros((*x.shape[:2], h_0.shape[1])), h_0 * 0, c_0 * 0]
        cotangents += [c_0] if len(cotangents) < 3 else []
        return run(problem.Problem("", cell, planted.PARTS[cell], x, h_0, c_0, *parameters, *cotangents))

    def forward(*args: Any) -> Any:
        return {q: v for q, v in call(*args).items() if q in OUTPUTS}

    def backward(*args: Any) -> Any:
        return {q: v for q, v in call(*args).items() if q in GRADIENTS}

    return forward, backward


UNUSUAL = {
    "lstm": (
        "no gradient through h", "no gradient through c", "gradient of the last 3 steps only",
        "each loss carried back 2 steps", "final-cell gradient added twice", "d_output of the last step overwritten",
        "derivative missing on gate f", "derivative y (1 - y) on gate g", "input one step late",
        "no nonlinearity for tanh on gate g", "bias_ih and bias_hh added twice", "h_0 and c_0 ignored",
    ),
    "rnn_tanh": (
        "no backpropagation through time", "truncated to windows of 2 steps", "each loss carried back 3 steps",
        "final-hidden gradient dropped", "transposed weight_hh in backward", "derivative missing", "h_0 ignored",
        "gradient of sample 0 only", "transposed weight_hh", "identity for tanh",
    ),
    "rnn_relu": ("gradient of the last step only", "derivative missing", "missing bias_ih", "reversed time"),
}  # fmt: skip


@pytest.mark.parametrize(("cell", "name"), [(cell, name) for cell, names in UNUSUAL.items() for name in names])
def test_mistakes_of_the_table(cell: str, name: str) -> None:
    plants = [m.plant for m in mistakes(cell) if m.name == name]
    assert plants
    for plant in plants:
        report = reference(*planted_pair(cell, plant), cell=cell, dtypes=["float64"])
        assert named(report) == [name], report
        assert report.mistakes[0].others == ()
