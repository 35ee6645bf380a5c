"""Position: what a state knows of the step it is at when the input never changes, and what becomes of it.

    s_t = F(s_{t-1})                 t = 1 ... T, then on; F one step of all layers at the constant input x
    D[i, j] = ‖s_i - s_j‖            a state knows its position as far as it differs from those at other steps
    s* = F(s*)                       refined from the last state; J = ∂F/∂s there, ρ = max |λ(J)|
    ‖s_t - s*‖ ~ ρᵗ                  as t grows: position fades at a rate that the Jacobian predicts

What becomes of the state is judged on a longer run, `run` steps after the first T. Two states are called equal if no
component differs by more than 1e-6 times the largest |component|, or 1 if that is larger. λ is the largest Lyapunov
exponent: the mean growth of log ‖v_t‖, v_t = J_t v_{t-1}, over the last 3/4 of the run. The first that holds is the
verdict:

    "diverges"      a state is not finite
    "fixed point"   ρ < 1, and the last state equals s*; or it is at most 1 % as far from s* as the first one, and came
                    nearer in the last quarter of the run by the square root of what ρ says, or more
    "undecided"     the last state equals the one before: it rests, or moves slowly, where nothing holds it
    "cycle"         there is a p, 2 <= p <= run / 4, such that the last p states equal the p before them, one by one,
                    and those at the same place in the cycle a quarter of the run before: it neither dies away nor
                    grows; the least is the period. "undecided" if nothing holds it: λ > 0, as for "chaos"
    "diverges"      in the last quarter of the run a |component| exceeds 1, and 1.2 times any before, and the state
                    moves 1.2 times as far as in the quarter before: it grows ever faster
    "grows"         the same at a steady or falling speed: a net that adds up its input, without a bound (a relu net)
                    or up to one that is far away (the c of an LSTM, i g / (1 - f) with f near 1)
    "chaos"         λ exceeds 0 and the growth of the state's own speed ‖s_t - s_{t-1}‖, as when it leaves a saddle, by
                    more than four standard errors of λ, from the means of ten blocks; and all in all v grows by e³
                    more, for it may grow as t does with λ = 0
    "undecided"     otherwise: such as a state that circles and never returns, with λ ≈ 0, or one that is still on its
                    way at the end: `run` more steps

Computed in float64, whatever the layer's dtype: in float32 the states of a net that contracts soon become equal, to the
last bit.

Dimensions: T steps, I input, S size of the state of all layers, P size of the part that distances are taken of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int, take_array
from scratchrnn.dynamics.autonomous import Autonomous, settle
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.gradflow.linearize import Linearized, Part
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import State

_NEAR = 1e-6  # two states are equal
_SETTLED = 0.01  # of the way from the first state to the fixed point
_STILL = 1e-10  # ‖F(s) - s‖ of a fixed point, or 8 roundings of its largest component
_ROUNDING = 1e-11  # distances below this say more of rounding than of the net
_GROWN = 1.2  # a steady growth by the same amount per step gives 4/3
_FASTER = 1.2
_BLOCKS, _ERRORS, _LEAST_GROWTH = 10, 4.0, 3.0  # of the Lyapunov exponent


@dataclass(frozen=True, eq=False)
class Position:
    """Result of `position`. Arrays are float64; slot 0 is the initial state, slot t the one after t steps.

    Attributes
    ----------
    verdict : str
        "fixed point", "cycle", "chaos", "grows", "diverges" or "undecided"; the criteria stand at the top of this
        module.
    period : int or None
        Of a cycle.
    states : ndarray (T+1, S)
        Of all layers; `slices` says which columns are which layer's h and c.
    distances : ndarray (T+1, T+1)
        ‖s_i - s_j‖ of the chosen part. Without slot 0, `distances[1:, 1:]`, the usual map of an RNN's outputs.
    to_fixed_point : ndarray (T+1,)
        ‖s_t - s*‖ of the chosen part; NaN where there is no s*.
    settling_time : int or None
        The first t from which on ‖s_t - s*‖ is at most 1 % of ‖s_0 - s*‖, of the chosen part, to the end of the longer
        run (or within rounding of s*); None if there is no such t, or the verdict is no fixed point.
    fixed_point : ndarray (S,) or None
        s*, refined from the last state of the run; None where the search from there ends at none. The state need not
        go there, unless the verdict says so.
    eigenvalues : ndarray (S,), complex128, or None
        Of the Jacobian at s*, from the largest |λ| to the smallest.
    spectral_radius : float
        ρ: the rate at which ‖s_t - s*‖ shrinks in the end, as the Jacobian has it. NaN where there is no s*.
    contraction : float
        The same rate as the distances have it: by least squares of log ‖s_t - s*‖ over the latter half of the steps
        from the settling time to where rounding begins. NaN if the verdict is no fixed point, or there are fewer than
        four such steps. A complex pair of eigenvalues makes the distances swing, so that few steps give a rough rate.
    lyapunov, lyapunov_error : float
        λ in nats per step, and its standard error; log ρ where the state goes to a fixed point.
    x : ndarray (I,)
        The input.
    part : tuple of (layer, "h" or "c"), or "all"
        What distances are taken of.
    slices : mapping of (layer, "h" or "c") to slice
    """

    verdict: str
    period: int | None
    states: FloatArray
    distances: FloatArray
    to_fixed_point: FloatArray
    settling_time: int | None
    fixed_point: FloatArray | None
    eigenvalues: NDArray[np.complex128] | None
    spectral_radius: float
    contraction: float
    lyapunov: float
    lyapunov_error: float
    x: FloatArray
    part: Part | str
    slices: Mapping[Part, slice]


def position(
    layer: Recurrent,
    x: FloatArray | None = None,
    *,
    seq_length: int = 50,
    state: State | None = None,
    part: Part | str | None = None,
    run: int = 2000,
) -> Position:
    """Run a net on one constant input and measure what its states tell of position, and for how long.

    Parameters
    ----------
    layer : RNN or LSTM
        Of one direction, any number of layers, float32 or float64. Dropout between layers does not act.
    x : ndarray (I,), optional
        The input at every step, ones when absent: one vector, without time or batch, so that no axis can be mistaken
        for another, whatever the layer's `batch_first`.
    seq_length : int
        T.
    state : ndarray (L, P), or for the LSTM (h_0 (L, P), c_0 (L, H)), optional
        Where to start, in the layer's dtype; zeros when absent.
    part : (layer, "h" or "c"), or "all", optional
        What distances are taken of: one layer's h or c, or the state of all; when absent the last layer's h, its
        output. The verdict, s*, ρ and λ are always of the whole state.
    run : int
        Steps beyond T on which the verdict is made, at least 40.

    Returns
    -------
    Position

    Raises
    ------
    ValueError, TypeError
        A bidirectional layer, or an argument of another shape, dtype or range.

    References
    ----------
    Strogatz, "Nonlinear dynamics and chaos", 1994, chapter 10: fixed points, cycles and Lyapunov exponents of maps.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> found = position(srnn.RNN(1, 32, rng=np.random.default_rng(0)))
    >>> found.verdict, found.settling_time, found.distances.shape
    ('fixed point', 7, (51, 51))
    >>> abs(found.contraction / found.spectral_radius - 1) < 0.05
    True
    """
    net = Autonomous(layer, x, default=1.0)
    steps, more = check_int("seq_length", seq_length, least=1), check_int("run", run, least=40)
    part, columns = _part(net, part)
    linear = net.run(steps + more, _in_float64(layer, state))
    states = np.concatenate([linear.states(slot) for slot in range(steps + more + 1)])  # (T+run+1, S)
    finite = bool(np.isfinite(states).all())

    fixed = eigenvalues = None
    radius = math.nan
    if finite:
        ends, q, _ = settle(net, states[-1:], 200)
        if math.sqrt(2 * q[0]) <= max(_STILL, 8 * np.finfo(np.float64).eps * _scale(ends[0])):
            fixed = ends[0]
            eigenvalues = np.linalg.eigvals(net.linearize(ends)[1][0]).astype(np.complex128, copy=False)
            eigenvalues = eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")]
            radius = float(np.abs(eigenvalues[0]))
    exponent, error = _lyapunov(linear, steps) if finite else (math.nan, math.nan)
    verdict, period = _verdict(states, more, fixed, radius, exponent, error)

    gap = np.full(len(states), np.nan) if fixed is None else row_norms(states[:, columns] - fixed[columns])
    settling = _settling(gap, _scale(states[-1])) if verdict == "fixed point" else None
    first = states[: steps + 1]
    with np.errstate(invalid="ignore"):  # inf - inf
        distances = np.stack([row_norms(first[:, columns] - s[columns]) for s in first])
    return Position(
        verdict=verdict,
        period=period,
        states=first,
        distances=distances,
        to_fixed_point=gap[: steps + 1],
        settling_time=settling,
        fixed_point=fixed,
        eigenvalues=eigenvalues,
        spectral_radius=radius,
        contraction=math.nan if settling is None else _contraction(gap, settling, _scale(states[-1])),
        lyapunov=exponent,
        lyapunov_error=error,
        x=net.x,
        part=part,
        slices=net.slices,
    )


def _part(net: Autonomous, part: Any) -> tuple[Part | str, slice]:
    """The part and its columns within s."""
    if part is None:
        part = (net.layer.num_layers - 1, "h")
    if isinstance(part, str) and part == "all":
        return part, slice(0, net.size)
    if not isinstance(part, tuple) or part not in net.slices:
        known = ", ".join(map(str, net.slices))
        raise ValueError(f"part: expected 'all' or one of {known}; got {part!r}")
    return part, net.slices[part]


def _in_float64(layer: Recurrent, state: Any) -> Any:
    """An initial state of the layer's dtype, in float64; its shape is checked where it is used."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(take_array("state", array, dtype=layer.dtype).astype(np.float64) for array in state)
    return take_array("state", state, dtype=layer.dtype).astype(np.float64)


def _scale(state: FloatArray) -> float:
    return max(1.0, float(np.abs(state).max()))


def _verdict(
    states: FloatArray,  # (T+run+1, S)
    run: int,
    fixed: FloatArray | None,
    radius: float,
    exponent: float,
    error: float,
) -> tuple[str, int | None]:
    """Verdict and period, by the criteria at the top."""
    if not np.isfinite(states).all():
        return "diverges", None
    last, equal, quarter = states[-1], _NEAR * _scale(states[-1]), run // 4
    if fixed is not None and radius < 1:
        first, before, now = row_norms(states[[0, -1 - quarter, -1]] - fixed)
        if np.abs(last - fixed).max() <= equal or (now <= _SETTLED * first and now <= before * radius ** (quarter / 2)):
            return "fixed point", None
    returned = np.abs(states[-2 : -quarter - 2 : -1] - last).max(axis=1) <= equal  # [p - 1]: s_{end-p} is s_end again
    if returned[0]:
        return "undecided", None
    moved = np.abs(np.diff(states, axis=0)).max(axis=1)  # (T+run,)
    steps = run - quarter  # that λ is measured on
    leaving = math.log(moved[-1] / moved[-1 - steps]) / steps
    apart = exponent - max(0.0, leaving) > max(_ERRORS * error, _LEAST_GROWTH / steps)
    for p in np.flatnonzero(returned) + 1:
        turns = (p, quarter // p * p)  # the one before, and the last that is a quarter of the run away
        if all(np.abs(states[-p:] - states[-p - back : -back]).max() <= equal for back in turns):
            return ("undecided", None) if apart else ("cycle", int(p))
    if np.abs(states[-quarter:]).max() > max(1.0, _GROWN * np.abs(states[:-quarter]).max()):
        faster = moved[-quarter:].sum() > _FASTER * moved[-2 * quarter : -quarter].sum()
        return ("diverges" if faster else "grows"), None
    return ("chaos" if apart else "undecided"), None


@np.errstate(over="ignore")
def _lyapunov(linear: Linearized, start: int) -> tuple[float, float]:
    """Mean growth of a tangent vector from step `start` on, in nats per step, and its standard error."""
    v = np.cos(np.arange(1.0, linear.size + 1))[None, :, None]  # (1, S, 1) no symmetry of a net is likely to be its own
    growth = np.empty(linear.steps - start)
    for n in range(len(growth)):
        v = linear.jvp(start + n, v)
        norm = float(np.linalg.norm(v))
        if norm == 0.0:
            return -math.inf, 0.0
        growth[n] = math.log(norm)
        v = v / norm
    settled = growth[len(growth) // 4 :]
    means = np.array([block.mean() for block in np.array_split(settled, _BLOCKS)])
    return float(settled.mean()), float(means.std(ddof=1) / math.sqrt(_BLOCKS))


def _settling(gap: FloatArray, scale: float) -> int | None:
    """The first slot from which on the distance (T+run+1,) stays within 1 % of the first, or within rounding."""
    outside = np.flatnonzero(gap > max(_SETTLED * gap[0], _ROUNDING * scale))
    first = 0 if not outside.size else int(outside[-1]) + 1
    return first if first < len(gap) else None


def _contraction(gap: FloatArray, settling: int, scale: float) -> float:
    """Factor per step of the distances (T+run+1,) between settling and rounding."""
    rounding = np.flatnonzero(gap[settling:] <= _ROUNDING * scale)
    end = settling + int(rounding[0]) if rounding.size else len(gap)
    begin = (settling + end) // 2
    if end - begin < 4:
        return math.nan
    t = np.arange(begin, end) - (begin + end - 1) / 2
    return math.exp(t @ np.log(gap[begin:end]) / (t @ t))
