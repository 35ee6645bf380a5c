"""Saturation: how much of the time a unit sits at an end of its squashing function, where its local gradient vanishes.

    h        left: h < -threshold,        right: h > threshold          as does the LSTM's candidate g and its tanh(c)
    i, f, o  left: gate < low (closed),   right: gate > high (open)

An LSTM's h = o ⊙ tanh(c) seldom comes near ±1: its saturation shows in the gates and in tanh(c). A forget gate that is
often open is what a long memory looks like, so saturation is no fault in itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import check_probability, check_real
from scratchrnn.dynamics.which import choose, own_steps
from scratchrnn.trace import Trace


@dataclass(frozen=True, eq=False)
class Ends:
    """Share of the time, from 0 to 1, that units sit at either end of their range.

    NaN values belong to neither end and not to the time either; where nothing else is left, a share is NaN.

    Attributes
    ----------
    left, right : ndarray (H,), float64
        Per unit, over all steps of all sequences.
    left_by_step, right_by_step : ndarray (T,), float64
        Per step in the input's order of time, over all units of the sequences that have this step; T is that of the
        longest one.
    left_share, right_share : float
        Over everything.
    nan_count : int
        Values that are NaN.
    """

    left: FloatArray
    right: FloatArray
    left_by_step: FloatArray
    right_by_step: FloatArray
    left_share: float
    right_share: float
    nan_count: int

    @property
    def share(self) -> float:
        """At either end."""
        return self.left_share + self.right_share


@dataclass(frozen=True, eq=False)
class Saturation:
    """Result of `saturation`, for one direction of one layer. Initial states and padding are left out.

    Attributes
    ----------
    rate : float
        Share of |h| > threshold, over everything.
    mean_abs, max_abs : float
        Of |h|. NaN values are left out of these and of every share, and counted in `nan_count`.
    nan_count : int
        Values of h that are NaN.
    h : Ends
        Per unit and per step; `rate` is its `share`.
    gates : mapping "i", "f", "o" -> Ends
        Of an LSTM; empty for an RNN.
    g, tanh_c : Ends or None
        Candidate and squashed cell state of an LSTM, at -threshold and threshold; None for an RNN.
    unit_derivative : ndarray (H,), float64
        Mean local derivative of each unit: 1 - h² of a tanh RNN, the share of h > 0 of a relu RNN, 1 - tanh²(c) of an
        LSTM. It is 1 for a unit that works in its linear part, 0.0975 at |h| = 0.95.
    mean_derivative : float
        Over all units.
    dead : ndarray (H,) of bool, or None
        Units of a relu RNN that are 0 at every step of every sequence; None for others.
    threshold, low, high : float
        As given.
    """

    rate: float
    mean_abs: float
    max_abs: float
    nan_count: int
    h: Ends
    gates: Mapping[str, Ends]
    g: Ends | None
    tanh_c: Ends | None
    unit_derivative: FloatArray
    mean_derivative: float
    dead: BoolArray | None
    threshold: float
    low: float
    high: float

    @property
    def dead_share(self) -> float | None:
        """Share of dead units of a relu RNN, None for others."""
        return None if self.dead is None else float(self.dead.mean())


def saturation(
    trace: Trace,
    *,
    layer: int | None = None,
    direction: str = "forward",
    threshold: float = 0.95,
    low: float = 0.1,
    high: float = 0.9,
) -> Saturation:
    """Measure how often one layer's hidden units and gates are saturated.

    Parameters
    ----------
    trace : Trace
        From a layer's `forward`.
    layer : int, optional
        Which layer. It may be left out where there is only one, in one direction.
    direction : "forward" or "reverse"
        Which direction of that layer.
    threshold : float
        For values in (-1, 1): |h| > threshold, strictly, is saturated. 0 or more.
    low, high : float
        For gates: below `low` is closed, above `high` is open, both strictly. 0 <= low <= high <= 1.

    Returns
    -------
    Saturation

    Raises
    ------
    ValueError
        Several layers or directions and no word on which, a trace without a single step, or a limit out of range.
    IndexError
        No such layer or direction.
    TypeError
        Not a trace.

    Notes
    -----
    The h of a relu RNN is not confined to (-1, 1), so that its `rate` says little: look at `dead`. Nor is an LSTM's h
    after a projection.

    References
    ----------
    Karpathy, Johnson, Fei-Fei, Visualizing and understanding recurrent networks, arXiv:1506.02078, 2015, section 4.2.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, rng=rng)
    >>> srnn.init.forget_bias_(lstm, 5.0)
    >>> found = saturation(lstm.forward(rng.standard_normal((50, 2, 3), np.float32)))
    >>> found.gates["f"].right, found.gates["f"].left_share, found.rate
    (array([1., 1., 1., 1.]), 0.0, 0.0)
    """
    part = choose(trace, layer, direction)
    threshold = check_real("threshold", threshold, least=0.0)
    low, high = check_probability("low", low), check_probability("high", high)
    if low > high:
        raise ValueError(f"low: expected at most high={high}; got {low}")
    steps = own_steps(part)  # (T, B)
    lstm = trace.cell == "lstm"

    def in_time(array: FloatArray) -> FloatArray:  # (T, B, H)
        return part.by_time(array)[: len(steps)]

    h = in_time(part.h[1:])
    tanh_c = np.tanh(in_time(part.c[1:])) if lstm else None
    # taken once: a minimal trace computes its gates at each access
    gates = dict(zip("ifgo", np.split(in_time(part.gates), 4, axis=-1), strict=True)) if lstm else {}
    own = h[steps]  # (N, P), N the number of steps that are no padding
    magnitude = np.abs(own[~np.isnan(own)])
    if tanh_c is not None:
        derivative = 1 - tanh_c[steps] ** 2
    elif trace.cell == "rnn_relu":
        derivative = np.where(np.isnan(own), own, own > 0)
    else:
        derivative = 1 - own**2
    unit_derivative, mean_derivative = _mean(derivative)
    ends = _ends(h, steps, -threshold, threshold)
    return Saturation(
        rate=ends.share,
        mean_abs=float(magnitude.mean(dtype=np.float64)) if magnitude.size else float("nan"),
        max_abs=float(magnitude.max()) if magnitude.size else float("nan"),
        nan_count=ends.nan_count,
        h=ends,
        gates={name: _ends(gates[name], steps, low, high) for name in "ifo"} if lstm else {},
        g=_ends(gates["g"], steps, -threshold, threshold) if lstm else None,
        tanh_c=None if tanh_c is None else _ends(tanh_c, steps, -threshold, threshold),
        unit_derivative=unit_derivative,
        mean_derivative=mean_derivative,
        dead=(own == 0).all(axis=0) if trace.cell == "rnn_relu" else None,
        threshold=threshold,
        low=low,
        high=high,
    )


def _ends(
    values: FloatArray,  # (T, B, H)
    steps: BoolArray,  # (T, B)
    low: float,
    high: float,
) -> Ends:
    known = steps[:, :, None] & ~np.isnan(values)
    left, right = known & (values < low), known & (values > high)

    def share(of: BoolArray, axes: tuple[int, ...]) -> FloatArray:
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is known
            return of.sum(axis=axes) / known.sum(axis=axes)

    unit, step, all_of_it = (0, 1), (1, 2), (0, 1, 2)
    return Ends(
        left=share(left, unit),
        right=share(right, unit),
        left_by_step=share(left, step),
        right_by_step=share(right, step),
        left_share=float(share(left, all_of_it)),
        right_share=float(share(right, all_of_it)),
        nan_count=int(steps.sum()) * values.shape[2] - int(known.sum()),
    )


def _mean(values: FloatArray) -> tuple[FloatArray, float]:
    """Mean over axis 0, and over everything, of what is not NaN; NaN where nothing else is there."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.sum(values, axis=0, where=known, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return total / count, float(total.sum() / count.sum())
