"""How large the gradient of each sample alone is, without B gradients in memory.

    B batch   T time   n steps of a sample   R rows and N columns of a weight

Of one sample a gradient is Aᵀ X, with a row for each step: of dL/da_t or dL/dh_t in A (n, R), of what was read in X
(n, N); see `layers/factors.py`. A long sequence's is formed, one sample at a time. For a short one, with Xᵀ = Q U,
where Qᵀ Q = 1, its Frobenius norm is that of U A, (n, R). The sum over pairs of steps Σ_ts (A_t · A_s)(X_t · X_s), its
square, would be cheap too, but loses half of the digits where steps cancel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.gradflow.per_step import check_pair, factors
from scratchrnn.trace import Gradients, Trace


def per_sample_norms(trace: Trace, grads: Gradients) -> dict[str, FloatArray]:
    """Measure the gradient of each parameter for each sample alone.

    Parameters
    ----------
    trace : Trace
        From the forward pass of an RNN or LSTM.
    grads : Gradients
        What backward of this trace returned, with `per_sample` or, in less memory, without.

    Returns
    -------
    dict of ndarray (B,)
        By the parameter's name, the Frobenius norm of dL/dW_n, in float64. Over all parameters, the norm of a sample's
        gradient is the root of the sum of their squares.

    Raises
    ------
    ValueError
        `grads` of another trace, or one of a batch of 0, or a minimal one.
    TypeError
        Something else, such as a trace of WeightDrop or Zoneout.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((6, 5, 3)))
    >>> grads = lstm.backward(trace, rng.standard_normal((6, 5, 4)), per_sample=True)
    >>> norms = per_sample_norms(trace, grads)["weight_hh_l0"]
    >>> norms.shape, np.allclose(norms, np.linalg.norm(grads.per_sample["weight_hh_l0"], axis=(1, 2)))
    ((5,), True)
    """
    check_pair(trace, grads)
    return {
        one.name: np.array([
            _product_norm(one.left(grads[one.key])[:n, b], one.right[:n, b]) for b, n in enumerate(trace.lengths)
        ])
        for one in factors(trace)
    }  # fmt: skip


@np.errstate(all="ignore")
def _product_norm(left: FloatArray, right: FloatArray) -> float:  # (n, R), (n, N)
    """Frobenius norm of leftᵀ right."""
    side: Any = right.T
    if 2 * len(right) < right.shape[1]:  # from here on the QR decomposition is worth it
        side = np.linalg.qr(side, mode="r")
    return float(row_norms((side @ left).ravel()[None])[0])
