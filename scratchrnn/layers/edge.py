"""The public edge of recurrent layers: arguments checked, and brought to time-major arrays with a batch axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import BoolArray, DType, FloatArray, IntArray
from scratchrnn._validate import (
    check_device_array,
    check_mask,
    check_real,
    describe,
    host_array,
    on_device,
    speaks_protocol,
    take_array,
)
from scratchrnn.backends import arrays as host
from scratchrnn.backends import memory
from scratchrnn.trace import State, Trace

Number = TypeVar("Number", bound=np.generic)
StatePair = tuple[FloatArray | None, FloatArray | None]

# `arrays`, below, is of where the caller's arrays have to be: `kernels/arrays.py`, or its like on a device


def enter_array(
    name: str,
    value: Any,
    arrays: Any,
    *,
    dtype: DType,
    shape: tuple[int, ...] | None = None,
    why: str | Callable[[], str] = "",
) -> FloatArray:
    """Check one of the caller's arrays, and return it as `arrays` takes it."""
    check = check_device_array if arrays.on_device else take_array
    taken: FloatArray = arrays.take(check(name, value, shape=shape, dtype=dtype, why=why))
    return taken


def lead(trace: Trace, d_output: Any, d_state: Any) -> tuple[str, Any]:
    """The array whose owner's stream backward is on, and its name: a gradient that came in, else the trace's own h."""
    h = next(iter(trace.layers.values())).h
    if on_device(h):
        d_states = d_state if isinstance(d_state, (tuple, list)) else (d_state,)
        for name, given in (("d_output", d_output), *(("d_state", d) for d in d_states)):
            if on_device(given):
                return name, given
    return "trace", h


def view_input(
    x: Any, *, input_size: int, batch_first: bool, dtype: DType, arrays: Any = host
) -> tuple[FloatArray, bool]:
    """Return x as time-major (T, B, I), of the host's a view, and whether it had a batch axis."""
    x = enter_array("x", x, arrays, dtype=dtype)
    if x.ndim not in (2, 3):
        raise ValueError(
            f"x: expected shape {_layout(batch_first)} or, without a batch, (time, input_size), "
            f"with input_size={input_size}; got {x.shape}"
        )
    if x.shape[-1] != input_size:
        raise ValueError(f"x: expected a last axis of input_size={input_size}; got shape {x.shape}")
    batched = x.ndim == 3
    xs = time_major(x, batch_first=batch_first, batched=batched, arrays=arrays)
    if xs.shape[0] == 0:
        raise ValueError(f"x: expected at least one time step; got shape {x.shape} for {_layout(batch_first)}")
    return xs, batched


def _layout(batch_first: bool) -> str:
    return "(batch, time, input_size)" if batch_first else "(time, batch, input_size)"


def readable(array: FloatArray) -> FloatArray:
    """Return the array itself if kernels can read it as it is: plain, in C order, aligned; else a copy."""
    # writeable too (`carray`), though nobody writes: a read-only array is another type to Numba, compiled for anew
    plain = array.flags.carray if type(array) is np.ndarray else on_device(array)
    return array if plain else memory.copy(array)


def enter_lengths(lengths: Any, *, steps: int, batch: int, batched: bool, name: str = "lengths") -> IntArray:
    """Return lengths as (B,) int64, `steps` for all when absent; `name` is for messages."""
    if lengths is None:
        ns = np.empty(batch, np.int64)
        ns.fill(steps)
        return ns
    if not batched:
        raise ValueError(f"{name}: expected None for an input without a batch axis; give x[:length] instead")
    if not isinstance(lengths, (Sequence, np.ndarray)) or isinstance(lengths, (str, bytes)):
        if not speaks_protocol(lengths):
            raise TypeError(f"{name}: expected {batch} integers; got {describe(lengths)}")
        lengths = host_array(name, lengths)
    try:
        array = np.asarray(lengths)
    except ValueError:
        raise TypeError(f"{name}: expected {batch} integers; got {describe(lengths)}") from None
    if array.shape != (batch,):
        raise ValueError(f"{name}: expected shape ({batch},), one for each sample; got {array.shape}")
    mixed = not isinstance(lengths, np.ndarray) and any(isinstance(n, (bool, np.bool_)) for n in lengths)
    if (array.dtype.kind not in "iu" and array.size) or mixed or isinstance(lengths, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected integers; got {describe(lengths) if mixed else f'dtype {array.dtype}'}")
    outside = np.flatnonzero((array < 1) | (array > steps))
    if outside.size:
        at = int(outside[0])
        raise ValueError(
            f"{name}: expected values from 1 to {steps}, the number of time steps; got {array[at]} at sample {at}"
        )
    return array.astype(np.int64)


def enter_state(
    name: str,
    value: Any,
    *,
    shapes: tuple[tuple[int, ...], ...],
    dtype: DType,
    why: str | Callable[[], str],
    partial: bool = False,
    slot: str | None = None,
    arrays: Any = host,
) -> tuple[FloatArray | None, ...]:
    """Check a state or the gradient of one, and return its arrays, one per entry of `shapes` (h, then c).

    Parameters
    ----------
    name : str
        "state" or "d_state", or "state_dot" or "d_state_dot" of a tangent, for messages.
    value : array, or (h, c) where `shapes` has two entries, or None
    shapes : tuple
        Expected shape of each array.
    why : str or function that returns one
        What the shapes follow from, for messages.
    partial : bool
        Whether one of the pair may be None.
    slot : "0" or "n", "0_dot" or "n_dot", optional
        Whether these are initial or final states, for messages. When absent, a state is initial and d_state is final.
    arrays
        Of where they have to be.
    """
    if value is None:
        return (None,) * len(shapes)
    prefix, suffix = ("d_", "n") if name.startswith("d_") else ("", "0")
    suffix = slot or suffix
    if len(shapes) == 1:
        return (enter_array(f"{prefix}h_{suffix}", value, arrays, shape=shapes[0], dtype=dtype, why=why),)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(
            f"{name}: expected a pair ({prefix}h_{suffix}, {prefix}c_{suffix}) for an LSTM; got {describe(value)}"
        )
    entered: list[FloatArray | None] = []
    for letter, array, shape in zip("hc", value, shapes, strict=True):
        if array is None and partial:
            entered.append(None)
        else:
            entered.append(enter_array(f"{prefix}{letter}_{suffix}", array, arrays, shape=shape, dtype=dtype, why=why))
    return tuple(entered)


def enter_clip(clip: Any, dtype: DType) -> float:
    """Return the bound of dL/da_t, infinite for none."""
    if clip is None or (isinstance(clip, Real) and clip == math.inf):
        return math.inf
    bound = check_real("clip", clip, above=0.0)
    with np.errstate(all="ignore"):  # beyond the largest number of the dtype it is infinite there
        vanishes = dtype.type(bound) == 0
    if vanishes:
        raise ValueError(f"clip: expected a number above 0 in {dtype.name}; got {clip}")
    return bound


def is_minimal(trace: Any) -> bool:
    """Return whether a trace is to be minimal."""
    if not isinstance(trace, str) or trace not in ("full", "minimal"):
        raise ValueError(f"trace: expected 'full' or 'minimal'; got {trace!r}")
    return trace == "minimal"


def enter_steps(name: str, mask: Any, trace: Trace) -> BoolArray | None:
    """Return as (T, B), in the input's order of time, which steps of which samples are meant; None when absent."""
    if mask is None:
        return None
    mask = check_mask(name, mask, shape=trace.output.shape[:-1], why="of the trace's output but for its last axis")
    return time_major(mask[..., None], batch_first=trace.batch_first, batched=trace.batched)[..., 0]


def time_major(array: NDArray[Number], *, batch_first: bool, batched: bool, arrays: Any = host) -> NDArray[Number]:
    """See an array in the caller's layout as (T, B, ·): of the host's a view."""
    if not batched:
        array = arrays.batch_inside(array)
    elif batch_first:
        array = arrays.swap_time_and_batch(array)
    return array


def leave_output(output: FloatArray, *, batch_first: bool, batched: bool, arrays: Any = host) -> FloatArray:
    """Bring (T, B, ·) back to the caller's layout."""
    if not batched:
        output = arrays.drop_batch(output)
    elif batch_first:
        output = arrays.swap_time_and_batch(output)
    return output


def leave_state(h: FloatArray, c: FloatArray | None, *, batched: bool, arrays: Any = host) -> State:
    """Bring (L·D, B, ·) back to the caller's layout: an array, or a pair for the LSTM."""
    h = h if batched else arrays.drop_batch(h)
    if c is None:
        return h
    return h, (c if batched else arrays.drop_batch(c))
