"""A text laid out as parallel rows, so that a state may be carried from window to window.

    row length R = (N - 1) // B;   row b reads characters b·R, b·R + 1, ...;   its target is always the next character
    window w holds steps w·T ... (w+1)·T - 1 of every row: inputs and targets are (T, B), time-major

Row b of window w+1 goes on exactly where row b of window w stopped. The last part of a row that fills no window is
dropped; `Stream.dropped` says how much that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import IntArray
from scratchrnn._validate import check_positive_int


@dataclass(frozen=True, eq=False)
class Window:
    """T steps of B parallel streams.

    Attributes
    ----------
    inputs, targets : ndarray (T, B) of int
        Codes; `targets[t, b]` is the character after `inputs[t, b]`.
    starts : bool
        Whether the rows begin here, so that no earlier state belongs to them.
    """

    inputs: IntArray
    targets: IntArray
    starts: bool


class Stream:
    """A text as B rows read in parallel, cut into windows of T steps that continue one another.

    Parameters
    ----------
    codes : ndarray (N,) of int
    batch : int
        B rows.
    steps : int
        T steps in each window.

    Attributes
    ----------
    inputs, targets : ndarray (R, B)
        The rows in whole, time-major.
    windows_per_epoch : int
    dropped : int
        Characters at the end that no window predicts.

    Raises
    ------
    ValueError
        The text does not fill one window.

    Examples
    --------
    >>> stream = Stream(np.arange(12), batch=2, steps=2)
    >>> [window.inputs.T.tolist() for window in stream.epoch()], stream.dropped
    ([[[0, 1], [5, 6]], [[2, 3], [7, 8]]], 3)
    """

    def __init__(self, codes: IntArray, batch: int, steps: int) -> None:
        self.batch, self.steps = check_positive_int("batch", batch), check_positive_int("steps", steps)
        rows = (len(codes) - 1) // batch
        if rows < steps:
            raise ValueError(
                f"text: expected at least {batch * steps + 1} characters for {batch} rows and windows of "
                f"{steps} steps; got {len(codes)}"
            )
        self.inputs: IntArray = np.ascontiguousarray(codes[: batch * rows].reshape(batch, rows).T)
        self.targets: IntArray = np.ascontiguousarray(codes[1 : batch * rows + 1].reshape(batch, rows).T)
        self.windows_per_epoch = rows // steps
        self.dropped = len(codes) - 1 - batch * steps * self.windows_per_epoch

    def epoch(self) -> Iterator[Window]:
        """All windows once, in order."""
        for w in range(self.windows_per_epoch):
            part = slice(w * self.steps, (w + 1) * self.steps)
            yield Window(self.inputs[part], self.targets[part], starts=w == 0)

    def forever(self) -> Iterator[Window]:
        """Epoch after epoch; the first window of each says `starts`."""
        while True:
            yield from self.epoch()
