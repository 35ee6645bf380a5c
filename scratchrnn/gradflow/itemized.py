"""Whose gradient: what the loss at one step adds to the gradient at another.

    B batch   T time   I input   H hidden   P size of h   L layers

    L = Σ_t L_t        each loss L_t reads the output at step t alone
    G[t, k] = dL_t/dh_k           for k ≤ t; the same of c_k and x_k                       (1)
    dL/dh_k = Σ_t G[t, k]         the gradient that backward returns, itemised             (2)

Backward is linear in what enters it, so splitting d_output by t splits every gradient, exactly. All losses go back at
once: L_t never sees what comes after step t, so to it the sequence ends there. The T prefixes of each sequence form a
batch of T·B, each with its loss at its own last step, and one backward pass over that batch yields G.

Norms of parts do not add up to the norm of the sum. What does is each part's component along the whole,

    along[t, k] = ⟨G[t, k], u_k⟩    u_k = dL/dh_k / ‖dL/dh_k‖    Σ_t along[t, k] = ‖dL/dh_k‖       (3)

negative where a loss pulls against the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_array, check_int, check_positive_int, describe
from scratchrnn.gradflow.per_step import factors, norms, product_norms, triangles
from scratchrnn.layers import edge
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import LayerGradients, LayerTrace, State, Trace, zero_padding

# losses that go back together are this many of T at most: prefixes of like length waste little on each other
GROUPS = 8


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The gradients themselves, of one sample: [..., t, k] is what the loss at t adds to the gradient at step k.

    Sums over t are what backward returns. All of the layer's dtype, zero for k > t.

    Attributes
    ----------
    input : ndarray (T, T, I)
        dL_t/dx_k.
    h : ndarray (L, T, T, P)
        Total dL_t/dh_k of each layer's state after step k.
    c : ndarray (L, T, T, H) or None
        Total dL_t/dc_k of an LSTM.
    a : ndarray (L, T, T, G·H)
        dL_t/da_k: the loss at t adds a[l, t, k] ⊗ h_{k-1} to the gradient of W_hh.
    h_0 : ndarray (L, T, P)
        dL_t/dh_0, of the initial state.
    c_0 : ndarray (L, T, H) or None
    """

    input: FloatArray
    h: FloatArray
    c: FloatArray | None
    a: FloatArray
    h_0: FloatArray
    c_0: FloatArray | None


@dataclass(frozen=True, eq=False)
class Itemized:
    """Result of `itemized`: [t, k] is what the loss at step t adds to the gradient at step k; zero for k > t.

    Norms are float64, and zero where t or k lies on padding.

    Attributes
    ----------
    input : ndarray (T, T, B)
        ‖dL_t/dx_k‖.
    h : ndarray (L, T, T, B)
        ‖dL_t/dh_k‖ of each layer, in total over all paths; h_k is the state after step k.
    c : ndarray (L, T, T, B) or None
        ‖dL_t/dc_k‖ of an LSTM.
    along : ndarray (L, T, T, B)
        The component of dL_t/dh_k along the whole dL/dh_k: these do add up, over t to ‖dL/dh_k‖. Zero where that is.
    weights : mapping of name to ndarray (T, T)
        Frobenius norm of what the loss at t adds at step k to a parameter's gradient, over all samples.
    lengths : ndarray (B,) of int
        Steps of each sequence.
    vectors : ItemVectors or None
        Of the sample that was asked for.
    """

    input: FloatArray
    h: FloatArray
    c: FloatArray | None
    along: FloatArray
    weights: Mapping[str, FloatArray]
    lengths: IntArray
    vectors: ItemVectors | None

    def share_beyond(self, reach: int | None = None, *, layer: int = -1) -> FloatArray:
        """Share of the gradient of h that comes from losses more than d steps later, for d = 0 to `reach`.

            share[d] = Σ_k Σ_{t > k+d} along[t, k] / Σ_k ‖dL/dh_k‖

        over the steps k that have at least `reach` steps after them, of all sequences. So it is 1 less what a loss adds
        to the gradient at its own step for d = 0, and falls as d grows, unless losses pull against each other.

        Parameters
        ----------
        reach : int, optional
            0 to the longest length less 1. When absent, half of the shortest length.
        layer : int
            From 0; the last when absent.

        Returns
        -------
        ndarray (reach + 1,), float64
            NaN where no gradient is left to share.
        """
        most = int(self.lengths.max()) - 1
        reach = int(self.lengths.min()) // 2 if reach is None else check_int("reach", reach, least=0, most=most)
        layers = len(self.along)
        along = self.along[check_int("layer", layer, least=-layers, most=layers - 1)]  # (T, T, B)
        steps = len(along)
        counted = np.arange(steps)[:, None] < self.lengths - reach  # (T, B)
        later = np.array(
            [np.diagonal(along, -d, axis1=0, axis2=1).sum(axis=1, where=counted.T[:, : steps - d]) for d in range(steps)]
        )
        raise NotImplementedError


def itemized(
    layer: Recurrent,
    trace: Trace,
    d_output: FloatArray,
    *,
    sample: int | None = None,
    memory: int = 2**28,
) -> Itemized:
    """Split every gradient by the loss that it comes from, on the data that `trace` was made from.

    Parameters
    ----------
    layer : RNN or LSTM
        In one direction, of any number of layers.
    trace : Trace
        From this layer's `forward`, in training or inference mode.
    d_output : ndarray
        dL/d(output), of the output's shape and dtype: row t is the gradient of L_t. What stands on padding is ignored.
    sample : int, optional
        Whose gradients to return themselves, as `vectors`: T² vectors of each kind. None when absent.
    memory : int
        Bytes that the losses that go back together may take, beside the result; at least one loss does at a time. The
        result takes 8 T² (2 L + L + 1) B bytes for an LSTM.

    Returns
    -------
    Itemized

    Raises
    ------
    ValueError
        A bidirectional layer, since its reverse direction carries each loss to later steps as well; a wrong shape; a
        batch of 0; a number out of range.
    TypeError
        Not a layer, not a trace, or a wrong dtype.

    Notes
    -----
    The work grows with T²: a backward pass over (T+1)/2 times the steps of the usual one.

    References
    ----------
    Cashman, Patterson, Mosca, Watts, Robinson, Chang, RNNbow: visualizing learning via backpropagation gradients in
    recurrent neural networks, arXiv:1907.12545, 2019.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((6, 2, 3)))
    >>> d_output = rng.standard_normal((6, 2, 4))
    >>> items = itemized(lstm, trace, d_output, sample=1)
    >>> items.h.shape, items.weights["weight_hh_l0"].shape
    ((1, 6, 6, 2), (6, 6))
    >>> np.allclose(items.vectors.h[0].sum(axis=0), lstm.backward(trace, d_output).h[1:, 1])
    True
    """
    raise NotImplementedError
