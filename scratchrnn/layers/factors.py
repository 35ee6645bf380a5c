"""The sums over time that the gradient of a parameter is: what stands in them on either side, and each sample's own.

    B batch   T time   S steps of a segment   I input   H hidden   P size of h   R rows: 4H for the LSTM, H for the RNN

    dL/dW_ih = Σ_n Σ_t da_tn x_tnᵀ            da_t = dL/da_t, the pre-activation of step t        (1)
    dL/dW_hh = Σ_n Σ_t da_tn h_{t-1,n}ᵀ                                                           (2)
    dL/db    = Σ_n Σ_t da_tn                  either bias                                         (3)
    dL/dW_hr = Σ_n Σ_t dh_tn m_tnᵀ            m_t = o_t ⊙ tanh(c_t), of a projection h_t = W_hr m_t   (4)

The samples of a batch meet in these sums and nowhere else. So the inner sum, over time alone, is the gradient of the
part of L that sample n has, as if it were the only one.
"""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.backends import arrays
from scratchrnn.trace import LayerTrace


def unprojected(o: FloatArray, c: FloatArray) -> FloatArray:  # (S, B, H), (S+1, B, H)
    """m = o ⊙ tanh(c) of an LSTM, (S, B, H): its h, or what a projection makes its h of."""
    return o * np.tanh(c[1:])


def right_sides(
    x: FloatArray,  # (S, B, I) in the direction's order of work
    h: FloatArray,  # (S+1, B, P)
    m: FloatArray | None,  # (S, B, H) where there is a projection
) -> dict[str, FloatArray]:  # (S, B, ·)
    """What stands on the right in (1) to (4), by the parameter's name; on the left is dh for weight_hr, else da."""
    ones = np.ones_like(h[1:, :, :1])
    found = {"weight_ih": x, "weight_hh": h[:-1], "bias_ih": ones, "bias_hh": ones}
    return found if m is None else found | {"weight_hr": m}


def right_sides_of(trace: LayerTrace, *, projected: bool) -> dict[str, FloatArray]:  # (T, B, ·)
    """Those of all steps of a trace."""
    read = trace.by_time(trace.input)  # turning round is its own inverse
    return right_sides(read, trace.h, unprojected(trace.o, trace.c) if projected else None)


class PerSample:
    """The gradient of one direction's parameters for each sample alone, summed a segment of time after the other.

    Attributes
    ----------
    sums : dict of ndarray (B, ...)
        By the parameter's name, of its shape behind the first axis.
    """

    def __init__(self) -> None:
        self.sums: dict[str, FloatArray] = {}

    def add(
        self,
        right: dict[str, FloatArray],  # (S, B, ·)
        da: FloatArray,  # (S, B, R) zero beyond a sequence's end
        dh: FloatArray,  # (S, B, P) of the states that the steps lead to, likewise
        lengths: IntArray,  # (B,) each in 0..S
    ) -> None:
        """Add the steps of one segment."""
        for name, side in right.items():
            if name.startswith("bias"):
                found = da.sum(axis=0, dtype=np.float64).astype(da.dtype)  # (3)
            else:
                left = dh if name == "weight_hr" else da
                if name == "weight_hh" and (lengths < len(side)).any():
                    side = side.copy()
                    arrays.zero_padding(side, lengths)  # a last state may be infinite, and 0 · inf is nan
                found = arrays.empty((len(lengths), left.shape[2], side.shape[2]), da.dtype)
                np.matmul(left.transpose(1, 2, 0), side.transpose(1, 0, 2), out=found)  # (1), (2), (4)
            if name in self.sums:
                self.sums[name] += found
            else:
                self.sums[name] = found
