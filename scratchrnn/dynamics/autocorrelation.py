"""Autocorrelation: how much a unit's state at one step tells about its state k steps later.

    T time   B batch   H units   n_b steps of sequence b   N_k = Σ_b max(n_b - k, 0) pairs of steps k apart

    μ_j    = mean of s_tbj over all steps of all sequences
    C_j(k) = 1/N_k Σ_b Σ_{t < n_b - k} (s_tbj - μ_j) (s_{t+k,bj} - μ_j)                      (1)
    r_j(k) = C_j(k) / C_j(0)                                                                 (2)

The mean and the variance are those of all sequences together: with a mean of its own, a short sequence would seem to
remember less than it does. (1) divides by the number of pairs, so that r does not shrink for lack of them; it gets
noisier instead, and beyond half of the longest sequence it is not taken unless asked for.

The time is where the median over the units falls below 1/e, on the straight line between the two lags around it. For
s_t = φ s_{t-1} + noise, r(k) = φ^k and the time is -1/log φ, up to the straight line.

References
----------
Box, Jenkins, Reinsel, Time series analysis, chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int, take_array
from scratchrnn.layers.edge import enter_lengths

THRESHOLD = float(np.exp(-1.0))


@dataclass(frozen=True, eq=False)
class Autocorrelation:
    """Result of `autocorrelation`; float64, index k of an array is lag k.

    Attributes
    ----------
    by_lag : ndarray (K+1,)
        Median of `units` over the units that have any.
    units : ndarray (K+1, H)
        r_j(k). NaN for a unit that never changes, and for one that holds NaN or inf.
    time : float
        Steps until `by_lag` falls below 1/e; infinite if it does not within K lags, NaN if no unit has any.
    unit_times : ndarray (H,)
        The same for each unit.
    left_out : int
        Units without an autocorrelation.
    """

    by_lag: FloatArray
    units: FloatArray
    time: float
    unit_times: FloatArray
    left_out: int


def autocorrelation(states: FloatArray, lengths: Any = None, *, max_lag: int | None = None) -> Autocorrelation:
    """Measure how long the states of each unit stay like themselves.

    Parameters
    ----------
    states : ndarray (T, B, H)
        Such as `trace[0].c[1:]` or `trace[0].h[1:]`.
    lengths : sequence of int (B,), optional
        Steps of each sequence; all T when absent.
    max_lag : int, optional
        K, 1 to the longest length less 1. When absent, half of the longest length.

    Returns
    -------
    Autocorrelation

    Raises
    ------
    ValueError
        Another rank, a batch of 0, no units, fewer than two steps, or a number out of range.
    TypeError
        Not an array, or not integers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> s = np.zeros((2000, 4, 1))
    >>> for t in range(1999):
    ...     s[t + 1] = 0.9 * s[t] + rng.standard_normal((4, 1))
    >>> found = autocorrelation(s, max_lag=50)
    >>> round(float(found.by_lag[1]), 2), round(found.time), round(-1 / np.log(0.9))
    (0.9, 9, 9)
    """
    states = take_array("states", states)
    if states.ndim != 3 or not states.size:
        raise ValueError(f"states: expected shape (T, B, H), none of them 0; got {states.shape}")
    steps, batch, _ = states.shape
    ns = enter_lengths(lengths, steps=steps, batch=batch, batched=True)
    longest = int(ns.max())
    if longest < 2:
        raise ValueError("states: expected a sequence of at least two steps; got none")
    lags = max(1, longest // 2) if max_lag is None else check_int("max_lag", max_lag, least=1, most=longest - 1)

    units = _by_unit(states.astype(np.float64, copy=False), ns, lags)
    known = ~np.isnan(units[0])
    by_lag = np.median(units[:, known], axis=1) if known.any() else np.full(lags + 1, np.nan)
    return Autocorrelation(
        by_lag=by_lag,
        units=units,
        time=_first_below(by_lag),
        unit_times=np.array([_first_below(r) for r in units.T]),
        left_out=int((~known).sum()),
    )


@np.errstate(all="ignore")
def _by_unit(s: FloatArray, lengths: IntArray, lags: int) -> FloatArray:  # (T, B, H) to (K+1, H)
    steps, batch, units = s.shape
    running = (np.arange(steps)[:, None] < lengths)[:, :, None]
    mean = s.sum(axis=(0, 1), where=running) / lengths.sum()
    total = np.zeros((lags + 1, units))
    for b in range(batch):  # one at a time, for the room that a spectrum takes
        centred = s[: lengths[b], b] - mean
        spectrum = np.fft.rfft(centred, n=int(lengths[b]) + lags, axis=0)  # room enough that ends do not meet
        total += np.fft.irfft(np.abs(spectrum) ** 2, n=int(lengths[b]) + lags, axis=0)[: lags + 1]
    pairs = np.maximum(lengths - np.arange(lags + 1)[:, None], 0).sum(axis=1)
    covariance = total / pairs[:, None]  # (1)
    least = s.min(axis=(0, 1), where=running, initial=np.inf)
    constant = least == s.max(axis=(0, 1), where=running, initial=-np.inf)
    return np.where(constant, np.nan, covariance / covariance[0])  # (2)


def _first_below(r: FloatArray) -> float:  # (K+1,), r[0] = 1
    if np.isnan(r[0]):
        return float("nan")
    below = np.flatnonzero(r < THRESHOLD)
    if not len(below):
        return float("inf")
    k = int(below[0])
    return float(k - 1 + (r[k - 1] - THRESHOLD) / (r[k - 1] - r[k]))
