"""Loops over units in the compiled kernels are vector loops, in numbers of the arrays' own size."""

from __future__ import annotations

import re
from typing import Any

import numba
import numpy as np
import pytest

from scratchrnn.kernels.cpu import lstm_loops, lstm_tangent_loops, rnn_loops, rnn_tangent_loops
from scratchrnn.kernels.cpu.jit import OPTIONS

ROW = np.zeros(64)
FUNCTIONS: list[tuple[Any, list[Any], int]] = [  # with its arguments, and how many loops it has
    (lstm_loops.step_forward, [ROW, ROW, 16, ROW, ROW, ROW], 2),
    (lstm_loops.step_backward, [ROW, ROW, ROW, 16, ROW, ROW, ROW, ROW], 2),
    (lstm_tangent_loops.step_forward, [ROW, ROW, 16, *[ROW] * 5], 2),
    (lstm_tangent_loops.output_again, [ROW] * 3, 1),
    (lstm_tangent_loops.step_backward, [*[ROW] * 7, 16, *[ROW] * 6], 3),
    (rnn_loops.step_forward, [ROW, ROW, True], 2),
    (rnn_loops.step_backward, [ROW, ROW, ROW, True], 2),
    (rnn_tangent_loops.step_forward, [ROW, ROW, ROW, True], 2),
    (rnn_tangent_loops.step_backward, [*[ROW] * 5, True], 2),
]


def name(case: tuple[Any, list[Any], int]) -> str:
    return f"{case[0].__module__.split('.')[-1]}.{case[0].__name__}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "case", FUNCTIONS, ids=lambda case: f"{case[0].__module__.rpartition('.')[2]}.{case[0].__name__}"
)
def test_every_loop_is_a_vector_loop(case: tuple[Any, list[Any], int], dtype: Any) -> None:
    function, arguments, loops = case
    signature = tuple(numba.typeof(a.astype(dtype) if a is ROW else a) for a in arguments)
    compiled = numba.njit(**OPTIONS)(function.py_func)
    compiled.compile(signature)
    code = compiled.inspect_llvm(signature)
    assert len(re.findall(r"^vector\.body\S*:", code, re.MULTILINE)) == loops
    number, other = ("float", "double") if dtype == np.float32 else ("double", "float")
    assert re.search(rf"<\d+ x {number}>", code)  # how wide is LLVM's choice
    assert f" x {other}>" not in code
    assert not re.search(rf"f(add|sub|mul) {other}", code), "computed in another precision"
