"""Connections: where a state goes that is pushed off a saddle with one unstable direction.

    J v = λ v, |λ| > 1               the one such direction
    s_0 = s* ± ε v,  s_{t+1} = F(s_t)

All other directions pull in, so these two runs are the only ways to leave: the saddle's unstable manifold. Where both
end at stable fixed points, the saddle stands on the border between what belongs to the one and what to the other.

Dimensions: S size of the state, M saddles, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_positive_int, check_real, describe
from scratchrnn.dynamics.autonomous import Autonomous
from scratchrnn.dynamics.fixed_points import FixedPoints
from scratchrnn.gradflow.linearize import Linearized, unflatten_state
from scratchrnn.layers.stack import Recurrent


@dataclass(frozen=True, eq=False)
class Connections:
    """Result of `connections`.

    Attributes
    ----------
    saddle : ndarray (M,) of int
        Which of the fixed points have exactly one unstable direction.
    end : ndarray (M, 2) of int
        Which of the fixed points the two runs came to; -1 where to none other than the saddle.
    paths : ndarray (M, 2, T+1, S), float64
        The runs.
    """

    saddle: IntArray
    end: IntArray
    paths: FloatArray


def connections(
    layer: Recurrent, points: FixedPoints, *, steps: int = 500, offset: float = 1e-3, near: float = 1e-3
) -> Connections:
    """Follow the net from each saddle that has one unstable direction, to both of its sides.

    Parameters
    ----------
    layer : RNN or LSTM
        Of which the points are.
    points : FixedPoints
        Found at some input, which stays for the runs.
    steps : int
        T.
    offset : float
        ε, how far off the saddle a run starts.
    near : float
        A run has come to a point if no component of its last state is further off than that.

    Returns
    -------
    Connections

    Raises
    ------
    ValueError, TypeError
        Points of another layer, or an argument out of range.
    """
    if not isinstance(points, FixedPoints):
        raise TypeError(f"points: expected what fixed_points() returned; got {describe(points)}")
    net = Autonomous(layer, points.x)
    if net.slices != points.slices:
        raise ValueError(f"points: expected those of {layer!r}; got those of a layer of another kind or size")
    check_positive_int("steps", steps)
    offset, near = check_real("offset", offset, above=0.0), check_real("near", near, above=0.0)

    saddle = np.flatnonzero(points.unstable_directions == 1)
    values, vectors = np.linalg.eig(points.jacobians[saddle])
    largest = np.argmax(np.abs(values), axis=1)
    out = np.take_along_axis(vectors, largest[:, None, None], axis=2)[:, :, 0].real  # (M, S), λ is real: it is alone
    start = points.states[saddle][:, None] + offset * np.stack([out, -out], axis=1)  # (M, 2, S)

    batch = 2 * len(saddle)
    inputs = np.broadcast_to(net.x, (batch, steps, len(net.x)) if layer.batch_first else (steps, batch, len(net.x)))
    state = unflatten_state(net.layer, start.reshape(batch, net.size))
    linear = Linearized(net.layer.forward(inputs, state, training=False))
    paths = np.stack([linear.states(slot) for slot in range(steps + 1)], axis=1)  # (2M, T+1, S)
    distance = np.abs(paths[:, -1, None] - points.states).max(axis=2)  # (2M, K)
    distance[np.arange(batch), np.repeat(saddle, 2)] = np.inf
    end = np.where((distance <= near).any(axis=1), distance.argmin(axis=1), -1) if batch else np.zeros(0, np.intp)
    return Connections(saddle, end.reshape(-1, 2), paths.reshape(-1, 2, steps + 1, net.size))
