"""Which of a trace's layers and directions is meant, and which of its steps are no padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from scratchrnn._typing import BoolArray
from scratchrnn._validate import describe
from scratchrnn.trace import LayerTrace, Trace


def choose(trace: Any, layer: int | None, direction: str) -> LayerTrace:
    """One direction of one layer; `layer` may be None where there is only one, in one direction.

    Raises
    ------
    TypeError
        Not a trace.
    ValueError
        Several layers or directions and no word on which.
    IndexError
        No such layer or direction.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"trace: expected what forward of a layer returned; got {describe(trace)}")
    if layer is None and len(trace.layers) > 1:
        raise ValueError(
            f"layer: expected to be given, since there are {len(trace.layers)} layers and directions; "
            'as in layer=0, direction="forward"'
        )
    return trace[0 if layer is None else layer, direction]


def own_steps(part: LayerTrace) -> BoolArray:
    """Mask (T, B) of the steps that are no padding, T that of the longest sequence; in either order of time.

    Raises
    ------
    ValueError
        A batch of 0.
    """
    if not len(part.lengths):
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    own: BoolArray = np.arange(part.lengths.max())[:, None] < part.lengths
    return own
