"""Where the first number that is not finite came from, in words: parameters first, then what was computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.bptt import StreamTrace
from scratchrnn.nonfinite import NonFinite, first_nonfinite
from scratchrnn.trace import Gradients, Trace


def first_in(arrays: Mapping[str, FloatArray], what: str) -> str | None:
    """Name and index of the first of some arrays that is not finite."""
    for name, array in arrays.items():
        bad = ~np.isfinite(array)
        if bad.any():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape))
            return f"{what} {name}{list(index)} is {array[index]} ({int(bad.sum())} of {array.size} are not finite)"
    return None


def first_in_layers(record: Trace | Gradients) -> str | None:
    """Layer, step, quantity, sample and unit of the first one of a pass forward or back."""
    found = first_nonfinite(record) if isinstance(record, Trace) or record.layers else None
    return None if found is None else str(found)


def first_in_stream(trace: StreamTrace, record: Trace | Gradients, start: int) -> str | None:
    """The same for a stretch of a stream that began at step `start`: in steps and rows of the stream, not of pieces."""
    found = first_nonfinite(record) if record.layers else None
    return None if found is None else str(_in_rows(found, trace, start))


def _in_rows(found: NonFinite, trace: StreamTrace, start: int) -> NonFinite:
    pieces = trace.pieces
    step = start + int(pieces.start[found.sample]) + found.step
    return replace(found, step=step, sample=int(pieces.row[found.sample]))
