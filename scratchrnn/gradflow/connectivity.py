"""Connectivity: how strongly the state after step t depends on what was read at step s, for all pairs of steps.

    B batch   T time   I input   S state of the stack   K outputs (P units of h, or V rows of a readout)

    y_t = h_t of one layer, or W h_t with a readout W (V, P)
    C[t, s] = ‖∂y_t/∂x_s‖_F = sqrt(Σ_k C_k[t, s]²),     C_k[t, s] = ‖∂y_t,k/∂x_s‖_2                          (1)
    V_s(s) = ∂s_s/∂x_s,   V_s(t) = J_t V_s(t-1)         columns for all s < t go forward together            (2)
    ∂y_t/∂x_s = (∂y_t/∂s_t) V_s(t)                                                                           (3)

Every Jacobian is exact, all of its I columns, without random directions; K, the number of outputs, costs next to
nothing. Going back from the outputs instead would carry K rows for each t. An output cannot depend on what comes later:
C[t, s] = 0 for s > t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_bool, check_int, take_array
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.gradflow.linearize import Linearized
from scratchrnn.trace import Trace

_BYTES = 2**25  # of columns carried at once; the work on them takes a few times as much


@dataclass(frozen=True, eq=False)
class Connectivity:
    """Result of `connectivity`; float64.

    Attributes
    ----------
    norm : ndarray (B, T, T)
        [b, t, s] = ‖∂y_t/∂x_s‖_F; zero for s > t and beyond a sequence's end.
    units : ndarray (B, T, T, K) or None
        [b, t, s, k] = ‖∂y_t,k/∂x_s‖_2; None unless asked for.
    lengths : ndarray (B,) of int
        Steps of each sequence.
    """

    norm: FloatArray
    units: FloatArray | None
    lengths: IntArray


@np.errstate(all="ignore")
def connectivity(
    trace: Trace, *, layer: int | None = None, readout: FloatArray | None = None, units: bool = False
) -> Connectivity:
    """Measure how strongly each output depends on each input, along a trace.

    Parameters
    ----------
    trace : Trace
        From the forward pass of an RNN or LSTM of one direction.
    layer : int, optional
        Whose h; the last when absent.
    readout : ndarray (V, P), optional
        W, such as the weight of the Linear that makes logits: then y_t = W h_t. Of the trace's dtype.
    units : bool
        Whether to keep the norm of each unit (or logit) too: B·T²·K numbers.

    Returns
    -------
    Connectivity

    Raises
    ------
    TypeError, ValueError
        Not a trace, a layer that there is not, or a readout of another shape or dtype.

    References
    ----------
    Madsen, Visualizing memorization in RNNs, Distill, 2019: C_k, with k the predicted token.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 8, rng=rng)
    >>> found = connectivity(lstm.forward(rng.standard_normal((20, 2, 3), np.float32)))
    >>> found.norm.shape, bool(found.norm[0, 19, 19] > 100 * found.norm[0, 19, 0] > 0), found.norm[0, 0, 19]
    ((2, 20, 20), True, np.float64(0.0))
    """
    linear = Linearized(trace)
    layers = len(trace.layers)
    part = linear.slices[layers - 1 if layer is None else check_int("layer", layer, least=0, most=layers - 1), "h"]
    check_bool("units", units)
    weight = _readout(readout, part, linear)
    steps, batch, inputs = linear.steps, linear.batch, linear.input_size
    norm = np.zeros((batch, steps, steps))
    by_unit = (
        np.zeros((batch, steps, steps, part.stop - part.start if weight is None else len(weight))) if units else None
    )

    at_once = max(1, _BYTES // max(1, batch * linear.size * inputs * linear.dtype.itemsize))
    for first in range(0, steps, at_once):  # inputs x_s, s in first..last-1
        last = min(first + at_once, steps)
        v = np.empty((batch, linear.size, (last - first) * inputs), linear.dtype)
        for t in range(first, steps):
            before, upto = min(t, last) - first, min(t + 1, last) - first  # inputs read so far
            if before:
                v[:, :, : before * inputs] = linear.jvp(t, v[:, :, : before * inputs])
            if before < upto:
                v[:, :, before * inputs : upto * inputs] = linear.input_jacobian(t)
            y = v[:, part, : upto * inputs]
            y = y if weight is None else weight @ y  # (3)
            each = row_norms(y.reshape(*y.shape[:2], upto, inputs))  # (B, K, upto)
            norm[:, t, first : first + upto] = row_norms(each.swapaxes(1, 2))
            if by_unit is not None:
                by_unit[:, t, first : first + upto] = each.swapaxes(1, 2)
    for b, length in enumerate(linear.lengths):
        norm[b, length:] = 0
        if by_unit is not None:
            by_unit[b, length:] = 0
    return Connectivity(norm, by_unit, linear.lengths)


def _readout(readout: FloatArray | None, part: slice, linear: Linearized) -> FloatArray | None:
    if readout is None:
        return None
    readout = take_array("readout", readout, dtype=linear.dtype)
    size = part.stop - part.start
    if readout.ndim != 2 or readout.shape[1] != size:
        raise ValueError(f"readout: expected shape (V, {size}), a row for each of V outputs; got {readout.shape}")
    return readout
