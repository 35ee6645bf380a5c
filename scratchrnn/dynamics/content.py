"""Content: states of many sequences in the few directions along which they differ most (principal components).

    m    = mean of the N states                                  (H,)
    U S Vᵀ = S_all - m                                           singular value decomposition, (N, H)
    points = (S_all - m) Vᵀ[:K]ᵀ                                 (N, K)
    explained variance of component k = S_k² / (N - 1)           of all: Σ_n,h (s_nh - m_h)² / (N - 1)

A component's sign is arbitrary; here the entry of largest magnitude is positive (the first of equal ones).

Dimensions: N states, H units, K components; B batch, T time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_array, check_positive_int, describe, see, take_array
from scratchrnn.dynamics.which import choose, own_steps
from scratchrnn.trace import LayerTrace, Trace

PARTS = ("h", "c")
PLACES = ("final", "every step")


@dataclass(frozen=True, eq=False)
class Projection:
    """States in the directions along which they differ most. All arrays of numbers are float64.

    Attributes
    ----------
    points : ndarray (N, K)
        Each state's coordinates.
    components : ndarray (K, H)
        Directions of unit length, orthogonal, the one of most variance first; the largest entry of each is positive.
    mean : ndarray (H,)
        Of the states: the origin of `points`.
    explained_variance : ndarray (K,)
        Variance of the points along each component, with N - 1 in the denominator.
    explained_variance_ratio : ndarray (K,)
        The same as a share of the variance of all H units.
    sample, step : ndarray (N,) of int
        Which sequence each state is of, and the step of the input after which it stands. For states that came as an
        array, the rows' numbers, and 0.
    """

    points: FloatArray
    components: FloatArray
    mean: FloatArray
    explained_variance: FloatArray
    explained_variance_ratio: FloatArray
    sample: IntArray
    step: IntArray

    def transform(self, states: FloatArray) -> FloatArray:
        """Coordinates (..., K) of other states (..., H) along the same components."""
        states = take_array("states", states)
        if states.ndim == 0 or states.shape[-1] != len(self.mean):
            raise ValueError(f"states: expected shape (..., {len(self.mean)}), as projected; got {states.shape}")
        return (states - self.mean) @ self.components.T


def project(
    states: FloatArray | Trace,
    *,
    components: int = 2,
    layer: int | None = None,
    direction: str = "forward",
    part: str = "h",
    at: str = "final",
) -> Projection:
    """Project states on their principal components.

    Parameters
    ----------
    states : ndarray (N, H), or Trace
        States, or a forward pass that has them.
    components : int
        K, at most min(N, H).
    layer : int, optional
        Of a trace, which layer. It may be left out where there is only one, in one direction.
    direction : "forward" or "reverse"
        Of a trace, which direction. The final state of the reverse one stands at the input's first step.
    part : "h" or "c"
        Of a trace, hidden states, or an LSTM's cell states.
    at : "final" or "every step"
        Of a trace, the state at each sequence's own end, or the states after all steps, padding left out, sequence by
        sequence in the input's order of time.

    Returns
    -------
    Projection

    Raises
    ------
    ValueError
        Fewer than two states, states that are all equal or not finite, more components than there can be, an unknown
        name, or several layers and no word on which.
    IndexError
        No such layer or direction.
    TypeError
        Neither an array nor a trace.

    References
    ----------
    Jolliffe, Principal Component Analysis, 2nd ed., 2002, chapter 1. The rule for signs is that of scikit-learn's PCA.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 8, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((12, 5, 3), np.float32), lengths=[12, 7, 9, 1, 4])
    >>> found = project(trace, part="c")
    >>> found.points.shape, found.components.shape, found.step.tolist()
    ((5, 2), (2, 8), [11, 6, 8, 0, 3])
    """
    count = check_positive_int("components", components)
    rows, sample, step = _states_of(states, layer, direction, part, at)
    if len(rows) < 2:
        raise ValueError(f"states: expected at least two, since one has no direction of its own; got {len(rows)}")
    if count > min(rows.shape):
        raise ValueError(
            f"components: expected at most {min(rows.shape)} for {len(rows)} states of {rows.shape[1]} units; "
            f"got {count}"
        )
    if not np.isfinite(rows).all():
        row, unit = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise ValueError(
            f"states: expected finite values; got {rows[row, unit]} in unit {unit} of sample {sample[row]}"
        )
    if (rows == rows[0]).all():
        raise ValueError(f"states: expected at least two that differ; got {len(rows)} equal ones")

    mean = rows.mean(axis=0)
    centred = rows - mean
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)  # (min(N, H),), (min(N, H), H)
    largest = np.argmax(np.abs(directions), axis=1)[:, None]
    directions *= np.sign(np.take_along_axis(directions, largest, axis=1))
    variance = singular**2 / (len(rows) - 1)
    return Projection(
        points=centred @ directions[:count].T,
        components=directions[:count],
        mean=mean,
        explained_variance=variance[:count],
        explained_variance_ratio=variance[:count] / variance.sum(),
        sample=sample,
        step=step,
    )


def _states_of(
    states: Any, layer: int | None, direction: str, part: str, at: str
) -> tuple[FloatArray, IntArray, IntArray]:
    """The states (N, H) in float64, the sample and the step of each."""
    for name, value, known in (("part", part, PARTS), ("at", at, PLACES)):
        if value not in known:
            raise ValueError(f"{name}: expected {known[0]!r} or {known[1]!r}; got {value!r}")
    if isinstance(states, Trace):
        if part == "c" and states.cell != "lstm":
            raise ValueError(f"part: expected 'h', since an RNN has no cell state; got {part!r}")
        return _of_trace(choose(states, layer, direction), part, at)
    states = see("states", states)
    if not isinstance(states, np.ndarray):
        raise TypeError(f"states: expected an array (N, H) or what forward of a layer returned; got {describe(states)}")
    if layer is not None or (direction, part, at) != ("forward", "h", "final"):
        raise ValueError("layer, direction, part, at: expected only with a trace; got them with an array of states")
    check_array("states", states)
    if states.ndim != 2:
        raise ValueError(f"states: expected shape (N, H), one state in each row; got {states.shape}")
    return states.astype(np.float64), np.arange(len(states)), np.zeros(len(states), np.intp)


def _of_trace(found: LayerTrace, part: str, at: str) -> tuple[FloatArray, IntArray, IntArray]:
    array = found.h if part == "h" else found.c
    if at == "final":
        last = np.zeros_like(found.lengths) if found.reverse else found.lengths - 1
        return found.at_end(array).astype(np.float64), np.arange(len(last)), last
    own = own_steps(found).T  # (B, T')
    sample, step = np.nonzero(own)
    return found.by_time(array[1:])[step, sample].astype(np.float64), sample, step
