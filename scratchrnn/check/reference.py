"""A user's own recurrent net against the definition, with the likely mistake named.

    B batch   T time   I input   H hidden   G gates: 4 for the LSTM, 1 for the RNN

Truth is `scratchrnn.kernels.numpy` in float64, which the tests hold against torch and finite differences. The problems
are those of `problem.draw`; what is allowed is `problem.bounds`; the hypotheses are those of `mistakes.py`, `slopes.py`
and `slips.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scratchrnn import testing
from scratchrnn._validate import check_dtype, check_int
from scratchrnn.check.calls import CALL, Caller
from scratchrnn.check.compared import Asked, Compared, Standard
from scratchrnn.check.diagnose import Diagnosis, Finding, diagnose
from scratchrnn.check.problem import (
    BACKWARD,
    CELLS,
    FORWARD,
    Problem,
    draw,
    quantities,
)
from scratchrnn.check.report import CheckReport
from scratchrnn.check.verdict import ReferenceReport

DTYPES = ("float64", "float32")


def reference(
    fn_forward: Callable[..., Any],
    fn_backward: Callable[..., Any] | None = None,
    *,
    cell: str = "lstm",
    dtypes: Sequence[str] | None = None,
    seed: int = 0,
) -> ReferenceReport:
    """Compare an implementation of an LSTM or RNN, whatever it is written in, with the definition in float64.

    Parameters
    ----------
    fn_forward : callable
        `fn_forward(x, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh)`, by position, without `c_0` for an RNN. NumPy
        arrays: x (T, B, I), h_0 and c_0 (B, H), and weights as in torch: (4H, I), (4H, H), (4H,), (4H,) with rows in
        the order i, f, g, o, or with H rows for an RNN. It returns the output (T, B, H), or (output, h_n, c_n), or
        (output, (h_n, c_n)), or a dict with any of output, h_n, c_n, c (T, B, H), i, f, g, o (T, B, H), or gates
        (T, B, 4H). Anything that NumPy can read will do.
    fn_backward : callable, optional
        `fn_backward(x, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh, d_output, d_h_n, d_c_n)`, by position, without
        `c_0` and `d_c_n` for an RNN. It returns a dict with any of dx, dh_0, dc_0, dweight_ih, dweight_hh, dbias_ih,
        dbias_hh, or a tuple of all in this order: the gradients of <d_output, output> + <d_h_n, h_n> + <d_c_n, c_n>.
        A cotangent that is absent comes as zeros.
    cell : "lstm", "rnn_tanh" or "rnn_relu"
    dtypes : sequence of str, optional
        When absent, float64 and float32; one that the function always raises with is then not checked, and said so.
    seed : int
        Of all numbers.

    Returns
    -------
    ReferenceReport
        True in `ok` if everything returned is right; `print` it for the table and the mistakes; `raise_if_wrong()`.
        What was not returned is in `not_checked`.

    Raises
    ------
    TypeError, ValueError
        An argument of this function. What the user's functions raise is in the report.

    Examples
    --------
    An RNN that forgets one of its two biases:

    >>> import numpy as np
    >>> def forward(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    ...     output = []
    ...     for x_t in x:
    ...         h = np.tanh(x_t @ weight_ih.T + h @ weight_hh.T + bias_ih)
    ...         output.append(h)
    ...     return np.stack(output)
    >>> report = reference(forward, cell="rnn_tanh")
    >>> report.ok, [mistake.name for mistake in report.mistakes]
    (False, ['missing bias_hh'])
    """
    if cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(map(repr, CELLS))}; got {cell!r}")
    for name, fn in (("fn_forward", fn_forward), ("fn_backward", fn_backward)):
        if not callable(fn) and (name == "fn_forward" or fn is not None):
            raise TypeError(f"{name}: expected a function; got {fn!r}")
    wanted = DTYPES if dtypes is None else tuple(check_dtype("dtypes", dtype).name for dtype in dtypes)
    if not wanted:
        raise ValueError("dtypes: expected at least one; got none")
    problems = draw(cell, check_int("seed", seed, least=0))
    standards = {dtype: Standard.of(dtype, problems) for dtype in dict.fromkeys((*wanted, "float32"))}

    sides = [Asked("forward", Caller("fn_forward", fn_forward, cell, FORWARD), quantities(cell, FORWARD))]
    if fn_backward is not None:
        sides.append(Asked("backward", Caller("fn_backward", fn_backward, cell, BACKWARD), quantities(cell, BACKWARD)))
    runs = [Compared.of(side, dtype, standards) for dtype in wanted for side in sides]
    left_out = [] if dtypes is not None else _not_taken(runs)
    not_checked = [f"{r.asked.side} in {r.dtype}: {r.errors[0]}" for r in left_out]
    runs = [r for r in runs if r not in left_out]
    if fn_backward is None:
        not_checked.append("backward: no function given")
    for side in sides:
        own = [r for r in runs if r.asked is side]
        given = {q for r in own for a in r.answers if a is not None for q in (*a.values, *a.misfits)}
        absent = [q for q in side.names if q not in given]
        if absent and any(r.returned for r in own):
            not_checked.append(f"{', '.join(absent)}: not returned by {side.caller.name}")

    mistakes, unexplained = _named(cell, runs)
    by_step, by_gate = _spread(runs)
    return ReferenceReport(
        cell, tuple(_reports(runs, problems, wanted)), mistakes, unexplained, tuple(not_checked),
        _once([error for r in runs for error in r.errors]), by_step, by_gate,
        next((r.exception for r in runs if r.exception is not None), None),
    )  # fmt: skip


def _not_taken(runs: list[Compared]) -> list[Compared]:
    """Where a function raises at every call in a dtype, and not in the other."""
    return [
        r for r in runs
        if not r.returned and any(o.asked is r.asked and o.returned for o in runs)
    ]  # fmt: skip


def _once(errors: list[str]) -> tuple[str, ...]:
    """Each complaint with the first call that met it, and how many more did."""
    calls: dict[str, list[str]] = {}
    for error in errors:
        calls.setdefault(error.partition(CALL)[0], []).append(error)
    return tuple(met[0] + (f"; {len(met)} calls in all" if len(met) > 1 else "") for met in calls.values())


def _reports(runs: list[Compared], problems: Sequence[Problem], dtypes: Sequence[str]) -> list[CheckReport]:
    found = []
    for dtype in dtypes:
        for k, p in enumerate(problems):
            own = [r for r in runs if r.dtype == dtype]
            rows = tuple(row for r in own for row in r.rows(k))
            names = ", ".join(r.asked.caller.name for r in own)
            found.append(CheckReport(names, dtype, "the user's", f"{p.title}, {_sizes(p)}", rows))
    return [report for report in found if report.rows]


def _spread(runs: list[Compared]) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """Of both functions, in the first problem that fails."""
    failed = [(r.first_wrong, r.dtype) for r in runs if r.first_wrong is not None]
    by_step: dict[str, tuple[float, ...]] = {}
    by_gate: dict[str, tuple[float, ...]] = {}
    if failed:
        dtype = failed[0][1]
        k = min(first for first, other in failed if other == dtype)
        for r in runs:
            steps, gates = r.spread(k) if r.dtype == dtype else ({}, {})
            by_step, by_gate = by_step | steps, by_gate | gates
    return by_step, by_gate


def _sizes(p: Problem) -> str:
    steps, batch, inputs = p.x.shape
    return f"T={steps} B={batch} I={inputs} H={p.h_0.shape[1]}"


def _named(cell: str, runs: list[Compared]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Mistakes of forward, then those of backward in the light of them, in the first dtype that was taken."""
    findings: dict[tuple[str, str], Finding] = {}
    unexplained: dict[str, None] = {}
    known: dict[str, Diagnosis] = {}
    for r in runs:
        name, side = r.asked.side, r.side()
        seen = list(_seen(r))
        if any(side.got) and name not in known and not _remembers(r):
            plants = known["forward"].plants if name == "backward" and "forward" in known else ()
            diagnosis = diagnose(cell, side, plants)
            if diagnosis != Diagnosis():
                known[name] = diagnosis
            seen += diagnosis.findings
            unexplained |= dict.fromkeys(diagnosis.unexplained)
            if diagnosis.follows:
                findings |= {
                    key: replace(finding, quantities=(*finding.quantities, *diagnosis.follows))
                    for key, finding in findings.items() if key[0] == "forward"
                }  # fmt: skip
        for finding in seen:
            findings.setdefault((finding.side, finding.name), finding)
    return tuple(findings.values()), tuple(unexplained)


def _seen(r: Compared) -> list[Finding]:
    """What needs no hypothesis: the form of what came back, and what a call leaves behind."""
    side, name = r.asked.side, r.asked.caller.name
    answers = [a for a in r.answers if a is not None and not a.error]
    found = []
    dtypes: dict[str, dict[str, None]] = {}
    for q, dtype in ((q, dtype) for a in answers for q, dtype in a.dtypes.items()):
        dtypes.setdefault(dtype, {})[q] = None
    for dtype, names in dtypes.items():
        found.append(Finding(
            f"{dtype} returned for {r.dtype}", f"{r.dtype} arrays go in and {dtype} comes out: {_of_dtype(dtype)}",
            side, tuple(names), math.nan,
        ))  # fmt: skip
    misshapen = r.misshapen
    turned = {q: shapes for a in answers for q, shapes in a.turned.items() if q not in misshapen}
    if turned:
        found.append(Finding(
            "axes in another order", f"Transpose or squeeze what is returned ({_shapes(turned)}).", side, tuple(turned),
            math.nan,
        ))  # fmt: skip
    if misshapen:
        order = ", ".join(quantities(r.asked.caller.cell, FORWARD[:3] if side == "forward" else BACKWARD))
        found.append(Finding(
            "wrong shape", f"{_shapes(misshapen)}. What comes in a tuple is read as {order}; a dict has names.",
            side, tuple(misshapen), math.nan,
        ))  # fmt: skip
    broken = tuple(dict.fromkeys(q for a in answers for q, v in a.values.items() if not np.isfinite(v).all()))
    if broken:
        found.append(Finding(
            "NaN or infinity", "Finite numbers go in. Look for memory that is not written, exp that overflows, 0/0.",
            side, broken, math.inf,
        ))  # fmt: skip
    changed = tuple(dict.fromkeys(argument for a in answers for argument in a.changed))
    if changed:
        found.append(Finding(
            "arguments changed in place", f"{name} writes to its own {', '.join(changed)}. Copy before writing.",
            side, (), math.nan,
        ))  # fmt: skip
    if _remembers(r):
        found.append(Finding(
            "state kept between calls",
            f"The same call of {name} gives other numbers the second time. Start every call from its arguments.",
            side, (), math.nan,
        ))  # fmt: skip
    return found


def _of_dtype(dtype: str) -> str:
    """What it means that numbers come back in a dtype that is not that of the arguments."""
    if dtype == "float32":
        return (
            "half of the digits are lost on the way. Keep the inputs' dtype (in JAX: jax_enable_x64), or check float32 "
            'alone with dtypes=["float32"].'
        )
    return "look for an array made inside without a dtype, and make it in the inputs' dtype."


def _shapes(found: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{q}: {shape}, expected {wanted}" for q, (shape, wanted) in found.items())


def _remembers(r: Compared) -> bool:
    first, again = r.answers[0], r.again
    if first is None or first.error or again.error:
        return False
    pairs = [(q, v, again.values[q]) for q, v in first.values.items() if q in again.values]
    return any(
        np.isfinite(a).all() and not testing.difference(b, a).ratio <= r.standard.allowed[0][q] for q, a, b in pairs
    )
