"""How a caller of torch lays out a sequence, and as (T, B, ·): views where they can be.

    B batch   T time   N any width   S = Σ lengths, rows of a PackedSequence

A PackedSequence holds step 0 of all its sequences, the longest first, then step 1 of those that have one, and so on.
(t, b) says where each of its S rows stands in (T, B, N), with the samples in the caller's own order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.backends import memory
from scratchrnn.layers import edge


@dataclass(frozen=True, eq=False)
class Padded:
    """All sequences of one length: (T, B, N), or (B, T, N) with `batch_first`, or (T, N) without a batch."""

    batch_first: bool
    batched: bool

    def enter(self, array: FloatArray) -> FloatArray:
        """The caller's array as (T, B, N), a view."""
        return edge.time_major(array, batch_first=self.batch_first, batched=self.batched)

    def leave(self, array: FloatArray) -> FloatArray:  # (T, B, N)
        """An array in the caller's layout, a view."""
        return edge.leave_output(array, batch_first=self.batch_first, batched=self.batched)

    def show(self, array: FloatArray) -> FloatArray:  # (T, B, N)
        """An array as a trace hands it out: in the caller's layout."""
        return self.leave(array)

    def drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:  # (T, B, N)
        """Shape in which torch draws a mask for (T, B, N)."""
        return shape

    def spread(self, mask: FloatArray) -> FloatArray:
        """A mask as drawn, as (T, B, N)."""
        return mask

    def lengths(self, shape: tuple[int, ...]) -> IntArray:  # (T, B, N)
        """Steps of each sequence."""
        return np.full(shape[1], shape[0], np.int64)


@dataclass(frozen=True, eq=False)
class Packed:
    """The data of a PackedSequence, (S, N)."""

    t: IntArray  # (S,)
    b: IntArray  # (S,)
    ns: IntArray  # (B,)

    batch_first = False
    batched = True

    @classmethod
    def of(cls, rows: int, batch_sizes: NDArray[Any], sorted_indices: NDArray[Any] | None) -> Packed:
        """Read a PackedSequence's own description; `rows` is S.

        Raises
        ------
        RuntimeError
            The three do not fit, as they may in one made by hand.
        """
        sizes = batch_sizes.tolist()
        if batch_sizes.dtype != np.int64 or sorted(sizes, reverse=True) != sizes or sizes[-1] < 0 or sum(sizes) != rows:
            raise RuntimeError(
                f"input.batch_sizes: expected int64, never rising, with the sum {rows}, rows of input.data; "
                f"got {batch_sizes.dtype} {sizes}"
            )
        batch = sizes[0]
        if sorted_indices is not None:
            order = sorted_indices.tolist()
            if sorted_indices.dtype.kind != "i" or sorted(order) != list(range(batch)):
                raise RuntimeError(f"input.sorted_indices: expected each integer of 0 to {batch - 1} once; got {order}")
        t, place = np.nonzero(np.arange(batch) < batch_sizes[:, None])  # of the longest-first order
        b = place if sorted_indices is None else sorted_indices.astype(np.int64)[place]
        return cls(t, b, np.bincount(b, minlength=batch).astype(np.int64))

    def enter(self, data: FloatArray) -> FloatArray:
        """As (T, B, N), zero on padding."""
        padded = memory.zeros((int(self.t[-1]) + 1, len(self.ns), data.shape[1]), data.dtype)
        padded[self.t, self.b] = data
        return padded

    def leave(self, array: FloatArray) -> FloatArray:  # (T, B, N)
        """The rows that are no padding, (S, N)."""
        rows: FloatArray = array[self.t, self.b]
        return rows

    def show(self, array: FloatArray) -> FloatArray:  # (T, B, N)
        """An array as a trace hands it out, which packs nothing."""
        return array

    def drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape in which torch draws a mask for (T, B, N)."""
        return len(self.t), shape[2]

    def spread(self, mask: FloatArray) -> FloatArray:
        """A mask as drawn, as (T, B, N)."""
        return self.enter(mask)

    def lengths(self, shape: tuple[int, ...]) -> IntArray:
        """Steps of each sequence."""
        return self.ns


Layout = Padded | Packed


def draw_mask(torch: Any, layout: Layout, shape: tuple[int, ...], p: float, dtype: Any) -> FloatArray:  # (T, B, N)
    """A dropout mask of zeros and 1/(1-p) by torch's generator: number for number the one that torch.nn would draw."""
    if p == 1.0:
        return np.zeros(shape, dtype)
    drawn = torch.empty(layout.drawn(shape), dtype=getattr(torch, np.dtype(dtype).name))
    return layout.spread(drawn.bernoulli_(1 - p).div_(1 - p).numpy())
