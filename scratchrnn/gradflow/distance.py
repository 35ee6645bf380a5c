"""How far back a gradient reaches: its norm at every distance from the last step, and how that norm decays.

    L = Σ_b ⟨d_last_b, output at the last step n_b - 1⟩
    input[k] = median over b of ‖dL/dx_{n_b-1-k}‖
    h[l, k]  = median over b of ‖dL/dh_{n_b-1-k}‖     of layer l, the state after the step that read that x
    c[l, k]  = the same of the cell state

k = 0 is the last step itself, so that every gradient here is one from the last step back to another.

The median, not the mean: norms far back differ by many powers of ten from sequence to sequence, so that a mean there is
the norm of one sequence or two. Norms and medians are float64, whatever the gradients are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_dtype, check_real, describe, take_array
from scratchrnn.backends import arrays
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import Trace


@dataclass(frozen=True, eq=False)
class GradientByDistance:
    """Median gradient norms by distance from the last step; float64 arrays, index 0 is the last step.

    T is the longest sequence's length.

    Attributes
    ----------
    input : ndarray (T,)
        Of dL/dx_t.
    h : ndarray (L, T)
        Of the total dL/dh_t of each layer.
    c : ndarray (L, T) or None
        Of the total dL/dc_t of each layer of an LSTM; None for an RNN.
    count : ndarray (T,) of int
        Sequences that reach back so far, over which the median is taken.
    """

    input: FloatArray
    h: FloatArray
    c: FloatArray | None
    count: IntArray


@dataclass(frozen=True)
class Decay:
    """What a curve of gradient norms by distance says about memory.

    Attributes
    ----------
    horizon : int
        The largest distance at which the norm is still at least `threshold` times that at distance 0. It is a distance:
        0 means that only the last step counts, or that there is no gradient at all.
    censored : bool
        The horizon is the end of the curve, so the true one may lie anywhere beyond.
    exploding : bool
        The norm at some distance exceeds that at distance 0 by more than 1 / `threshold`, or is not finite. A count of
        the steps within `threshold` of the largest norm then leaves out the nearest ones and means nothing.
    decay_factor : float
        r of the line through log norm against distance (least squares): the norm changes by r per step; 0 if it is
        zero from distance 1 on.
    decay_time : float
        -1 / log r, in steps: the norm falls by a factor e. Infinite for r >= 1, 0 for r = 0.
    """

    horizon: int
    censored: bool
    exploding: bool
    decay_factor: float
    decay_time: float


def gradient_by_distance(layer: Recurrent, trace: Trace, d_last: FloatArray) -> GradientByDistance:
    """Measure how far back the gradient of the last step reaches, on the data that `trace` was made from.

    One backward pass. Sequences of different lengths are aligned at their own last step. At each distance the median of
    the sequences' norms is taken, since a mean would follow the largest of them; that at distance 0, the usual
    reference, is a median like the others.

    Parameters
    ----------
    layer : RNN or LSTM
        In one direction.
    trace : Trace
        From this layer's `forward`, in training or inference mode.
    d_last : ndarray (B, P), or (P,) without a batch
        dL/d(output) at each sequence's last step; of the layer's dtype.

    Returns
    -------
    GradientByDistance

    Raises
    ------
    ValueError
        A bidirectional layer: the reverse direction's output at the last step has read nothing but the last input.
        Also a wrong shape, or a batch of 0.
    TypeError
        Not a layer, not a trace, or a wrong dtype.

    References
    ----------
    Pascanu, Mikolov, Bengio, On the difficulty of training recurrent neural networks, 2013, section 2. Madsen,
    Visualizing memorization in RNNs, Distill, 2019.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 8, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((20, 5, 3)))
    >>> by_distance = gradient_by_distance(lstm, trace, rng.standard_normal((5, 8)))
    >>> by_distance.input.shape, by_distance.c.shape, bool(by_distance.input[0] > 100 * by_distance.input[19])
    ((20,), (1, 20), True)
    """
    return average_by_distance(layer, trace, d_last, np.median)


def average_by_distance(
    layer: Recurrent, trace: Trace, d_last: FloatArray, average: Callable[..., Any]
) -> GradientByDistance:
    """`gradient_by_distance`, with another average than the median over the sequences."""
    check_one_direction(layer)
    if not isinstance(trace, Trace):
        raise TypeError(f"trace: expected what forward of this layer returned; got {describe(trace)}")
    if not len(trace.lengths):
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    h_n, *c_n = trace.state if isinstance(trace.state, tuple) else (trace.state,)
    why = "of the output at each sequence's last step"
    d_last = take_array("d_last", d_last, shape=h_n.shape[1:], dtype=layer.dtype, why=why)

    d_h_n = np.zeros_like(h_n)
    d_h_n[-1] = d_last  # the last layer's final state is the output at each sequence's own last step
    grads = layer.backward(trace, d_state=(d_h_n, np.zeros_like(c_n[0])) if c_n else d_h_n)

    dx: Any = grads.input
    if not trace.batched:
        dx = dx[:, None]
    elif layer.batch_first:
        dx = dx.transpose(1, 0, 2)
    parts = [grads[n] for n in range(layer.num_layers)]
    return GradientByDistance(
        average_norms(dx, trace.lengths, average),
        np.stack([average_norms(part.h[1:], trace.lengths, average) for part in parts]),
        np.stack([average_norms(part.c[1:], trace.lengths, average) for part in parts]) if c_n else None,
        (np.arange(trace.lengths.max())[:, None] < trace.lengths).sum(axis=1),
    )


def measure_decay(norms: FloatArray, *, threshold: float = 0.01, dtype: DTypeLike = np.float64) -> Decay:
    """Summarise a curve of gradient norms by distance: horizon, rate of decay, and what makes them unreliable.

    Parameters
    ----------
    norms : ndarray (T,)
        Index k is distance k, as in `GradientByDistance.input`, or one row of its `h` or `c`.
    threshold : float
        Between 0 and 1, both excluded.
    dtype : float32 or float64
        What the gradients were computed in. The rate is fitted over the distances before the first norm that is not
        finite or below tiny / eps of this dtype (1e-31 and 1e-292): there the smaller components are subnormal and
        lose their digits. Nor does it go on where float64 ends for a norm's ratio to that at distance 0.

    Returns
    -------
    Decay

    Raises
    ------
    ValueError
        Fewer than two distances, a negative norm, a norm at distance 0 that is not finite (or is 0 while others are
        not), or a threshold out of range.

    Examples
    --------
    >>> decay = measure_decay(0.5 ** np.arange(50.0))
    >>> decay.horizon, round(decay.decay_factor, 12), round(decay.decay_time, 4), decay.censored
    (6, 0.5, 1.4427, False)
    """
    norms = take_array("norms", norms)
    threshold = check_threshold(threshold)
    info = np.finfo(check_dtype("dtype", dtype))
    if norms.ndim != 1 or len(norms) < 2:
        raise ValueError(f"norms: expected shape (T,) with at least two distances; got {norms.shape}")
    if (norms < 0).any():
        raise ValueError(f"norms: expected none below 0; got {norms.min()}")
    if not norms.any():
        return Decay(horizon=0, censored=False, exploding=False, decay_factor=0.0, decay_time=0.0)
    first = float(norms[0])
    if not (np.isfinite(first) and first > 0):
        raise ValueError(
            f"norms: expected a finite norm above 0 at distance 0, which the others are compared with; got {first}"
        )

    with np.errstate(over="ignore"):
        ratio = norms.astype(np.float64) / first
    finite = bool(np.isfinite(ratio).all())
    reached = np.flatnonzero(~(ratio < threshold))  # NaN, which overflow leaves behind, counts as reached
    horizon = int(reached[-1])
    usable = np.isfinite(ratio) & (ratio > 0) & (norms >= info.tiny / info.eps)
    stop = len(norms) if usable.all() else int(np.argmin(usable))
    factor = _fit_factor(ratio[:stop]) if stop >= 2 else float(ratio[1])
    return Decay(
        horizon=horizon,
        censored=horizon == len(norms) - 1,
        exploding=not finite or float(ratio.max()) > 1.0 / threshold,
        decay_factor=factor,
        decay_time=float(np.inf) if not factor < 1.0 else 0.0 if factor == 0.0 else -1.0 / float(np.log(factor)),
    )


def decay_if_any(norms: FloatArray, *, threshold: float = 0.01, dtype: DTypeLike = np.float64) -> Decay:
    """`measure_decay`, for work that must not break off where distance 0 is no scale for the others.

    It is none where its norm is not finite, or 0 while others are not, as in a net whose units are saturated at most
    last steps. No rate can be told then, and as `Decay` has it the gradient is both exploding and censored.
    """
    if norms.any() and not (np.isfinite(norms[0]) and norms[0] > 0):
        return Decay(len(norms) - 1, censored=True, exploding=True, decay_factor=np.nan, decay_time=np.nan)
    return measure_decay(norms, threshold=threshold, dtype=dtype)


def check_one_direction(layer: Any) -> Recurrent:
    """Return `layer` if it is an RNN or LSTM layer in one direction."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected an RNN or LSTM layer; got {describe(layer)}")
    if layer.bidirectional:
        raise ValueError(
            "layer: expected one direction; got bidirectional=True. At the last step the reverse direction has read "
            "only the last input, so its output there says nothing about memory: measure a layer of one direction"
        )
    return layer


def check_threshold(threshold: Any) -> float:
    """Return `threshold` as a float if it lies between 0 and 1, both excluded."""
    value = check_real("threshold", threshold, above=0.0)
    if value >= 1.0:
        raise ValueError(f"threshold: expected a number below 1; got {value}")
    return value


def average_norms(
    d: FloatArray,  # (T, B, ·) in the input's order of time, zero on padding
    lengths: IntArray,  # (B,)
    average: Callable[..., Any],
) -> FloatArray:  # (max(lengths),) float64, by distance
    """An average over the sequences of the norm of each one's gradient, aligned at their own last steps."""
    by_distance = arrays.reverse_time(row_norms(d)[:, :, None], lengths)[: lengths.max(), :, 0]
    with np.errstate(over="ignore"):
        if (lengths == len(by_distance)).all():
            return np.asarray(average(by_distance, axis=1), np.float64)
        return np.array([average(row[lengths > k]) for k, row in enumerate(by_distance)], np.float64)


def _fit_factor(ratio: FloatArray) -> float:
    """Slope of the least-squares line through log ratio, as a factor per step."""
    distance = np.arange(len(ratio)) - (len(ratio) - 1) / 2
    return float(np.exp(distance @ np.log(ratio) / (distance @ distance)))
