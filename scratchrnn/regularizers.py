"""Penalties on hidden states, each with its gradient, to be added to a loss and to the gradient of the output.

    activity               AR    α mean_b 1/n_b Σ_t ‖h_t‖²                    keeps activations small
    temporal_activity      TAR   β mean_b 1/m_b Σ_t ‖h_t - h_{t-1}‖²          keeps them from jumping
    norm_stabilizer              β mean_b 1/m_b Σ_t (‖h_t‖ - ‖h_{t-1}‖)²      keeps their size; they may turn

    T time   B batch   H hidden   n_b steps of sequence b   m_b jumps t-1 → t of sequence b that count

Only what lies within a sequence counts. A step is in the sum over t if t < n_b, a jump if both its ends are, so padding
is never read and makes no jump. The jump into step 0 counts where the state before it is given, and a jump across a
reset never does: it joins two unrelated states. A sequence without a jump adds nothing.

Two conventions are in use, and they differ by the factor H:

    "paper"   the formulas above: a sum over units, a mean over a sequence's own steps, a mean over the batch
    "mean"    a mean over all elements that count, (t, b, unit) alike, as in `alpha * h.pow(2).mean()`

The derivations are in docs/regularizers.md.

    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm, drop = srnn.LSTM(3, 4, rng=rng), srnn.LockedDropout(0.4, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((7, 2, 3), np.float32))
    >>> dropped = drop.forward(trace.output)
    >>> d_loss = np.ones_like(dropped.output)  # from a loss that reads the dropped output
    >>> ar, d_ar = srnn.regularizers.activity(dropped.output, 2.0, reduction="mean")
    >>> tar, d_tar = srnn.regularizers.temporal_activity(trace.output, 1.0, reduction="mean")
    >>> d_output = drop.backward(dropped, d_loss + d_ar).input + d_tar
    >>> grads = lstm.backward(trace, d_output)

This is AWD-LSTM's choice: of the last layer only, AR on the output after dropout, TAR on it before.

References
----------
Merity, McCann, Socher, Revisiting activation regularization for language RNNs, arXiv:1708.01009, 2017.
Merity, Keskar, Socher, Regularizing and optimizing LSTM language models, arXiv:1708.02182, 2017, section 4.6.
Krueger, Memisevic, Regularizing RNNs by stabilizing activations, arXiv:1511.08400, 2015.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import BoolArray, DType, FloatArray
from scratchrnn._validate import check_array, check_mask, check_real
from scratchrnn.layers.edge import enter_lengths

__all__ = ["activity", "norm_stabilizer", "temporal_activity"]

Reduction = Literal["paper", "mean"]
_REDUCTIONS = ("paper", "mean")


@np.errstate(all="ignore")  # inf and nan in data pass through
def activity(
    h: FloatArray, alpha: float, *, reduction: Reduction = "paper", lengths: Any = None
) -> tuple[np.floating[Any], FloatArray]:
    """Activity regularization (AR): the squared size of the hidden states.

    "paper":  (α/B) Σ_b 1/n_b Σ_{t<n_b} ‖h_tb‖²       d_h = 2α/(B n_b) h
    "mean":   α/(H N) Σ_b Σ_{t<n_b} ‖h_tb‖²           d_h = 2α/(H N) h,   N = Σ_b n_b

    Parameters
    ----------
    h : ndarray (T, B, H), float32 or float64
        Hidden states, time-major, as a layer's output has them, raw or dropped.
    alpha : float
        At least 0. AWD-LSTM takes 2 with "mean".
    reduction : "paper" or "mean"
    lengths : sequence of int (B,), optional
        Steps n_b of each sequence, each in 1..T; T for all when absent.

    Returns
    -------
    penalty : scalar of h's dtype
    d_h : ndarray (T, B, H)
        Its gradient, exactly zero on padding.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or range; the message names it.

    Examples
    --------
    >>> h = np.array([[[3.0, 4.0]], [[0.0, 1.0]]])  # T=2, B=1, H=2
    >>> penalty, d_h = activity(h, 1.0)
    >>> print(penalty, d_h[0, 0])
    13.0 [3. 4.]
    >>> print(activity(h, 1.0, reduction="mean")[0])
    6.5
    """
    counts = _steps_that_count(h, lengths)
    weights = _weights(check_real("alpha", alpha, least=0.0), counts, h.shape[2], reduction)
    d_h = _scaled(h, 2 * weights, counts)  # undoes ‖h_t‖²
    return _sum(weights, counts, _squares(h), h.dtype), d_h


@np.errstate(all="ignore")
def temporal_activity(
    h: FloatArray,
    beta: float,
    *,
    reduction: Reduction = "paper",
    lengths: Any = None,
    before: FloatArray | None = None,
    reset: BoolArray | None = None,
) -> tuple[np.floating[Any], FloatArray]:
    """Temporal activity regularization (TAR): the squared change of the hidden states from step to step.

    With j_t = h_t - h_{t-1}, summed over the jumps that count:

    "paper":  (β/B) Σ_b 1/m_b Σ_t ‖j_tb‖²             d_h_t = 2β/(B m_b) (j_t - j_{t+1})
    "mean":   β/(H M) Σ_b Σ_t ‖j_tb‖²                 d_h_t = 2β/(H M) (j_t - j_{t+1}),   M = Σ_b m_b

    Without `before` and `reset`, m_b = n_b - 1: the formula's 1/(T-1). Where no jump counts, as with T = 1, the penalty
    and the gradient are exactly zero.

    Parameters
    ----------
    h : ndarray (T, B, H), float32 or float64
        Hidden states, time-major.
    beta : float
        At least 0. AWD-LSTM takes 1 with "mean".
    reduction : "paper" or "mean"
    lengths : sequence of int (B,), optional
        Steps n_b of each sequence, each in 1..T; T for all when absent.
    before : ndarray (B, H), optional
        State before step 0, the last of the window before: the jump from it then counts. A constant: no gradient flows
        into it.
    reset : ndarray (T, B) of bool, optional
        True where the state was reset before step t: the jump into that step does not count.

    Returns
    -------
    penalty : scalar of h's dtype
    d_h : ndarray (T, B, H)
        Its gradient, exactly zero on padding.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or range; the message names it.

    Notes
    -----
    For a gradient of the initial state too, give `layer.h` (T+1, B, H) of a trace, whose slot 0 it is.

    Examples
    --------
    >>> h = np.array([[[0.0, 0.0]], [[3.0, 4.0]], [[3.0, 4.0]]])  # T=3, B=1, H=2
    >>> penalty, d_h = temporal_activity(h, 1.0)
    >>> print(penalty, d_h[:, 0].tolist())
    12.5 [[-3.0, -4.0], [3.0, 4.0], [0.0, 0.0]]
    """
    counts = _jumps_that_count(h, lengths, reset, first=before is not None)
    start = h[:1] if before is None else _check_state("before", before, h)[None]
    weights = _weights(check_real("beta", beta, least=0.0), counts, h.shape[2], reduction)
    jumps = np.diff(h, axis=0, prepend=start)  # (T, B, H) j_t
    d_h = _scaled(jumps, 2 * weights, counts)  # undoes ‖j_t‖², and j_t in h_t
    d_h[:-1] -= d_h[1:]  # undoes j_{t+1}, in h_t
    return _sum(weights, counts, _squares(jumps), h.dtype), d_h


@np.errstate(all="ignore")
def norm_stabilizer(
    h: FloatArray,
    beta: float,
    *,
    lengths: Any = None,
    initial: FloatArray | None = None,
    reset: BoolArray | None = None,
) -> tuple[np.floating[Any], FloatArray]:
    """Norm stabilizer: the squared change of the hidden states' size from step to step.

    With s_t = ‖h_t‖ and δ_t = s_t - s_{t-1}, summed over the jumps that count, the one from h_0 among them:

    (β/B) Σ_b 1/m_b Σ_t δ_tb²            d_h_t = 2β/(B m_b) (δ_t - δ_{t+1}) h_t/s_t,   0 where s_t = 0

    Without `reset`, m_b = n_b: the formula's 1/T.

    Parameters
    ----------
    h : ndarray (T, B, H), float32 or float64
        Hidden states, time-major.
    beta : float
        At least 0.
    lengths : sequence of int (B,), optional
        Steps n_b of each sequence, each in 1..T; T for all when absent.
    initial : ndarray (B, H), optional
        h_0, zeros when absent, as for a layer. A constant: no gradient flows into it.
    reset : ndarray (T, B) of bool, optional
        True where the state was reset before step t: the jump into that step does not count.

    Returns
    -------
    penalty : scalar of h's dtype
    d_h : ndarray (T, B, H)
        Its gradient, exactly zero on padding.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or range; the message names it.

    Examples
    --------
    >>> h = np.array([[[3.0, 4.0]], [[0.0, 7.0]]])  # T=2, B=1, H=2: norms 5 and 7
    >>> penalty, d_h = norm_stabilizer(h, 1.0, initial=np.array([[6.0, 0.0]]))
    >>> print(penalty, d_h[1, 0])
    2.5 [0. 2.]
    """
    counts = _jumps_that_count(h, lengths, reset, first=True)
    start = np.zeros_like(h[0]) if initial is None else _check_state("initial", initial, h)
    weights = _weights(check_real("beta", beta, least=0.0), counts, 1, "paper")
    norms = np.sqrt(_squares(h))  # (T, B) s_t
    changes = np.diff(norms, axis=0, prepend=np.sqrt(_squares(start[None])))  # (T, B) δ_t
    d_norms = np.where(counts, 2 * weights * changes, 0)  # undoes δ_t², and δ_t in s_t
    d_norms[:-1] -= d_norms[1:]  # undoes δ_{t+1}, in s_t
    # undoes s_t = ‖h_t‖; at 0 any vector of length up to 1 is a subgradient, and torch takes 0
    scale = np.divide(d_norms, norms, out=np.zeros_like(norms), where=norms != 0)
    return _sum(weights, counts, changes**2, h.dtype), _scaled(h, scale, d_norms != 0)


Wide = NDArray[np.float64]  # whatever h's dtype: a sum of many float32 squares would lose digits, or overflow


def _squares(h: FloatArray) -> Wide:  # (T, B, H) to (T, B)
    """‖h_tb‖²."""
    return np.einsum("tbh,tbh->tb", h, h, dtype=np.float64)


def _weights(coefficient: float, counts: BoolArray, units: int, reduction: Any) -> Wide:  # counts (T, B), to (B,)
    """What a term of each sequence is multiplied by; 0 where none counts."""
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"reduction: expected 'paper' or 'mean'; got {reduction!r}")
    terms = counts.sum(axis=0)  # (B,)
    divisors = len(terms) * terms if reduction == "paper" else np.full_like(terms, units * terms.sum())
    return np.divide(coefficient, divisors, out=np.zeros(terms.shape), where=divisors > 0)


def _sum(weights: Wide, counts: BoolArray, terms: Wide, dtype: DType) -> np.floating[Any]:  # (B,), (T, B), (T, B)
    """Weighted sum of the terms that count; what the others hold is not looked at."""
    scalar: np.floating[Any] = dtype.type(np.where(counts, weights * terms, 0).sum())
    return scalar


def _scaled(array: FloatArray, scale: Wide, counts: BoolArray) -> FloatArray:  # (T, B, H), (B,) or (T, B), (T, B)
    """Rows times their scale; exactly zero where nothing counts, whatever the row holds."""
    # in float64, and rounded once: the scale of a norm near zero is beyond float32
    product = np.multiply(array, scale[..., None], out=np.empty_like(array), casting="same_kind")
    product[~counts] = 0
    return product


def _steps_that_count(h: Any, lengths: Any) -> BoolArray:  # (T, B)
    """Which steps lie within their sequence."""
    check_array("h", h)
    if h.ndim != 3 or len(h) == 0:
        raise ValueError(f"h: expected shape (time, batch, hidden) with at least one step; got {h.shape}")
    steps, batch, _ = h.shape
    return np.arange(steps)[:, None] < enter_lengths(lengths, steps=steps, batch=batch, batched=True)


def _jumps_that_count(h: Any, lengths: Any, reset: Any, *, first: bool) -> BoolArray:  # (T, B)
    """Which jumps, each named by the step that it leads into, lie within their sequence and cross no reset."""
    counts = _steps_that_count(h, lengths)
    counts[0] &= first
    if reset is None:
        return counts
    return counts & ~check_mask("reset", reset, shape=counts.shape, why=f"for h of shape {h.shape}")


def _check_state(name: str, state: Any, h: FloatArray) -> FloatArray:  # (B, H)
    return check_array(name, state, shape=h.shape[1:], dtype=h.dtype, why=f"for h of shape {h.shape}")
