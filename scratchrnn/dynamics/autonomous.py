"""A net whose input does not change is a map of its state alone, and its fixed points are the zeros of F(s) - s.

    F(s)   = state after one step from s, at the input x        s = (h⁰, c⁰, h¹, c¹, ...), (S,)
    r(s)   = F(s) - s                                           q(s) = ½ ‖r‖², half its speed squared
    A      = ∂r/∂s = J - I                                      J = ∂F/∂s in closed form, see gradflow/linearize.py
    (AᵀA + μI) δ = -Aᵀ r                                        a step of the search; Newton's own, -A⁻¹r, for μ → 0

With μ > 0 the step exists where A is singular, and a large μ makes it a short one down the slope of q: μ is divided by
ten after a step that lowered q, and multiplied by ten where none did (Levenberg and Marquardt).

Dimensions: N points at once, S size of the state.
"""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import describe, take_array
from scratchrnn.gradflow.linearize import Linearized, float64_copy, linearize_at, step
from scratchrnn.layers.stack import Recurrent

_FIRST, _LEAST, _MOST = 1e-3, 1e-12, 1e8  # of μ, in units of the mean diagonal of AᵀA


class Autonomous:
    """The map F of a layer at one input, in float64 whatever the layer's dtype.

    Parameters
    ----------
    layer : RNN or LSTM
        Of one direction. It is copied: its weights, exactly, as they are now. Dropout does not act.
    x : ndarray (I,), float32 or float64, or None
    default : float
        Every component of the input when x is None.

    Raises
    ------
    TypeError, ValueError
        Another layer, or an input of another shape.
    """

    def __init__(self, layer: Recurrent, x: FloatArray | None, *, default: float = 0.0) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN or LSTM; got {describe(layer)}")
        self.layer = float64_copy(layer)
        if x is None:
            x = np.full(layer.input_size, default)
        x = take_array("x", x, shape=(layer.input_size,), why="for one constant input, without time and batch")
        self.x = x.astype(np.float64)
        at_zero = linearize_at(self.layer, self.x[None], np.zeros((1, self._size())))
        self.slices, self.size, self.output = at_zero.slices, at_zero.size, at_zero.output

    def _size(self) -> int:
        per_layer = self.layer.output_size + (self.layer.hidden_size if self.layer.cell.has_c else 0)
        return self.layer.num_layers * per_layer

    def __call__(self, s: FloatArray) -> FloatArray:
        """F(s) (N, S) of s (N, S)."""
        return step(self.layer, self._inputs(len(s)), s)

    def linearize(self, s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """F(s) (N, S) and J (N, S, S) at s (N, S)."""
        linear = linearize_at(self.layer, self._inputs(len(s)), s)
        return linear.states(1), linear.state_jacobian(0)

    def run(self, steps: int, state: object = None) -> Linearized:
        """The net on `steps` copies of its input from a state of its own kind, without a batch."""
        inputs = np.broadcast_to(self.x, (steps, len(self.x)))  # unbatched, so that time is the first axis in any layer
        return Linearized(self.layer.forward(inputs, state, training=False))  # type: ignore[arg-type]

    def _inputs(self, count: int) -> FloatArray:
        return np.broadcast_to(self.x, (count, len(self.x)))


@np.errstate(all="ignore")  # a point that is not finite converges nowhere, and is seen to
def settle(
    net: Autonomous,
    s: FloatArray,  # (N, S)
    max_iterations: int,
) -> tuple[FloatArray, FloatArray, IntArray]:  # (N, S), (N,), (N,)
    """Lower q from each point until it no longer falls: (states, q there, iterations; max_iterations if cut short)."""
    s = s.copy()
    iterations = np.full(len(s), max_iterations)
    mu = np.full(len(s), _FIRST)
    image, jacobian = net.linearize(s)
    residual, slope = image - s, jacobian - np.eye(net.size)
    q = speed(residual)
    active = np.flatnonzero(np.isfinite(q))
    for n in range(max_iterations):
        # no sum of this size is known to better than a rounding of its terms
        floor = (np.finfo(np.float64).eps * np.abs(s[active]).max(axis=1, initial=1.0)) ** 2
        over = (q[active] <= floor) | (mu[active] > _MOST)
        iterations[active[over]] = n
        active = active[~over]
        if not active.size:
            break
        tried = s[active] + _step(slope[active], residual[active], mu[active])
        image, jacobian = net.linearize(tried)
        left = image - tried
        lower = speed(left) < q[active]
        better = active[lower]
        s[better], residual[better], q[better] = tried[lower], left[lower], speed(left[lower])
        slope[better] = jacobian[lower] - np.eye(net.size)
        mu[active] = np.maximum(np.where(lower, mu[active] / 10, mu[active] * 10), _LEAST)
    return s, q, iterations


def speed(residual: FloatArray) -> FloatArray:
    """q (N,) = ½ ‖r‖² of r (N, S)."""
    return 0.5 * np.einsum("ns,ns->n", residual, residual)


def _step(
    slope: FloatArray,  # (N, S, S) A
    residual: FloatArray,  # (N, S) r
    mu: FloatArray,  # (N,)
) -> FloatArray:  # (N, S) δ
    transposed = slope.transpose(0, 2, 1)
    normal = transposed @ slope  # (N, S, S) AᵀA
    diagonal = np.einsum("nss->ns", normal)
    diagonal += (mu * np.maximum(diagonal.mean(axis=1), np.finfo(np.float64).tiny))[:, None]
    return np.linalg.solve(normal, -(transposed @ residual[:, :, None]))[:, :, 0]
