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
from scratchrnn._validate import check_probability, check_real, describe
from scratchrnn.trace import LayerTrace, Trace


@dataclass(frozen=True, eq=False)
class Ends:
    """Share of the time, from 0 to 1, that units sit at either end of their range.

    NaN values belong to neither end and not to the time either; where nothing else is left, a share is NaN.

    Attributes
    ----------
    left, right : ndarray (H,), float64
        Per unit, over all steps of all sequences.
    left_share, right_share : float
        Over all units as well.
    nan_count : int
        Values that are NaN.
    """

    left: FloatArray
    right: FloatArray
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
        Per unit; `rate` is its `share`.
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
    if not isinstance(trace, Trace):
        raise TypeError(f"trace: expected what forward of a layer returned; got {describe(trace)}")
    part = _choose(trace, layer, direction)
    threshold = check_real("threshold", threshold, least=0.0)
    low, high = check_probability("low", low), check_probability("high", high)
    if low > high:
        raise ValueError(f"low: expected at most high={high}; got {low}")
    steps = np.arange(len(part.input))[:, None] < part.lengths  # (T, B)
    if not steps.any():
        raise ValueError("trace: expected at least one sequence; got a batch of 0")

    h = part.h[1:][steps]  # (N, P), N the number of steps that are no padding
    magnitude = np.abs(h[~np.isnan(h)])
    ends = _ends(h, -threshold, threshold)
    lstm = trace.cell == "lstm"
    tanh_c = np.tanh(part.c[1:][steps]) if lstm else None
    if tanh_c is not None:
        derivative = 1 - tanh_c**2
    elif trace.cell == "rnn_relu":
        derivative = np.where(np.isnan(h), h, h > 0)
    else:
        derivative = 1 - h**2
    unit_derivative, mean_derivative = _mean(derivative)
    # taken once: a minimal trace computes its gates at each access
    gates = dict(zip("ifgo", np.split(part.gates[steps], 4, axis=-1), strict=True)) if lstm else {}
    return Saturation(
        rate=ends.share,
        mean_abs=float(magnitude.mean(dtype=np.float64)) if magnitude.size else float("nan"),
        max_abs=float(magnitude.max()) if magnitude.size else float("nan"),
        nan_count=ends.nan_count,
        h=ends,
        gates={name: _ends(gates[name], low, high) for name in "ifo"} if lstm else {},
        g=_ends(gates["g"], -threshold, threshold) if lstm else None,
        tanh_c=None if tanh_c is None else _ends(tanh_c, -threshold, threshold),
        unit_derivative=unit_derivative,
        mean_derivative=mean_derivative,
        dead=(h == 0).all(axis=0) if trace.cell == "rnn_relu" else None,
        threshold=threshold,
        low=low,
        high=high,
    )


def _choose(trace: Trace, layer: int | None, direction: str) -> LayerTrace:
    if layer is not None:
        return trace[layer, direction]
    if len(trace.layers) > 1:
        raise ValueError(
            f"layer: expected to be given, since there are {len(trace.layers)} layers and directions; "
            "as in saturation(trace, layer=0, direction='forward')"
        )
    return next(iter(trace.layers.values()))


def _ends(
    values: FloatArray,  # (N, H)
    low: float,
    high: float,
) -> Ends:
    unknown = np.isnan(values)
    known = np.where(unknown, values, 1.0)  # NaN keeps a value out of the means below
    left, left_share = _mean(np.where(values < low, 1.0, 0.0) * known)
    right, right_share = _mean(np.where(values > high, 1.0, 0.0) * known)
    return Ends(left, right, left_share, right_share, int(unknown.sum()))


def _mean(values: FloatArray) -> tuple[FloatArray, float]:
    """Mean over axis 0, and over everything, of what is not NaN; NaN where nothing else is there."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.sum(values, axis=0, where=known, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return total / count, float(total.sum() / count.sum())
