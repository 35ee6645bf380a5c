"""Evolution: everything that one direction of one layer held while it read one sequence, step by step.

    h (T, P)   c (T, H)   i, f, g, o (T, H)        row t: after reading x_t, in either direction

The reverse direction read from the sequence's end, so that its row t knows x_t and what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int, describe
from scratchrnn.dynamics.which import choose
from scratchrnn.trace import Trace

PARTS = {"lstm": ("h", "c", "i", "f", "g", "o"), "rnn_tanh": ("h",), "rnn_relu": ("h",)}


@dataclass(frozen=True, eq=False)
class Evolution:
    """One sequence's states and gates over time.

    Attributes
    ----------
    parts : mapping of name to ndarray (T, H)
        "h", for an LSTM also "c", "i", "f", "g", "o"; copies, in the input's order of time. T is the sequence's own
        length. With a projection h is (T, P).
    cell : str
        "lstm", "rnn_tanh" or "rnn_relu".
    layer, sample : int
    direction : "forward" or "reverse"
    """

    parts: Mapping[str, FloatArray]
    cell: str
    layer: int
    direction: str
    sample: int

    @property
    def steps(self) -> int:
        """T."""
        return len(next(iter(self.parts.values())))


def evolution(
    trace: Trace,
    *,
    layer: int | None = None,
    direction: str = "forward",
    sample: int = 0,
    parts: Sequence[str] | None = None,
) -> Evolution:
    """Take one sequence's states and gates out of a forward pass.

    Parameters
    ----------
    trace : Trace
        From a layer's `forward`.
    layer : int, optional
        Which layer. It may be left out where there is only one, in one direction.
    direction : "forward" or "reverse"
        Which direction of that layer.
    sample : int
        Which sequence of the batch, from 0.
    parts : sequence of str, optional
        Some of "h", "c", "i", "f", "g", "o"; all that the cell has when absent.

    Returns
    -------
    Evolution

    Raises
    ------
    ValueError
        A part that the cell has not or that comes twice, no part, no such sample, or several layers and no word on
        which.
    IndexError
        No such layer or direction.
    TypeError
        Not a trace.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, bidirectional=True, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((9, 2, 3), np.float32), lengths=[9, 6])
    >>> found = evolution(trace, layer=0, direction="reverse", sample=1, parts=("c", "f"))
    >>> found.parts["c"].shape, bool((found.parts["c"][0] == trace.state[1][1, 1]).all())
    ((6, 4), True)
    """
    found = choose(trace, layer, direction)
    known = PARTS[trace.cell]
    wanted = known if parts is None else tuple(parts)
    if isinstance(parts, str) or not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(known):
        raise ValueError(f"parts: expected some of {known}, each once; got {describe(parts)}")
    row = check_int("sample", sample, least=0)
    if row >= len(found.lengths):
        raise ValueError(f"sample: expected less than {len(found.lengths)}, the batch; got {sample}")
    steps = int(found.lengths[row])
    gates = found.gates[:, row] if set(wanted) & set("ifgo") else None  # once: a minimal trace computes them anew
    taken: dict[str, FloatArray] = {}
    for name in wanted:
        if name in ("h", "c"):
            array = getattr(found, name)[1 : steps + 1, row]
        else:
            array = np.split(cast(FloatArray, gates)[:steps], 4, axis=-1)["ifgo".index(name)]
        taken[name] = array[::-1].copy() if found.reverse else array.copy()
    return Evolution(taken, trace.cell, layer or 0, direction, row)
