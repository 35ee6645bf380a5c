"""QR with signs fixed and dead directions told from rounding: what products of many Jacobians are followed with."""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray


@np.errstate(all="ignore")
def signed_qr(y: FloatArray) -> tuple[FloatArray, FloatArray]:  # (B, M, K), M >= K
    """Factor each y = q r, q (B, M, K) with orthonormal columns, r (B, K, K) upper triangular with r_ii >= 0.

    A column of y that lies in the span of those before it has r_ii = 0. Rounding leaves M·eps of the column's own norm
    there instead; what is not above that is set to exactly 0.
    """
    q, r = np.linalg.qr(y)
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    sign = np.where(diagonal < 0, -1.0, 1.0).astype(y.dtype)
    q, r = q * sign[:, None], r * sign[:, :, None]
    dead = np.abs(diagonal) <= y.shape[1] * np.finfo(y.dtype).eps * np.linalg.norm(r, axis=1)
    at = np.arange(y.shape[2])
    r[:, at, at] = np.where(dead, 0, r[:, at, at])
    return q, r
