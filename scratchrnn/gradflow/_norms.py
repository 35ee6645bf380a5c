"""Euclidean norms of vectors of any size."""

from __future__ import annotations

from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray


@np.errstate(all="ignore")
def row_norms(d: FloatArray) -> FloatArray:  # (..., N) to (...)
    """Norm over the last axis, in float64 without under- or overflow; not finite where an element is not."""
    d = d.astype(np.float64, copy=False)
    squares: Any = np.einsum("...i,...i->...", d, d)
    safe = np.finfo(np.float64).tiny / np.finfo(np.float64).eps
    lost = ((squares < safe) & d.any(axis=-1)) | (squares == np.inf)  # the square of 1e-200 is zero
    found = np.sqrt(squares)
    found[lost] = np.hypot.reduce(d[lost], axis=-1)
    return found
