"""Calling a user's function: fresh arguments in, arrays by name out, its exceptions told apart from ours."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.check.problem import GATES, Problem, Values, quantities

CALL = "; called with "  # between what went wrong and the shapes


@dataclass(frozen=True, eq=False)
class Answer:
    """What one call gave."""

    values: Values = field(default_factory=dict)  # in float64, of the right shape
    misfits: dict[str, str] = field(default_factory=dict)  # by result: what is wrong with its form
    turned: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # whose axes had to be put in order: both shapes
    misshapen: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # whose shape no such order gives: both shapes
    dtypes: dict[str, str] = field(default_factory=dict)  # where it is not that of the arguments
    changed: tuple[str, ...] = ()  # arguments written to
    error: str = ""  # nothing could be compared, and why
    exception: BaseException | None = None


class _MisreadError(Exception):
    """What came back is not of a form that can be read."""


@dataclass(frozen=True, eq=False)
class Caller:
    """A user's function."""

    name: str  # fn_forward or fn_backward
    fn: Callable[..., Any]
    cell: str
    order: tuple[str, ...]  # of what it returns, all cells taken together

    def __call__(self, p: Problem, truth: Values, backward: bool) -> Answer:
        """Call it with copies, and read what it returns."""
        given = p.arguments | (p.cotangents if backward else {})
        copies = {name: array.copy() for name, array in given.items()}
        shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
        call = f"{CALL}{p.x.dtype} {shapes}"
        try:
            returned = self.fn(*copies.values())
        except (Exception, SystemExit) as error:  # noqa: BLE001 theirs, whatever it is
            text = f"{self.name} raised {type(error).__name__}: {' '.join(str(error).split())}{_place(error)}{call}"
            return Answer(error=text, exception=error)
        changed = tuple(n for n, array in given.items() if not np.array_equal(array, copies[n]))
        try:
            named = self._named(returned, p)
            if not named:
                raise _MisreadError("returned nothing to compare")
            return self._read(named, p, truth, changed)
        except _MisreadError as error:
            return Answer(error=f"{self.name} {error}{call}")

    def _named(self, returned: Any, p: Problem) -> dict[str, Any]:
        known = quantities(self.cell, self.order)
        if isinstance(returned, Mapping):
            return self._from_mapping(returned, known, p)
        if self.name == "fn_forward":
            slots = quantities(self.cell, ("output", "h_n", "c_n"))
            parts = _parts(returned, len(slots)) if isinstance(returned, (tuple, list)) else [returned]
            if len(parts) > len(slots):
                raise _MisreadError(f"returned {len(parts)} values; expected {', '.join(slots)}, or a dict")
            return {name: part for name, part in zip(slots, parts, strict=False) if part is not None}
        if not isinstance(returned, (tuple, list)) or len(returned) != len(known):
            raise _MisreadError(f"returned {_kind(returned)}; expected a dict, or a tuple of {', '.join(known)}")
        return {name: part for name, part in zip(known, returned, strict=True) if part is not None}

    def _from_mapping(self, returned: Mapping[Any, Any], known: tuple[str, ...], p: Problem) -> dict[str, Any]:
        named = {name: value for name, value in returned.items() if value is not None}
        if "gates" in named and "i" in known:
            gates = _array("gates", named.pop("gates"))
            shape = (*p.x.shape[:2], 4 * p.h_0.shape[1])
            if gates.shape != shape:
                raise _MisreadError(
                    f"gates: expected shape {shape}, those of i, f, g, o side by side; got {gates.shape}"
                )
            named |= dict(zip(GATES, np.split(gates, 4, axis=-1), strict=True))
        unknown = [str(name) for name in named if name not in known]
        if unknown:
            also = ", gates" if "i" in known else ""
            raise _MisreadError(f"returned {', '.join(unknown)}; expected any of {', '.join(known)}{also}")
        return named

    def _read(self, named: dict[str, Any], p: Problem, truth: Values, changed: tuple[str, ...]) -> Answer:
        values: Values = {}
        misfits: dict[str, str] = {}
        turned: dict[str, tuple[Any, Any]] = {}
        misshapen: dict[str, tuple[Any, Any]] = {}
        dtypes: dict[str, str] = {}
        for q, value in named.items():
            array, want = _array(q, value), truth[q].shape
            if array.shape != want or array.dtype != p.x.dtype:
                misfits[q] = f"expected shape {want}, dtype {p.x.dtype}; got shape {array.shape}, dtype {array.dtype}"
            if array.dtype != p.x.dtype:
                dtypes[q] = array.dtype.name
            if array.shape != want:
                fitting = _in_order(array, truth[q])
                if fitting is None:
                    misshapen[q] = array.shape, want
                    continue
                turned[q], array = (array.shape, want), fitting
            values[q] = array.astype(np.float64)
        return Answer(values, misfits, turned, misshapen, dtypes, changed)


def _array(q: str, value: Any) -> FloatArray:
    """As NumPy has it; a torch tensor without its graph."""
    try:
        value = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(value)
    except Exception as error:  # noqa: BLE001 of the user's own array type
        raise _MisreadError(f"returned {q} as {_kind(value)}, which NumPy cannot read: {error}") from None
    if array.dtype.kind not in "fiub":
        raise _MisreadError(f"returned {q} as {_kind(value)}; expected an array of floats")
    return array


def _parts(returned: Any, slots: int) -> list[Any]:
    """(output, (h_n, c_n)) as (output, h_n, c_n); a list in another place is an array of lists, or of steps."""
    if len(returned) == 2 and isinstance(returned[1], (tuple, list)) and len(returned[1]) == slots - 1:
        return [returned[0], *returned[1]]
    return list(returned)


def _in_order(array: FloatArray, want: FloatArray) -> FloatArray | None:
    """The axes turned, those of length 1 left away, so that the shape is that of `want`: the order nearest to it."""
    bare = array.squeeze() if array.ndim > want.ndim else array
    if bare.ndim != want.ndim:
        bare = bare.reshape(want.shape) if bare.size == want.size and 1 in want.shape else bare
    turned = [bare.transpose(axes) for axes in permutations(range(bare.ndim))]
    fitting = [a for a in turned if a.shape == want.shape]
    return min(fitting, key=lambda a: float(np.abs(a - want).max(initial=0)), default=None)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else describe(value)


def _place(error: BaseException) -> str:
    """Where the user's file raised: the last line in the file of the function that was called."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if frame.filename == frames[0].filename] if frames else []
    return f", at {Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""
