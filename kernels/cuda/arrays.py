"""What layers do with arrays between the kernels, on the device: `kernels/arrays.py`, operation by operation.

    B batch   T time   N any width

Lengths and masks of steps are NumPy's here too. Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np

from . import sums
from .call import Call
from .pointwise import launch
from .pointwise_arrays import add_at_slots, at_slots, keep_samples, move_columns, multiply, reverse, swap
from .queue import DeviceArray

Shape = tuple[int, ...]
HostArray = np.ndarray[Any, Any]


class Arrays(AbstractContextManager["Arrays"]):
    """The operations, on the stream of the caller's array `lead`. Backend calls within the block are on it too."""

    on_device = True

    def __init__(self, lead: Any) -> None:
        self._call = Call(lead)
        self._lengths: tuple[HostArray, DeviceArray] | None = None

    def __enter__(self) -> Arrays:
        self.queue = self._call.__enter__().queue
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call.__exit__(kind, error, traceback)

    # Memory

    def empty(self, shape: Shape, dtype: Any) -> DeviceArray:
        """A new array, its numbers not set."""
        return self.queue.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: Any) -> DeviceArray:
        """A new array of zeros."""
        return self.queue.zeros(shape, dtype)

    def copy(self, array: DeviceArray) -> DeviceArray:
        """A copy."""
        out = self.queue.empty(tuple(array.shape), array.dtype)
        self.queue.copy(out, array)
        return out

    # In and out

    def take(self, array: Any) -> DeviceArray:
        """The caller's array, in order with what is done here."""
        return self._call.join(array)

    def upload(self, array: HostArray) -> DeviceArray:
        """A copy of an array of the host's."""
        return self.queue.upload(array)

    def batch_inside(self, array: DeviceArray) -> DeviceArray:  # (T, N) -> (T, 1, N)
        """A batch of one."""
        return self.queue.reshape(array, (array.shape[0], 1, array.shape[1]))

    def drop_batch(self, array: DeviceArray) -> DeviceArray:  # (T, 1, N) -> (T, N)
        """The batch's only sample."""
        return self.queue.reshape(array, (array.shape[0], array.shape[2]))

    def swap_time_and_batch(self, array: DeviceArray) -> DeviceArray:  # (T, B, N) -> (B, T, N), and back
        """The first two axes the other way round: a copy, since arrays here are C-contiguous."""
        steps, batch, width = array.shape
        out = self.queue.empty((batch, steps, width), array.dtype)
        launch(swap(array.dtype.name), self.queue, out.size, array, steps, batch, width, out)
        return out

    # Time

    def reverse_time(self, array: DeviceArray, lengths: HostArray) -> DeviceArray:  # (T, B, N), (B,)
        """Turn each sequence round within its own length; a copy, and its own inverse."""
        out = self.queue.empty(tuple(array.shape), array.dtype)
        where = self._on_device(lengths)
        launch(reverse(array.dtype.name), self.queue, out.size, array, where, array.shape[2], out)
        return out

    def zero_padding(self, array: DeviceArray, lengths: HostArray) -> None:  # (T, B, N), (B,)
        """Set everything beyond each sequence's end to exactly zero, in place."""
        if (lengths < array.shape[0]).any():
            sums.zeroed_beyond(self.queue, array, self._on_device(lengths), array)

    def states_at(self, states: DeviceArray, slots: HostArray) -> DeviceArray:  # (T+1, B, N), (B,) -> (B, N)
        """Each sample's state in a slot of its own, a copy."""
        out = self.queue.empty(tuple(states.shape[1:]), states.dtype)
        launch(at_slots(out.dtype.name), self.queue, out.size, states, self._on_device(slots), out.shape[1], out)
        return out

    def ends(self, lengths: HostArray, steps: int) -> DeviceArray:
        """Where in a state array of T+1 slots each sequence ends; `add_at` leaves out what is not in slots 1 to T."""
        return self._on_device(lengths)

    def add_at(self, states: DeviceArray, where: DeviceArray, d: DeviceArray) -> None:  # (T+1, B, N), `ends`, (B, N)
        """Add each sample's own to its state there, in place."""
        launch(add_at_slots(d.dtype.name), self.queue, d.size, states, where, d.shape[1], d)

    def _on_device(self, lengths: HostArray) -> DeviceArray:  # (B,) int32
        """These lengths, uploaded once for the operations that follow each other."""
        if self._lengths is None or self._lengths[0] is not lengths:
            self._lengths = lengths, self.queue.upload(lengths.astype(np.int32))
        return self._lengths[1]

    # Numbers

    def put(self, target: DeviceArray, source: DeviceArray) -> None:  # of one shape
        """Copy into `target`."""
        self.queue.copy(target, source)

    def clear(self, target: DeviceArray) -> None:
        """Set to zero, in place."""
        self.queue.copy(target, self.queue.zeros(tuple(target.shape), target.dtype))

    def add(self, target: DeviceArray, source: DeviceArray) -> None:  # of one shape
        """Add to `target`, in place."""
        sums.add_to_rows(self.queue, target, source)

    def multiply(self, array: DeviceArray, mask: DeviceArray) -> DeviceArray:  # of one shape
        """Their product, number by number."""
        out = self.queue.empty(tuple(array.shape), array.dtype)
        launch(multiply(out.dtype.name), self.queue, out.size, array, mask, out)
        return out

    def keep(self, target: DeviceArray, before: DeviceArray, samples: HostArray) -> None:  # (B, N), (B, N), (B,)
        """Put back what these samples had before, in place."""
        where = self.queue.upload(samples.astype(np.uint8))
        launch(keep_samples(target.dtype.name), self.queue, target.size, target, before, where, target.shape[1])

    # Several arrays in one

    def side_by_side(self, arrays: Sequence[DeviceArray]) -> DeviceArray:  # (T, B, N) each -> (T, B, D·N)
        """Of several directions; a single one itself."""
        if len(arrays) == 1:
            return arrays[0]
        steps, batch, width = arrays[0].shape
        whole = len(arrays) * width
        out = self.queue.empty((steps, batch, whole), arrays[0].dtype)
        for n, array in enumerate(arrays):
            self._move(array, width, 0, out, whole, n * width, width)
        return out

    def columns(self, array: DeviceArray, start: int, stop: int) -> DeviceArray:  # (T, B, D·N) -> (T, B, stop - start)
        """Some columns of the last axis: a copy, or all of them as they are."""
        steps, batch, whole = array.shape
        if stop - start == whole:
            return array
        out = self.queue.empty((steps, batch, stop - start), array.dtype)
        self._move(array, whole, start, out, stop - start, 0, stop - start)
        return out

    def _move(
        self,
        source: DeviceArray,
        source_width: int,
        first: int,
        target: DeviceArray,
        target_width: int,
        into: int,
        width: int,
    ) -> None:
        numbers = source.shape[0] * source.shape[1] * width
        launch(
            move_columns(source.dtype.name), self.queue, numbers,
            source, source_width, first, target, target_width, into, width,
        )  # fmt: skip

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:  # (B, N) each -> (L, B, N)
        """One upon the other."""
        out = self.queue.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
        for n, array in enumerate(arrays):
            self.queue.copy(out[n], array)
        return out
