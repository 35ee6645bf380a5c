"""A sequence laid out as parallel rows that each continue through time, so that a state may be carried.

    row length R = (N - 1) // B where the target is the next item,  R = N // B where targets are given
    row b reads items b·R, b·R + 1, ..., (b + 1)·R - 1;   inputs[t, b] = item b·R + t
    window w holds steps w·T, ..., (w + 1)·T - 1 of every row, the last window what is left

Row b of window w + 1 goes on exactly where row b of window w stopped.

Dimensions: N items, B rows, R steps of a row, T steps of a window, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import check_array, check_positive_int, describe

IGNORED = -100  # the ignore_index of losses.cross_entropy, as in torch


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive steps of all rows, as views into them.

    Attributes
    ----------
    inputs, targets : ndarray (T, B, ...)
    reset : ndarray (T, B) of bool
        True where the item read begins a document: the state before that step belongs to another one.
    start : int
        Step of the rows at which the window begins; 0 where no state comes before.
    """

    inputs: IntArray | FloatArray
    targets: IntArray | FloatArray
    reset: BoolArray
    start: int


class ContiguousRows:
    """A sequence of N items as B rows read in parallel, each of which continues through time.

    Parameters
    ----------
    inputs : ndarray (N,) of int, or (N, I) of float32 or float64
        Codes, or real-valued items.
    targets : ndarray (N,) of int, or (N, O) of the inputs' dtype (of either float dtype for codes), optional
        One for each item. When absent, the inputs must be codes, and the target of each is the next one.
    batch : int
        B rows.
    documents : sequence of int, or ndarray (K,) of int, optional
        Where documents begin among the N items, strictly increasing. Item 0 begins one whether it is named or not.
        Without given targets the last item of a document has target -100, which `losses.cross_entropy` ignores: the
        item after it belongs to another document. Given targets stay as they are.

    Attributes
    ----------
    inputs, targets : ndarray (R, B, ...)
        The rows in whole, time-major, in C order. Targets that may hold -100 are int64, since codes may be unsigned;
        everything else keeps its dtype.
    reset : ndarray (R, B) of bool
        True where the item read begins a document, so that no state may be carried into that step. Step 0 of a row
        is no exception: it is True where a document happens to begin there, and without `documents` nothing is True.
        Every row starts from the initial state anyway, which `Window.start` says.
    batch, steps : int
        B and R.
    dropped : int
        Items at the end that no row reads or predicts, fewer than B.

    Raises
    ------
    TypeError
        An array of another kind, real-valued inputs without targets, or documents that are no integers.
    ValueError
        A wrong shape, documents out of order or range, or too few items for one step of each row.

    Notes
    -----
    The last step of row b predicts the first item of row b + 1: no target is lost at the end of a row. The first
    item of the sequence is never predicted, and without given targets the last one that is used is never read.

    Examples
    --------
    >>> rows = ContiguousRows(np.arange(12), batch=2, documents=[0, 3])
    >>> rows.steps, rows.dropped
    (5, 1)
    >>> for window in rows.windows(3):
    ...     print(window.start, window.inputs.T.tolist(), window.targets.T.tolist(), window.reset[:, 0].tolist())
    0 [[0, 1, 2], [5, 6, 7]] [[1, 2, -100], [6, 7, 8]] [True, False, False]
    3 [[3, 4], [8, 9]] [[4, 5], [9, 10]] [True, False]
    """

    def __init__(
        self,
        inputs: IntArray | FloatArray,
        targets: IntArray | FloatArray | None = None,
        *,
        batch: int,
        documents: Sequence[int] | IntArray | None = None,
    ) -> None:
        self.batch = check_positive_int("batch", batch)
        _check_items("inputs", inputs)
        count = len(inputs)
        if targets is not None:
            _check_targets(targets, inputs)
        elif inputs.dtype.kind == "f":
            raise TypeError(
                "targets: expected an array for real-valued inputs; got None "
                "(to predict the next item give series[:-1] and series[1:])"
            )
        begins = np.zeros(count, np.bool_)  # (N,)
        if documents is not None:
            begins[0:1] = True
            begins[_check_documents(documents, count)] = True

        usable = count if targets is not None else count - 1  # items that have a target
        if usable < self.batch:
            after = "" if targets is not None else " and one after them to predict"
            raise ValueError(f"inputs: expected at least one item for each of {batch} rows{after}; got {count}")
        self.steps = usable // self.batch
        self.dropped = usable - self.batch * self.steps
        self.inputs: IntArray | FloatArray = self._lay_out(inputs)
        self.targets: IntArray | FloatArray = self._lay_out(_next_items(inputs, begins) if targets is None else targets)
        self.reset: BoolArray = self._lay_out(begins)

    def _lay_out(self, items: Any) -> Any:
        """Items (N, ...) as rows (R, B, ...), a copy."""
        rows = items[: self.batch * self.steps].reshape(self.batch, self.steps, *items.shape[1:])
        return rows.swapaxes(0, 1).copy(order="C")  # also of one row or one step, where nothing moves

    def __repr__(self) -> str:
        return f"ContiguousRows(batch={self.batch}, steps={self.steps}, dropped={self.dropped})"

    def windows(self, steps: int) -> Iterator[Window]:
        """All windows once, in order, each of `steps` steps but the last, which holds what is left.

        Parameters
        ----------
        steps : int
            T. More than there are gives one window.

        Returns
        -------
        iterator of Window
        """
        size = check_positive_int("steps", steps)
        parts = (slice(start, start + size) for start in range(0, self.steps, size))
        return (Window(self.inputs[at], self.targets[at], self.reset[at], at.start) for at in parts)


def _next_items(codes: Any, begins: BoolArray) -> IntArray:
    """The item after each but the last (N - 1,); where that one begins a document, IGNORED."""
    following: IntArray = codes[1:]
    if begins.any():
        following = following.astype(np.int64)
        following[begins[1:]] = IGNORED
    return following


def _check_items(name: str, value: Any) -> None:
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray) or value.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected an array of codes (N,) or real-valued items (N, ·); got {describe(value)}")
    if value.dtype.kind == "f":
        check_array(name, value)
    axes = 2 if value.dtype.kind == "f" else 1
    if value.ndim != axes:
        shape = "(N, ·) for real-valued items" if axes == 2 else "(N,) for codes"
        raise ValueError(f"{name}: expected shape {shape}; got {value.shape}")


def _check_targets(targets: Any, inputs: Any) -> None:
    _check_items("targets", targets)
    if len(targets) != len(inputs):
        raise ValueError(f"targets: expected one for each of {len(inputs)} inputs; got {len(targets)}")
    if inputs.dtype.kind == targets.dtype.kind == "f":
        check_array("targets", targets, dtype=inputs.dtype)


def _check_documents(documents: Any, count: int) -> IntArray:
    """Return the offsets (K,) as an array, strictly increasing within the N items."""
    listed = isinstance(documents, Sequence) and all(
        isinstance(start, Integral) and not isinstance(start, bool) for start in documents
    )
    offsets: Any = documents
    if listed:
        offsets = np.array(documents) if len(documents) else np.zeros(0, np.int64)
    plain = isinstance(offsets, np.ndarray) and not isinstance(offsets, np.ma.MaskedArray)
    if not plain or offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise TypeError(f"documents: expected integers, where documents begin; got {describe(documents)}")
    outside = np.flatnonzero((offsets < 0) | (offsets >= count))
    if outside.size:
        at = int(outside[0])
        raise ValueError(f"documents: expected offsets from 0 to {count - 1}; got {offsets[at]} at position {at}")
    disordered = np.flatnonzero(offsets[1:] <= offsets[:-1])
    if disordered.size:
        at = int(disordered[0])
        raise ValueError(
            f"documents: expected strictly increasing offsets; got {offsets[at + 1]} after {offsets[at]} "
            f"at position {at + 1}"
        )
    return offsets
