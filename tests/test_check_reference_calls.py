"""`check.reference`: what a user's functions may return, what they get wrong about it, and the report."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.check import reference
from scratchrnn.testing import assert_matches_reference
from tests.own_rnn import Own
from tests.test_check_reference import named

# --- what is returned


def test_what_is_not_returned_is_not_checked() -> None:
    report = reference(lambda *a: Own().forward(*a)["output"], lambda *a: {"dx": Own().backward(*a)["dx"]})
    assert report.ok
    assert report.not_checked == (
        "h_n, c_n, c, i, f, g, o: not returned by fn_forward",
        "dh_0, dc_0, dweight_ih, dweight_hh, dbias_ih, dbias_hh: not returned by fn_backward",
    )
    assert "backward: no function given" in reference(Own().forward).not_checked
    assert "Not checked: h_n, c_n" in str(report)


def test_forms_of_what_is_returned() -> None:
    own = Own()
    as_tuple = lambda *a: tuple(own.forward(*a)[q] for q in ("output", "h_n", "c_n"))  # noqa: E731
    nested = lambda *a: (as_tuple(*a)[0], as_tuple(*a)[1:])  # noqa: E731
    gates = lambda *a: {"gates": np.concatenate([own.forward(*a)[g] for g in "ifgo"], 2)}  # noqa: E731
    tensors = lambda *a: {k: torch.tensor(v, requires_grad=True) for k, v in own.forward(*a).items()}  # noqa: E731
    partly = lambda *a: (*as_tuple(*a)[:2], None)  # noqa: E731
    for forward, rows in ((as_tuple, 3), (nested, 3), (gates, 4), (tensors, 8), (partly, 2)):
        report = reference(forward, lambda *a: tuple(own.backward(*a).values()))
        assert report.ok, report
        assert len(report.reports[0].rows) == rows + 7


def test_axes_in_another_order() -> None:
    report = reference(lambda *a: Own("forget bias").forward(*a)["output"].transpose(1, 0, 2))
    assert named(report) == ["axes in another order", "forget bias + 1"]
    assert "output: (3, 7, 4), expected (7, 3, 4)" in str(report)
    own = Own()
    report = reference(own.forward, lambda *a: {"dweight_ih": own.backward(*a)["dweight_ih"].T})
    assert named(report) == ["axes in another order"]
    report = reference(lambda *a: (own.forward(*a)["output"], own.forward(*a)["h_n"][None]))
    assert [m.quantities for m in report.mistakes] == [("h_n",)]


def test_nan_and_writing_to_arguments() -> None:
    def forward(x: Any, h_0: Any, *rest: Any) -> Any:
        values = Own().forward(x, h_0, *rest)
        values["c"][2] = np.nan
        h_0[...] = values["h_n"]
        return values

    report = reference(forward)
    assert named(report) == ["NaN or infinity", "arguments changed in place"]
    assert report.mistakes[0].quantities == ("c",)
    assert "writes to its own h_0" in str(report)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda *a: None, "fn_forward returned nothing to compare"),
        (lambda *a: {}, "fn_forward returned nothing to compare; called with float64 x (7, 3, 5)"),
        (lambda *a: {"y": a[0]}, "returned y; expected any of output, h_n, c_n, c, i, f, g, o, gates"),
        (lambda *a: (a[0],) * 4, "returned 4 values; expected output, h_n, c_n, or a dict"),
        (
            lambda *a: {"gates": a[0]},
            "gates: expected shape (7, 3, 16), those of i, f, g, o side by side; got (7, 3, 5)",
        ),
        (lambda *a: "no", "returned output as str 'no'; expected an array of floats"),
        (lambda x: x, "fn_forward raised TypeError"),
        (lambda *a: sys.exit(0), "fn_forward raised SystemExit: 0, at test_check_reference_calls.py:"),
        (lambda *a: 1 / 0, "fn_forward raised ZeroDivisionError: division by zero, at test_check_reference_calls.py:"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_the_shapes(forward: Any, message: str) -> None:
    report = reference(forward)
    assert not report.ok
    assert message in report.errors[0], report.errors
    assert "x (7, 3, 5), h_0 (3, 4), c_0 (3, 4)" in report.errors[0]
    assert len(report.errors) <= 4  # a message that has a shape in it comes once per shape
    assert report.errors[0].endswith("calls in all")
    assert "First to fail" not in str(report)  # there is nothing to measure
    assert "Errors are relative" not in str(report)
    with pytest.raises(AssertionError) as raised:
        report.raise_if_wrong()
    assert (raised.value.__cause__ is None) == ("raised" not in message)


def test_a_wrong_shape_is_told() -> None:
    report = reference(lambda *a: Own().forward(*a)["output"][:, :2])
    assert "expected shape (7, 3, 4), dtype float64; got shape (7, 2, 4)" in str(report.reports[0].failures[0])
    assert not report.ok
    assert named(report) == ["wrong shape"]
    assert "output: (7, 2, 4), expected (7, 3, 4)" in str(report)
    assert not any("output" in absent for absent in report.not_checked)  # it was returned


def test_results_in_another_order_are_told_by_their_shapes() -> None:
    own = Own()
    forward = lambda *a: [own.forward(*a)[q] for q in ("h_n", "c_n", "output")]  # noqa: E731
    report = reference(forward, lambda *a: tuple(own.backward(*a).values())[::-1])
    assert [(m.side, m.quantities) for m in report.mistakes if m.name == "wrong shape"] == [
        ("forward", ("output", "c_n")),
        ("backward", ("dx", "dh_0", "dc_0", "dweight_hh", "dbias_ih", "dbias_hh")),
    ]
    assert "axes in another order" not in named(report)  # which would fit the problem of one step
    assert "read as output, h_n, c_n;" in report.mistakes[0].wrong
    assert "output: (3, 4), expected (7, 3, 4); c_n: (7, 3, 4), expected (3, 4)." in report.mistakes[0].wrong
    # with one step both would have fitted: they are not judged by it
    judged = {q for m in report.mistakes if m.name != "wrong shape" for q in m.quantities}
    assert not {"output", "c_n"} & (judged | {*report.unexplained})
    assert "dx: (16,), expected (7, 3, 5);" in str(report.mistakes[-1])
    assert max(map(len, str(report).splitlines())) <= 80


def test_lists_are_arrays() -> None:
    names = ("output", "h_n", "c_n")
    nested = lambda *a: tuple(Own().forward(*a)[q].tolist() for q in names)  # noqa: E731
    steps = lambda *a: [list(Own().forward(*a)["output"]), *(Own().forward(*a)[q] for q in names[1:])]  # noqa: E731
    pair = lambda *a: (nested(*a)[0], nested(*a)[1:])  # noqa: E731
    two = lambda *a: nested(*a)[:2]  # noqa: E731
    for forward, rows in ((nested, 3), (steps, 3), (pair, 3), (two, 2)):
        report = reference(forward, dtypes=["float64"])
        assert report.ok, report
        assert len(report.reports[0].rows) == rows


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_another_dtype_is_told(dtype: str) -> None:
    report = reference(lambda *a: Own().forward(*a)["output"].astype(dtype), dtypes=["float32"])
    assert not report.ok
    assert named(report)[0] == f"{dtype} returned for float32"
    assert "made inside without a dtype" in str(report)


def test_the_errors_by_step_are_those_of_the_problem_that_is_named() -> None:
    def forward(x: Any, *rest: Any) -> Any:
        return {"output": Own().forward(x, *rest)["output"][:3, :2]}

    report = reference(forward, Own().backward)
    assert "First to fail: initial state zero, T=7 B=3 I=5 H=4, float64" in report.table
    assert len(report.by_step["dx"]) == 7


def test_backward_of_the_wrong_form() -> None:
    report = reference(Own().forward, lambda *a: (a[0],))
    assert "fn_backward returned a tuple of 1; expected a dict, or a tuple of dx, dh_0, dc_0" in report.errors[0]
    assert "d_output (7, 3, 4), d_h_n (3, 4), d_c_n (3, 4)" in report.errors[0]


def test_a_function_for_one_dtype() -> None:
    def forward(x: Any, *rest: Any) -> Any:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return Own().forward(x, *rest)

    report = reference(forward)
    assert report.ok
    assert report.not_checked[0].startswith("forward in float64: fn_forward raised TypeError: float32 only")
    assert not reference(forward, dtypes=["float64"]).ok


def test_arguments_of_the_check() -> None:
    with pytest.raises(ValueError, match="cell: expected one of 'lstm', 'rnn_tanh', 'rnn_relu'; got 'gru'"):
        reference(Own().forward, cell="gru")
    with pytest.raises(TypeError, match="fn_forward: expected a function; got None"):
        reference(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fn_backward: expected a function; got 3"):
        reference(Own().forward, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dtypes: expected float32 or float64; got float16"):
        reference(Own().forward, dtypes=["float16"])
    with pytest.raises(ValueError, match="dtypes: expected at least one"):
        reference(Own().forward, dtypes=[])


# --- the report, and pytest


def test_assert_matches_reference() -> None:
    assert_matches_reference(Own().forward, Own().backward)
    with pytest.raises(AssertionError, match="Mistake: backward: final-cell gradient dropped") as raised:
        assert_matches_reference(Own().forward, Own("backward: d_c_n dropped").backward, dtypes=["float64"])
    assert "dweight_hh" in str(raised.value)


def test_the_text_fits_a_terminal_and_says_where() -> None:
    own = Own("backward: mean over time")
    report = reference(own.forward, own.backward)
    assert max(map(len, str(report).splitlines())) <= 80
    assert "First to fail: initial state zero, T=7 B=3 I=5 H=4, float64" in report.table
    assert report.by_gate["dbias_ih"] == pytest.approx((6 / 7,) * 4, abs=0.9)
    assert len(report.by_step["dx"]) == 7
    assert report.to_dict()["mistakes"][0]["name"] == "averaged over time"


def test_a_report_can_be_repeated() -> None:
    own = Own("forget bias")
    texts = [str(reference(own.forward, own.backward, seed=seed)) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_right_numbers_do_not_excuse_a_changed_argument_or_a_kept_state() -> None:
    def forward(x: Any, *rest: Any) -> Any:
        values = Own().forward(x, *rest)
        x[...] = 0
        return values

    calls = []

    def backward(*args: Any) -> Any:
        calls.append(1)
        return {"dx": Own().backward(*args)["dx"] * (2 if len(calls) > 8 else 1)}

    report = reference(forward, backward, dtypes=["float64"])
    assert all(r.ok for r in report.reports)
    assert named(report) == ["arguments changed in place", "state kept between calls"]
    assert not report.ok
    assert "all right" not in str(report)
    with pytest.raises(AssertionError, match="writes to its own x"):
        report.raise_if_wrong()
