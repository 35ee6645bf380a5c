"""Fixed points: where the state of a net stays as long as its input does, and what happens to a state close by.

    s* = F(s*, x)                    F one step of all layers, x constant
    s_t - s* ≈ Jᵗ (s_0 - s*)         J = ∂F/∂s at s*: an eigenvalue with |λ| < 1 pulls in, one with |λ| > 1 pushes out
    stable: every |λ| < 1            a saddle: some |λ| > 1, its unstable directions; the rest of them bring states near

What a net remembers without end are its stable fixed points (and cycles); saddles stand between them and decide which
one a state goes to. The search starts from states that the net visits and lowers q = ½ ‖F(s) - s‖² to zero, by damped
Newton steps on the closed-form Jacobian; see autonomous.py. It finds saddles as well as stable points, since it follows
not the net's own motion. That there are no others it cannot show.

Everything is computed in float64, from the layer's weights as they are, and returned so: in float32, F(s) = s holds for
any state that moves by less than a rounding.

Dimensions: B batch, T time, I input, S size of the state of all layers, N candidates, K fixed points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import check_array, check_positive_int, check_real, describe, see
from scratchrnn.dynamics.autonomous import Autonomous, settle
from scratchrnn.gradflow.linearize import Linearized, Part
from scratchrnn.layers.stack import Recurrent
from scratchrnn.rng import Rng, check_rng, draw_normal, draw_uniform
from scratchrnn.trace import Trace


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Result of `fixed_points`: stable ones first, then by the number of unstable directions. Arrays are float64.

    Attributes
    ----------
    states : ndarray (K, S)
        The fixed points; `slices` says which columns are which layer's h and c.
    speed : ndarray (K,)
        q = ½ ‖F(s) - s‖² at each: half the squared speed. The name is the literature's.
    jacobians : ndarray (K, S, S)
        J = ∂F/∂s at each.
    eigenvalues : ndarray (K, S), complex128
        Of J, from the largest |λ| to the smallest.
    found : ndarray (K,) of int
        Candidates that came to each.
    slow_states : ndarray (M, S)
        Slow points, if they were asked for: where q is at its lowest around, at most `slow`, but not zero.
    slow_speed : ndarray (M,)
        q there.
    candidates, unconverged : int
        Candidates, and those of them that came to no fixed point, slow points included.
    x : ndarray (I,)
        The input.
    slices : mapping of (layer, "h" or "c") to slice
        Where each layer's states lie within s.
    output : slice
        Where the last layer's h lies, which a readout reads.
    """

    states: FloatArray
    speed: FloatArray
    jacobians: FloatArray
    eigenvalues: NDArray[np.complex128]
    found: IntArray
    slow_states: FloatArray
    slow_speed: FloatArray
    candidates: int
    unconverged: int
    x: FloatArray
    slices: Mapping[Part, slice]
    output: slice

    def __len__(self) -> int:
        return len(self.states)

    @property
    def spectral_radius(self) -> FloatArray:
        """Largest |λ| (K,)."""
        return np.abs(self.eigenvalues[:, 0])

    @property
    def stable(self) -> BoolArray:
        """Whether every |λ| < 1 (K,)."""
        return self.spectral_radius < 1

    @property
    def unstable_directions(self) -> IntArray:
        """Eigenvalues with |λ| > 1 (K,)."""
        return np.count_nonzero(np.abs(self.eigenvalues) > 1, axis=1)


def fixed_points(
    layer: Recurrent,
    candidates: FloatArray | Trace,
    *,
    x: FloatArray | None = None,
    count: int = 512,
    noise: float = 0.0,
    rng: Rng | None = None,
    tolerance: float = 1e-20,
    same: float = 1e-4,
    slow: float | None = None,
    max_iterations: int = 200,
) -> FixedPoints:
    """Find states that one step at a constant input leaves where they are, and linearise the net there.

    Parameters
    ----------
    layer : RNN or LSTM
        Of one direction, any number of layers, float32 or float64. Dropout between layers does not act.
    candidates : ndarray (N, S), or Trace
        Where to start. Of a trace of this layer, the states after each step (no padding); `count` of them, drawn
        without replacement, where there are more.
    x : ndarray (I,), optional
        The input; zeros when absent.
    count : int
        Candidates drawn from a trace. An array is used as it is.
    noise : float
        Standard deviation of what is added to each component of each candidate. A net spends its time near its stable
        points; noise finds more of the saddles between them.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the candidates, then the noise. Fresh entropy when absent.
    tolerance : float
        The largest q of a fixed point. Newton's steps end far below it, at about 1e-31, unless J - I is singular.
    same : float
        Two points are one if no component differs by more than `same` times the largest |component|, or 1 if that is
        larger.
    slow : float, optional
        The largest q of a slow point, above `tolerance`. Absent: none are reported.
    max_iterations : int
        Steps of the search. Trained nets took 8 in the median, 40 at most (flip-flop, 16 units, noise 0.5).

    Returns
    -------
    FixedPoints

    Raises
    ------
    ValueError, TypeError
        A bidirectional layer, an argument out of range, or candidates of another layer.

    Warnings
    --------
    Points are found, never proved complete: another set of candidates may show more. Where F is not differentiable (a
    relu at 0) or J has an eigenvalue at 1 (a line of fixed points), the count depends on `same` and on the candidates.
    q has minima above zero in which a search can end. Where units saturate, it often does from states drawn at random
    (in 85 % of them, a tanh net of five units that hold themselves), and seldom from states that the net visits.

    References
    ----------
    Sussillo, Barak, "Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural networks",
    Neural Computation 25, 2013. Golub, Sussillo, "FixedPointFinder", Journal of Open Source Software 3, 2018.

    Examples
    --------
    One unit, h' = tanh(2 h), has three: 0, which repels, and ±0.9575.

    >>> import scratchrnn as srnn
    >>> rnn = srnn.RNN(1, 1, bias=False, dtype=np.float64)
    >>> rnn.weight_hh_l0 = np.array([[2.0]])
    >>> points = fixed_points(rnn, np.linspace(-1, 1, 11)[:, None])
    >>> points.unstable_directions.tolist(), np.sort(points.states[:, 0]).round(4).tolist()
    ([0, 0, 1], [-0.9575, 0.0, 0.9575])
    """
    net = Autonomous(layer, x)
    check_positive_int("count", count)
    noise = check_real("noise", noise, least=0.0)
    tolerance, same = check_real("tolerance", tolerance, above=0.0), check_real("same", same, above=0.0)
    if slow is not None:
        check_real("slow", slow, above=tolerance)
    check_positive_int("max_iterations", max_iterations)
    source = check_rng("rng", rng)
    start = _start(net, candidates, count, source)
    if noise:
        start = start + draw_normal(source, 0.0, noise, start.shape, np.float64)

    states, q, iterations = settle(net, start, max_iterations)
    ended = np.flatnonzero(q <= tolerance)
    kept, found = _distinct(states, ended[np.argsort(q[ended], kind="stable")], same)
    jacobians = net.linearize(states[kept])[1]
    eigenvalues = np.linalg.eigvals(jacobians).astype(np.complex128, copy=False)
    eigenvalues = np.take_along_axis(eigenvalues, np.argsort(-np.abs(eigenvalues), axis=1, kind="stable"), axis=1)
    order = np.lexsort((np.abs(eigenvalues[:, 0]), np.count_nonzero(np.abs(eigenvalues) > 1, axis=1)))

    resting = np.flatnonzero((q > tolerance) & (q <= (slow or 0.0)) & (iterations < max_iterations))
    slowest, _ = _distinct(states, resting[np.argsort(q[resting], kind="stable")], same)
    return FixedPoints(
        states=states[kept][order],
        speed=q[kept][order],
        jacobians=jacobians[order],
        eigenvalues=eigenvalues[order],
        found=found[order],
        slow_states=states[slowest],
        slow_speed=q[slowest],
        candidates=len(start),
        unconverged=len(start) - len(ended),
        x=net.x,
        slices=net.slices,
        output=net.output,
    )


def _start(net: Autonomous, candidates: object, count: int, source: Rng) -> FloatArray:
    """Candidates (N, S) in float64."""
    if not isinstance(candidates, Trace):
        candidates = see("candidates", candidates)
        if not isinstance(candidates, np.ndarray):
            raise TypeError(f"candidates: expected an array (N, S) or a trace; got {describe(candidates)}")
        check_array("candidates", candidates)
        if candidates.ndim != 2 or candidates.shape[1] != net.size:
            raise ValueError(
                f"candidates: expected shape (N, {net.size}), states of all layers; got {candidates.shape}"
            )
        return candidates.astype(np.float64)
    linear = Linearized(candidates)
    if linear.slices != net.slices:
        raise ValueError(f"candidates: expected a trace of {net.layer!r}; got one of a layer of another kind or size")
    taken = np.arange(linear.steps)[:, None] < linear.lengths  # (T, B)
    states = np.stack([linear.states(t + 1) for t in range(linear.steps)])[taken]  # (·, S)
    if len(states) > count:
        drawn = np.argsort(draw_uniform(source, 0.0, 1.0, (len(states),), np.float64), kind="stable")[:count]
        states = states[drawn]
    return states.astype(np.float64)


def _distinct(states: FloatArray, order: IntArray, same: float) -> tuple[IntArray, IntArray]:
    """The first of each cluster, in `order`, and how many are in it: indices (K,) and counts (K,)."""
    kept: list[int] = []
    counts: list[int] = []
    left = order
    while left.size:
        first = states[left[0]]
        near = np.abs(states[left] - first).max(axis=1) <= same * max(1.0, float(np.abs(first).max()))
        kept.append(int(left[0]))
        counts.append(int(near.sum()))
        left = left[~near]
    return np.array(kept, np.intp), np.array(counts, np.intp)
