"""Rows of time steps cut into pieces where a sample's state is set anew.

A reset mask (T, B) is True at (t, b) where sample b begins something new at step t: its state before that step is the
initial one, whatever came before. To the layer each piece is a sequence of its own, with its own length, beside the
others in a batch of N ≥ B pieces; nothing flows from one to the next because nothing connects them, forwards or back.

    row b    ────────╂───────        pieces   b   ────────
                     reset                    n   ───────       N pieces, T' steps of the longest
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import BoolArray

Array = TypeVar("Array", bound=NDArray[Any])


class Pieces:
    """How B rows of T steps fall into N pieces; piece b is the first one of row b.

    Parameters
    ----------
    reset : ndarray (T, B) of bool
        Where a new piece begins.

    Attributes
    ----------
    row, start, length : ndarray (N,) of int
        Where each piece lies.
    begins : ndarray (N,) of bool
        Whether it starts from the initial state; only the first piece of a row may go on from another.
    last : ndarray (B,) of int
        The last piece of each row.
    whole : bool
        Whether every row is one piece.

    Examples
    --------
    >>> pieces = Pieces(np.array([[False, True], [True, False], [False, False]]))
    >>> pieces.row.tolist(), pieces.start.tolist(), pieces.length.tolist(), pieces.begins.tolist()
    ([0, 1, 0], [0, 0, 1], [1, 3, 2], [False, True, True])
    >>> pieces.unfold(np.array([[1, 4], [2, 5], [3, 6]])).T.tolist()  # what lies beyond a length means nothing
    [[1, 2, 3], [4, 5, 6], [2, 3, 3]]
    """

    def __init__(self, reset: BoolArray) -> None:
        self.steps, self.batch = reset.shape
        self.whole = not reset[1:].any()
        if self.whole:
            self.row = self.last = np.arange(self.batch)
            self.start, self.length = np.zeros(self.batch, np.intp), np.full(self.batch, self.steps)
            self.begins: BoolArray = reset[0].copy()
            return
        cuts = reset.copy()
        cuts[0] = True
        row, start = np.nonzero(cuts.T)  # by row, then by time
        ends_row = np.diff(row, append=self.batch) != 0
        stop = np.where(ends_row, self.steps, np.roll(start, -1))
        order = np.argsort(start > 0, kind="stable")  # first pieces stand first
        place = np.argsort(order)
        self.row, self.start, self.length = row[order], start[order], (stop - start)[order]
        self.begins = reset[self.start, self.row]
        self.last = place[np.flatnonzero(ends_row)]
        self._piece = place[np.cumsum(cuts.T.ravel()) - 1].reshape(self.batch, self.steps).T  # (T, B)

    def unfold(self, array: Array) -> Array:
        """From rows (T, B, ...) to pieces (T', N, ...); the array itself where every row is one piece."""
        if self.whole:
            return array
        t = self.start + np.arange(self.length.max())[:, None]
        return array[np.minimum(t, self.steps - 1), self.row]

    def fold(self, array: Array) -> Array:
        """From pieces (T', N, ...) to rows (T, B, ...); the array itself where every row is one piece."""
        if self.whole:
            return array
        return array[np.arange(self.steps)[:, None] - self.start[self._piece], self._piece]

    def at(self, step: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """For each row the piece that step `step` belongs to, and its number within that piece."""
        piece = self.row if self.whole else self._piece[step]
        return piece, step - self.start[piece]
