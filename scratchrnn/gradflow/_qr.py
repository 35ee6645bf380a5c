"""QR with signs fixed and dead directions told from rounding: what products of many Jacobians are followed with."""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray


@np.errstate(all="ignore")
def signed_qr(y: FloatArray) -> tuple[FloatArray, FloatArray]:  # (B, M, K), M >= K
    """Factor each y = q r, q (B, M, K) with orthonormal columns, r (B, K, K) upper triangular with r_ii >= 0.

    Rows go in by falling size: then Householder's rounding stays below eps of each row, not of the largest (Cox and
    Higham, Stability of Householder QR factorization for weighted least squares problems, 1998), so that the faint rows
    of saturated units keep their digits and those of dead ones stay zero.

    A column of y that lies in the span of those before it has r_ii = 0. Rounding leaves something in its place; what is
    not above M·eps of the row and column there is set to exactly 0.
    """
    column = np.linalg.norm(y, axis=1)  # (B, K)
    row = np.linalg.norm(y / np.where(column > 0, column, 1)[:, None], axis=2)  # (B, M), of columns of size 1
    order = np.argsort(-row, axis=1, kind="stable")
    q, r = np.linalg.qr(np.take_along_axis(y, order[:, :, None], axis=1))
    q = np.take_along_axis(q, np.argsort(order, axis=1)[:, :, None], axis=1)

    at = np.arange(y.shape[2])
    diagonal = r[:, at, at]
    sign = np.where(diagonal < 0, -1.0, 1.0)
    q, r = q * sign[:, None], r * sign[:, :, None]
    faint = np.take_along_axis(row, order, axis=1)[:, at] * column
    dead = np.abs(diagonal) <= y.shape[1] * np.finfo(y.dtype).eps * faint
    r[:, at, at] = np.where(dead, 0, r[:, at, at])
    return q, r
