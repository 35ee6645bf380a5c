"""The two paths by which an LSTM's gradient comes back: along the cells alone, or also through h and the gates.

    B batch   T time   H hidden   P size of h (H without a projection)   L layers   G = 4H

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh           h_{t-1} enters step t here, and nowhere else        (1)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t                       c_{t-1} enters step t here, and nowhere else        (2)

A path of the unrolled net leads from the loss down to a cell state. Each either passes through (1) in h_{t-1} at least
once, in whatever layer, or never does. The gradient is the sum over all paths, so it falls into two exactly:

    dL/dc_t = γ_t + η_t       γ the paths that never do: the cell path      η the others: through h

Where all gates see h_{t-1} as a constant only γ is left. With r_t what then comes to h_t, from L or from the gates of
the layer above, α_t what then is dL/da_t, and β_t = o_t ⊙ (1 - tanh²(c_t)),

    γ_t = f_{t+1} ⊙ γ_{t+1} + β_t ⊙ W_hrᵀ r_t             W_hr = 1 without a projection                       (3)
    ν_t = W_hhᵀ α_{t+1}                                   what is held back from h_t                          (4)

and η is what full backpropagation makes of ν, given to it as the gradient of the output: no difference is taken, so
both parts have their digits where one is a billionth of the other.

The product of forget gates is (3) from one cell to an earlier one with nothing read in between. Beside it stands the
truth, with J_t the Jacobian of step t of (h, c), and h_{T-k} following c_{T-k}, as it does:

    Π_k = D(f_T ⊙ f_{T-1} ⊙ ... ⊙ f_{T-k+1})              the product
    J = J_T J_{T-1} ... J_{T-k+1}
    dc_T/dc_{T-k} = J_cc + J_ch W_hr D(β_{T-k})           the truth                                           (5)

Of the initial state, where h_0 and c_0 are given apart, J_cc is all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.gradflow.distance import average_norms, check_one_direction
from scratchrnn.gradflow.linearize import Linearized
from scratchrnn.layers import direction
from scratchrnn.layers.direction import Weights
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import State, Trace


@dataclass(frozen=True, eq=False)
class PathsByDistance:
    """Median gradient norms by distance from the last step; float64, index 0 is the last step.

    The norms of two parts do not add up to that of their sum: the parts may point against each other.

    Attributes
    ----------
    c_path, through_h, total : ndarray (L, T)
        Of γ, η and γ + η of each layer. T is the longest sequence's length.
    count : ndarray (T,) of int
        Sequences that reach back so far, over which the median is taken.
    """

    c_path: FloatArray
    through_h: FloatArray
    total: FloatArray
    count: IntArray


@dataclass(frozen=True, eq=False)
class PathSplit:
    """dL/dc_t of every layer, split by path: slot 0 is the initial state, slot t+1 the state after step t.

    Attributes
    ----------
    c_path : ndarray (L, T+1, B, H)
        γ: along the cells alone, from wherever the loss, or by way of its gates a layer above, reads an h.
    through_h : ndarray (L, T+1, B, H)
        η: through (1) in h_{t-1} at least once, in this layer or in one above.
    lengths : ndarray (B,) of int
        Steps of each sequence; beyond them everything is zero.
    """

    c_path: FloatArray
    through_h: FloatArray
    lengths: IntArray

    @property
    def total(self) -> FloatArray:
        """dL/dc_t (L, T+1, B, H): their sum, what `backward` calls `grads[n].c`, but for rounding."""
        return self.c_path + self.through_h

    def by_distance(self) -> PathsByDistance:
        """Median over the sequences of the norms at each distance from their own last steps."""
        c_path, through_h, total = (
            np.stack([average_norms(d[1:], self.lengths, np.median) for d in part])
            for part in (self.c_path, self.through_h, self.total)
        )
        reached = np.arange(self.lengths.max())[:, None] < self.lengths
        return PathsByDistance(c_path, through_h, total, reached.sum(axis=1))


@dataclass(frozen=True, eq=False)
class ForgetProduct:
    """The product of forget gates beside the Jacobian that it is taken for; float64, index k is lag k.

    Medians over the sequences of Frobenius norms, each sequence counted back from its own end. At lag 0 both are the
    norm of the identity, √H.

    Attributes
    ----------
    product : ndarray (L, K+1)
        ‖f_T ⊙ ... ⊙ f_{T-k+1}‖ of each layer.
    truth : ndarray (L, K+1)
        ‖dc_T/dc_{T-k}‖, through every path.
    count : ndarray (K+1,) of int
        Sequences of at least k steps, over which the median is taken.
    """

    product: FloatArray
    truth: FloatArray
    count: IntArray

    @property
    def ratio(self) -> FloatArray:
        """(L, K+1): truth / product, how many times too small the product is; nan where both are too small to tell."""
        with np.errstate(all="ignore"):
            return self.truth / self.product


@np.errstate(all="ignore")  # inf and nan in data pass through, as in backward
def split_paths(
    layer: Recurrent, trace: Trace, d_output: FloatArray | None = None, d_state: State | None = None
) -> PathSplit:
    """Split dL/dc_t of an LSTM, exactly, into what came along the cells alone and what came through h.

    Two backward passes. Torch would show γ as the gradient of the same net in which the gates read `h.detach()`.

    Parameters
    ----------
    layer : LSTM
        In one direction, any number of layers, with or without a projection.
    trace : Trace
        From this layer's `forward` with `trace="full"`; lengths and dropout masks are the trace's.
    d_output : ndarray, optional
        dL/d(output), of the output's shape, as in `backward`. Absent: zero.
    d_state : (d_h_n, d_c_n), optional
        dL/d(final state); either may be None. Absent: zero.

    Returns
    -------
    PathSplit

    Raises
    ------
    ValueError
        An RNN, two directions, a minimal trace, a batch of 0, or an array of the wrong shape.
    TypeError
        Not a layer, not a trace of it, or a wrong dtype.

    References
    ----------
    Arpit et al., h-detach: modifying the LSTM gradient towards better optimization, arXiv:1810.03023, 2018, where a
    step's Jacobian falls into A_t, the linear path, and B_t, the rest.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 8, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((20, 5, 3)))
    >>> d_output = np.zeros_like(trace.output)
    >>> d_output[-1] = 1
    >>> paths = split_paths(lstm, trace, d_output)
    >>> bool(np.allclose(paths.total[0], lstm.backward(trace, d_output).c))
    True
    >>> near, far = (paths.by_distance().c_path / paths.by_distance().total)[0, [0, 19]]
    >>> float(near), bool(far < 0.2)
    (1.0, True)
    """
    check_one_direction(layer)
    if not layer.cell.has_c:
        raise ValueError(f"layer: expected an LSTM, since an RNN has no cell path; got {layer!r}")
    layer._check_trace(trace, Trace)
    if trace[0].minimal:
        raise ValueError(
            'trace: expected one of forward(..., trace="full"), since the split needs dL/da_t; got a minimal one'
        )
    if not len(trace.lengths):
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    above_c = layer._enter_d_output(d_output, trace)
    d_h_n, d_c_n = layer._enter_state("d_state", d_state, len(trace.lengths), trace.batched)
    above_h = None if above_c is None else np.zeros_like(above_c)
    kernels, everywhere = backends.load(trace.backend), np.ones(trace[0].input.shape[:2], np.bool_)
    c_path, through_h = np.empty((2, layer.num_layers, *trace[0].c.shape), layer.dtype)
    for n in reversed(range(layer.num_layers)):
        w = Weights.of(trace.parameters, f"_l{n}")
        ends = (None if d_h_n is None else d_h_n[n], None if d_c_n is None else d_c_n[n])
        above_c, by_c, _ = direction.backward(
            kernels, layer.cell, trace[n], w, above_c, *ends, detach_h=everywhere
        )  # (3)
        held = by_c.a @ w.weight_hh  # (4), (T, B, P): row t belongs to h_{t-1}
        into_h = np.concatenate([held[1:], np.zeros_like(held[:1])])
        if above_h is not None:
            into_h += above_h
        above_h, by_h, _ = direction.backward(kernels, layer.cell, trace[n], w, into_h, None, None)
        c_path[n], through_h[n] = by_c.c, by_h.c
        mask = trace.dropout_masks[n - 1] if n else None
        if mask is not None:
            above_c, above_h = above_c * mask, above_h * mask  # undoes dropout
    return PathSplit(c_path, through_h, trace.lengths)


def forget_product(trace: Trace, *, max_lag: int | None = None) -> ForgetProduct:
    """Compare the product of forget gates with the Jacobian dc_T/dc_{T-k} that it is taken for, at every lag.

    The truth is what autograd would give for the cell states as computed, h_{T-k} following c_{T-k}. Both are float64,
    whatever the trace is. All H rows of the Jacobian are carried back together, step by step: about H times the
    arithmetic of a backward pass, for each layer. `max_lag` limits it.

    Parameters
    ----------
    trace : Trace
        Of an LSTM of one direction. Inputs and, in a stack, the layers below are held fixed; layers above never act on
        those below.
    max_lag : int, optional
        K, at least 1; the longest sequence's length when absent, and never more.

    Returns
    -------
    ForgetProduct

    Raises
    ------
    ValueError
        An RNN's trace, one of both directions, or an argument out of range.
    TypeError
        Not a trace.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> trace = srnn.LSTM(10, 16, rng=rng).forward(rng.standard_normal((30, 8, 10), np.float32))
    >>> found = forget_product(trace, max_lag=20)
    >>> found.truth.shape, bool(found.ratio[0, 1] < 1.2), bool(found.ratio[0, 20] > 3)
    ((1, 21), True, True)
    """
    linear = Linearized(trace)
    if not linear.has_c:
        raise ValueError("trace: expected one of an LSTM, since an RNN has no forget gates; got one of an RNN")
    if not linear.batch:
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    longest = int(linear.lengths.max())
    lags = longest if max_lag is None else min(check_int("max_lag", max_lag, least=1), longest)
    reached = np.arange(lags + 1)[:, None] <= linear.lengths  # (K+1, B)
    product, truth = np.empty((2, len(trace.layers), lags + 1))
    for n in range(len(trace.layers)):
        for medians, found in zip((product[n], truth[n]), _norms_by_lag(trace, linear, n, lags), strict=True):
            medians[:] = [np.median(row[far]) for row, far in zip(found, reached, strict=True)]
    return ForgetProduct(product, truth, reached.sum(axis=1))


@np.errstate(all="ignore")  # inf and nan in data pass through
def _norms_by_lag(trace: Trace, linear: Linearized, n: int, lags: int) -> FloatArray:
    """Norms of layer n's product and truth (2, K+1, B); zero where a sequence is too short."""
    layer, lengths, own = trace[n], linear.lengths, linear.slices[n, "c"]
    f, beta = layer.f, layer.o * (1 - np.tanh(layer.c[1:]) ** 2)
    w_hr = trace.parameters.get(f"weight_hr_l{n}")
    hidden = own.stop - own.start
    product = np.ones((linear.batch, hidden))
    rows = np.zeros((linear.batch, hidden, linear.size))  # of J
    rows[:, :, own] = np.eye(hidden)
    found = np.zeros((2, lags + 1, linear.batch))
    for slot in range(linear.steps, max(int(lengths.min()) - lags, 0) - 1, -1):
        truth = rows[:, :, own]
        if slot:
            to_h = rows[:, :, linear.slices[n, "h"]]
            truth = truth + (to_h if w_hr is None else to_h @ w_hr) * beta[slot - 1][:, None]  # (5)
        lag = lengths - slot
        b = np.flatnonzero((lag >= 0) & (lag <= lags))
        found[0, lag[b], b] = row_norms(product[b])
        found[1, lag[b], b] = row_norms(truth[b].reshape(len(b), hidden**2))
        if slot:
            rows, _ = linear.vjp(slot - 1, rows)
            running = slot <= lengths
            product[running] *= f[slot - 1, running]
    return found
