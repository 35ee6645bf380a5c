"""What layers do with arrays between the kernels, on the host. `cuda/arrays.py` has the same for arrays on a device.

    B batch   T time   N any width

Lengths and masks of steps are NumPy's in either place: they decide what is done. `out` of a function may be a view of
what it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .memory import copy as copy
from .memory import empty as empty
from .memory import zeros as zeros

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
Ends = tuple[IntArray, IntArray]  # slots, samples

on_device = False


# --- in and out


def take(array: FloatArray) -> FloatArray:
    """The caller's array, as the functions here and the kernels take it."""
    return array


def upload(array: FloatArray) -> FloatArray:
    """An array of the host's, where the others are."""
    return array


def batch_inside(array: FloatArray) -> FloatArray:  # (T, N) -> (T, 1, N)
    """A batch of one."""
    return array[:, None]


def drop_batch(array: FloatArray) -> FloatArray:  # (T, 1, N) -> (T, N)
    """The batch's only sample."""
    return array[:, 0]


def swap_time_and_batch(array: FloatArray) -> FloatArray:  # (T, B, N) -> (B, T, N), and back
    """The first two axes the other way round."""
    return array.transpose(1, 0, 2)


# --- time


def reverse_time(array: NDArray[Any], lengths: IntArray) -> NDArray[Any]:  # (T, B, N), (B,)
    """Turn each sequence round within its own length; a copy, and its own inverse."""
    steps = array.shape[0]
    if (lengths == steps).all():
        return array[::-1].copy()
    t = np.arange(steps)[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)  # (T, B)
    return np.take_along_axis(array, source[:, :, None], axis=0)


def zero_padding(array: FloatArray, lengths: IntArray) -> None:  # (T, B, N), (B,)
    """Set everything beyond each sequence's end to exactly zero, in place."""
    if (lengths < array.shape[0]).any():
        array[np.arange(array.shape[0])[:, None] >= lengths] = 0


def states_at(states: FloatArray, slots: IntArray) -> FloatArray:  # (T+1, B, N), (B,) -> (B, N)
    """Each sample's state in a slot of its own, a copy."""
    return states[slots, np.arange(len(slots))]


def ends(lengths: IntArray, steps: int) -> Ends:
    """Where in a state array of T+1 slots each sequence ends; those that do not end in slots 1 to T are left out."""
    ending = np.flatnonzero((lengths > 0) & (lengths <= steps))
    return lengths[ending], ending


def add_at(states: FloatArray, where: Ends, d: FloatArray) -> None:  # (T+1, B, N), `ends`, (B, N)
    """Add each sample's own to its state there, in place."""
    states[where] += d[where[1]]


# --- numbers


def put(target: FloatArray, source: FloatArray) -> None:  # of one shape
    """Copy into `target`."""
    target[...] = source


def clear(target: FloatArray) -> None:
    """Set to zero, in place."""
    target[...] = 0


def add(target: FloatArray, source: FloatArray) -> None:  # of one shape
    """Add to `target`, in place."""
    target += source


def multiply(array: FloatArray, mask: FloatArray) -> FloatArray:  # of one shape
    """Their product, number by number."""
    return array * mask


def keep(target: FloatArray, before: FloatArray, samples: BoolArray) -> None:  # (B, N), (B, N), (B,)
    """Put back what these samples had before, in place."""
    target[samples] = before[samples]


# --- several arrays in one


def side_by_side(arrays: Sequence[FloatArray]) -> FloatArray:  # (T, B, N) each -> (T, B, D·N)
    """Of several directions; a single one itself."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=2)


def columns(array: FloatArray, start: int, stop: int) -> FloatArray:  # (T, B, D·N) -> (T, B, stop - start)
    """Some columns of the last axis."""
    return array[:, :, start:stop]


def stack(arrays: Sequence[FloatArray]) -> FloatArray:  # (B, N) each -> (L, B, N)
    """One upon the other."""
    out = np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)  # np.stack takes four times as long
    for row, array in zip(out, arrays, strict=True):
        row[...] = array
    return out
