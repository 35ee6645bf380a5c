"""Lyapunov exponents: the mean rate per step at which small changes of the state grow, direction by direction.

    B trajectories   S size of the state of the whole stack (h and c of every layer)   K exponents

    s_t = F(x_t, s_{t-1}),   J_t = ∂s_t/∂s_{t-1} at (x_t, s_{t-1})                                          (1)
    J_t Q_{t-1} = Q_t R_t          orthonormal Q_t (S, K), upper triangular R_t with R_ii > 0               (2)
    λ_i = lim 1/T Σ_t log R_ii(t)  per step, natural logarithm, λ_1 >= λ_2 >= ...                            (3)

λ_1 > 0: neighbouring trajectories part exponentially, and gradients through time explode along almost every direction
(Mikhaeil et al. 2021); λ_1 < 0: the state forgets where it started. The volume that K directions span grows by
λ_1 + ... + λ_K.

Two things must settle before growth is counted: the state, which has to reach the attractor, and Q, whose columns have
to turn into the directions that the exponents belong to. Both have a warm-up. (2) follows the product J_t ... J_1: with
transposed Jacobians in this order, or with J_t at the state after the step, one gets the exponents of no trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int, check_positive_int, check_real
from scratchrnn.gradflow._qr import signed_qr
from scratchrnn.gradflow.distance import check_one_direction
from scratchrnn.gradflow.linearize import Linearized, float64_copy, unflatten_state
from scratchrnn.layers import edge
from scratchrnn.layers.stack import Recurrent
from scratchrnn.rng import Rng, check_rng, draw_normal, draw_uniform
from scratchrnn.trace import Trace

STEPS = 1000  # of an autonomous run, when not said
_CHUNK = 64  # steps whose trace is held at once
_BLOCKS = 10  # of time, per trajectory, for the standard error


@dataclass(frozen=True, eq=False)
class LyapunovSpectrum:
    """Result of `lyapunov_spectrum`. Everything is float64, per time step, in natural logarithms.

    Attributes
    ----------
    exponents : ndarray (K,)
        λ_1 >= ... >= λ_K: means of `growth` over time and trajectories. -inf for a direction that died, which is one
        that a step mapped to zero.
    standard_error : ndarray (K,)
        Of `exponents`, from the scatter of means over 10 blocks of time of each trajectory. It is right where growth
        forgets itself within a block and all trajectories are on one attractor. It knows nothing of a warm-up that was
        too short. NaN for -inf, and with fewer than 2 values of `growth` to a block.
    growth : ndarray (N, B, K)
        log R_ii of each factorisation, divided by `qr_every`: local growth rates, N = steps / qr_every of them.
    size : int
        S, the number of exponents that there are.
    steps, warmup, warmup_q, qr_every : int
        As used.
    """

    exponents: FloatArray
    standard_error: FloatArray
    growth: FloatArray
    size: int
    steps: int
    warmup: int
    warmup_q: int
    qr_every: int

    @property
    def by_trajectory(self) -> FloatArray:
        """Mean of `growth` over time (B, K). Rows that differ by more than chance belong to different attractors."""
        return self.growth.mean(axis=0)

    @property
    def running(self) -> FloatArray:
        """Mean of `growth` up to each time (N, K), over all trajectories: whether the exponents have converged."""
        means = self.growth.mean(axis=1)
        return np.cumsum(means, axis=0) / np.arange(1, len(means) + 1)[:, None]

    @property
    def entropy(self) -> float:
        """Sum of the positive exponents, in nats per step.

        The entropy rate h_KS, if the attractor has a smooth measure along its unstable directions (Pesin); always an
        upper bound of it (Ruelle). NaN if more exponents would be needed: all K are positive, and K < S.
        """
        if len(self.exponents) < self.size and self.exponents[-1] > 0:
            return float("nan")
        return float(self.exponents[self.exponents > 0].sum())

    @property
    def kaplan_yorke_dimension(self) -> float:
        """D = k + (λ_1 + ... + λ_k) / |λ_{k+1}|, with the largest k whose sum is not negative; 0 if λ_1 < 0.

        A small volume of dimension D keeps its size. S if no sum is negative; NaN if none of the K < S exponents that
        were asked for makes it so.
        """
        return _kaplan_yorke(self.exponents, self.size)


def lyapunov_spectrum(
    layer: Recurrent,
    x: FloatArray | None = None,
    *,
    steps: int | None = None,
    warmup: int = 200,
    warmup_q: int = 100,
    exponents: int | None = None,
    trajectories: int | None = None,
    qr_every: int = 1,
    rng: Rng | None = None,
) -> LyapunovSpectrum:
    """Measure the Lyapunov spectrum of a net, left to itself or along an input.

    Each trajectory starts at a random state, runs `warmup` steps, then `warmup_q` more in which Q turns, then `steps`
    in which growth is counted. Dropout between layers does not act. All is computed in float64 with the layer's own
    weights, whatever its dtype: in float32 the smallest exponents would be rounding. The layer is not changed.

    Parameters
    ----------
    layer : RNN or LSTM
        In one direction, any number of layers, with or without projection.
    x : ndarray (T, B, I), or (B, T, I) with `batch_first`, or (T, I), optional
        The input, of the layer's dtype, one trajectory for each of its B sequences; T at least
        warmup + warmup_q + steps, and what is beyond is not used. Absent: an input of zeros, the autonomous net (with
        its biases).
    steps : int, optional
        A multiple of `qr_every`. Absent: 1000 (its largest multiple) without x, all that x has left with it.
    warmup : int
        Steps for the state, at least 0.
    warmup_q : int
        Steps for Q after those, at least 0. Neighbouring exponents part like exp(-(λ_i - λ_{i+1}) t), so that close
        ones need many; what is left when counting starts is an error that falls like 1 / steps.
    exponents : int, optional
        K, how many, from the largest on. Absent: all S. Few cost much less.
    trajectories : int, optional
        B of an autonomous run, 1 when absent. Not to be given with x, which has its own B.
    qr_every : int
        Steps between factorisations. The exponents are the same, as long as the fastest direction does not outgrow the
        K-th by 1 / (S·eps) in so many steps: then the slower ones are lost, and taken for dead.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the initial states from U(-1, 1), as s (B, S), then Q from N(0, 1), (S, K), the same for all
        trajectories. Fresh entropy when absent.

    Returns
    -------
    LyapunovSpectrum

    Raises
    ------
    ValueError
        Both directions, an argument out of range, too short an x, or states that overflow.
    TypeError
        Not a layer, or an argument of the wrong type.

    Notes
    -----
    A direction dies where a step maps it to zero, as with relu units that are off, or tanh units so far out that h
    rounds to ±1 in float64 (a pre-activation beyond 19). Its exponent is -inf, as the definition has it. The others
    do not suffer: rows of J that are faint because their unit is saturated keep their digits.

    References
    ----------
    Benettin et al., Lyapunov characteristic exponents for smooth dynamical systems, Meccanica 15, 1980. Engelken, Wolf,
    Abbott, Lyapunov spectra of chaotic recurrent neural networks, arXiv:2006.02427. Vogt et al., On Lyapunov exponents
    for RNNs, arXiv:2006.14123. Mikhaeil, Monfared, Durstewitz, arXiv:2110.07238.

    Examples
    --------
    At its fixed point 0 the exponents of h' = tanh(W h) are log|eigenvalues of W|:

    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> rnn = srnn.RNN(1, 2, bias=False, dtype=np.float64, rng=rng)
    >>> rnn.weight_hh_l0 = np.array([[0.5, 0.1], [0.0, 0.25]])
    >>> spectrum = lyapunov_spectrum(rnn, steps=100, rng=rng)
    >>> print(np.exp(spectrum.exponents).round(4), spectrum.kaplan_yorke_dimension)
    [0.5  0.25] 0.0
    """
    check_one_direction(layer)
    every = check_positive_int("qr_every", qr_every)
    warmup = check_int("warmup", warmup, least=0)
    warmup_q = check_int("warmup_q", warmup_q, least=0)
    source = check_rng("rng", rng)
    xs, batch, steps = _enter(layer, x, steps, warmup + warmup_q, trajectories, every)
    size = layer.num_layers * (layer.output_size + (layer.hidden_size if layer.cell.has_c else 0))
    count = size if exponents is None else check_int("exponents", exponents, least=1, most=size)

    start = draw_uniform(source, -1.0, 1.0, (batch, size), np.float64)
    q, _ = signed_qr(draw_normal(source, 0.0, 1.0, (1, size, count), np.float64))
    q = np.repeat(q, batch, axis=0)  # (B, S, K)
    growth = np.empty((steps // every, batch, count))
    for n, (linear, t) in enumerate(_along(float64_copy(layer), xs, start, warmup, warmup_q + steps)):
        q = linear.jvp(t, q)  # (2)
        counted = n + 1 - warmup_q
        if counted % every == 0:
            q, r = signed_qr(q)
            if counted > 0:
                with np.errstate(divide="ignore"):  # a dead direction
                    growth[counted // every - 1] = np.log(np.diagonal(r, axis1=1, axis2=2)) / every

    growth = growth[:, :, np.argsort(-growth.mean(axis=(0, 1)), kind="stable")]  # by chance two may come the other way
    return LyapunovSpectrum(
        growth.mean(axis=(0, 1)), _standard_error(growth), growth, size, steps, warmup, warmup_q, every
    )


def mean_field_exponent(g: float) -> float:
    """λ_1 of h' = tanh(W h) with entries of W from N(0, g²/N), in the limit N → ∞.

    Each unit then is a Gaussian of its own, of variance q before tanh, at every step anew (z ~ N(0, 1)):

        q = g² E[tanh²(√q z)],    λ_1 = ½ log(g² E[(1 - tanh²(√q z))²])

    For g <= 1, q = 0 and λ_1 = log g.

    Parameters
    ----------
    g : float
        Above 0.

    Raises
    ------
    ValueError, TypeError
        Not a finite number above 0.

    References
    ----------
    Molgedey, Schuchhardt, Schuster, Suppressing chaos in neural networks by noise, Phys. Rev. Lett. 69, 1992. The same
    E decides between vanishing and exploding gradients in Chen, Pennington, Schoenholz, arXiv:1806.05394.

    Examples
    --------
    >>> [round(mean_field_exponent(g), 3) for g in (0.5, 1.5, 3.0)]
    [-0.693, 0.065, 0.31]
    """
    g = check_real("g", g, above=0.0)
    if g <= 1:
        return float(np.log(g))
    # the trapezoidal rule errs by exp(-2π d / spacing) with d >= π / 2g, where tanh has its poles
    z = np.linspace(-10, 10, 20 * round(10 * g) + 1)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    low, high = 0.0, g * g  # g² E[tanh²(√q z)] > q exactly below the solution
    for _ in range(100):
        q = (low + high) / 2
        low, high = (q, high) if g * g * (weight @ np.tanh(np.sqrt(q) * z) ** 2) > q else (low, q)
    slope = 1 - np.tanh(np.sqrt(low) * z) ** 2
    return float(np.log(g * g * (weight @ slope**2)) / 2)


def _enter(
    layer: Recurrent, x: Any, steps: Any, before: int, trajectories: Any, every: int
) -> tuple[FloatArray | None, int, int]:
    """x (T, B, I) or None, B and the steps to count."""
    if x is None:
        batch = 1 if trajectories is None else check_positive_int("trajectories", trajectories)
        xs, available = None, max(STEPS, every)
    else:
        if trajectories is not None:
            raise ValueError(f"trajectories: expected None with x, which has its own; got {trajectories}")
        xs, _ = edge.view_input(x, input_size=layer.input_size, batch_first=layer.batch_first, dtype=layer.dtype)
        batch, available = xs.shape[1], len(xs) - before
        if batch == 0:
            raise ValueError("x: expected at least one sequence; got a batch of 0")
        wanted = every if steps is None else steps
        if available < check_positive_int("steps", wanted):
            raise ValueError(
                f"x: expected at least {before + wanted} time steps, {before} of warm-up and {wanted} to count; "
                f"got {len(xs)}"
            )
    count = available // every * every if steps is None else check_positive_int("steps", steps)
    if count % every:
        raise ValueError(f"steps: expected a multiple of qr_every={every}; got {count}")
    return xs, batch, count


def _along(
    layer: Recurrent,
    xs: FloatArray | None,  # (T, B, I)
    start: FloatArray,  # (B, S)
    warmup: int,
    steps: int,
) -> Iterator[tuple[Linearized, int]]:
    """The linearised steps after the warm-up, each as (trace's linearisation, its step there); few are held at once."""
    state, done, end = unflatten_state(layer, start), 0, warmup + steps
    while done < end:
        stop = min(done + _CHUNK, end if done >= warmup else warmup)
        shape = (stop - done, len(start), layer.input_size)
        read = np.zeros(shape) if xs is None else xs[done:stop].astype(np.float64)
        trace = layer.forward(read.transpose(1, 0, 2) if layer.batch_first else read, state, training=False)
        _check_finite(trace, done)
        if done >= warmup:
            linear = Linearized(trace)
            yield from ((linear, t) for t in range(stop - done))
        state, done = trace.state, stop


def _check_finite(trace: Trace, done: int) -> None:
    for part in trace.layers.values():
        finite = np.isfinite(part.h[1:]).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(
                f"layer: expected states that stay finite; got nan or inf at step {done + int(np.argmin(finite))}"
            )


def _standard_error(growth: FloatArray) -> FloatArray:  # (N, B, K) -> (K,)
    count, batch, number = growth.shape
    block = count // _BLOCKS
    if block < 2:
        return np.full(number, np.nan)
    blocks = growth[-block * _BLOCKS :].reshape(_BLOCKS, block, batch, number).mean(axis=1)
    with np.errstate(invalid="ignore"):  # -inf less -inf
        return blocks.std(axis=(0, 1), ddof=1) / np.sqrt(_BLOCKS * batch)


def _kaplan_yorke(exponents: FloatArray, size: int) -> float:
    total = np.cumsum(exponents)
    negative = np.flatnonzero(total < 0)
    if not negative.size:
        return float(size) if len(exponents) == size else float("nan")
    k = int(negative[0])
    return k + (float(total[k - 1]) / -float(exponents[k]) if k else 0.0)
