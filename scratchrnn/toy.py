"""One LSTM step by hand, with the gates given: how a cell state becomes a hidden state."""

from __future__ import annotations

from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array


def cell_update(
    i: FloatArray, f: FloatArray, g: FloatArray, o: FloatArray, c_prev: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Cell and hidden state from activated gates: c = f ⊙ c_prev + i ⊙ g, h = o ⊙ tanh(c).

    Parameters
    ----------
    i, f, g, o, c_prev : ndarray
        Input, forget, candidate and output gate, already activated, and the previous cell state; one shape and dtype.

    Returns
    -------
    c, h : ndarray
        Of the same shape.

    Raises
    ------
    ValueError, TypeError
        Shapes or dtypes differ.

    Examples
    --------
    Two units, one of which keeps its memory and shows it, while the other forgets and hides it:

    >>> i, f, g, o = np.array([[0.6, 0.4], [0.8, 0.2], [0.7, -0.1], [0.9, 0.3]])
    >>> c, h = cell_update(i, f, g, o, c_prev=np.array([0.3, 0.0]))
    >>> print(c.round(12), h.round(8))
    [ 0.66 -0.04] [ 0.52052707 -0.0119936 ]
    """
    first: Any = check_array("i", i)
    for name, value in (("f", f), ("g", g), ("o", o), ("c_prev", c_prev)):
        check_array(name, value, shape=first.shape, dtype=first.dtype, why="of i")
    c = f * c_prev + i * g
    return c, o * np.tanh(c)
