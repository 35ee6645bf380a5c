"""Products of Jacobians over any span of time, and their singular values, however large or small.

    ∂s_stop/∂s_start = J_{stop-1} ... J_{start}        slots of s (B, S), the state of the whole stack            (1)

Its singular values say by how much a small change of the state in slot `start` can be stretched and must be squeezed on
the way to slot `stop`; a gradient on its way back is, by the same factors. The product itself is of no use for them:
its entries under- and overflow, and every singular value below eps·σ_1 is lost in their rounding. It is never formed:

    first sweep    Q_0 = orthonormal basis from factoring the steps in the other direction, last to first
    second sweep   J_t Q_t = Q_{t+1} R_t                          from first to last                             (2)
    P Q_0 = Q_n R_{n-1} ... R_0 = Q_n D U                         D diagonal, as logarithms; rows of U of size 1    (3)
    σ(P) = σ(D U)                                                 by Jacobi rotations (LAPACK's gejsv)             (4)

After the first sweep D falls steadily and U is well conditioned, so that (4) finds each σ_i to nearly its own last
digits, not to those of σ_1 (Demmel et al. 1999). What remains is the error of (2): about eps times the condition number
of one step's Jacobian, for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int
from scratchrnn.gradflow._qr import signed_qr
from scratchrnn.gradflow.linearize import Linearized, Part
from scratchrnn.trace import Trace

_Map = Callable[[FloatArray], FloatArray]  # (B, ·, K) to (B, ·, K)


@dataclass(frozen=True, eq=False)
class StepJacobians:
    """Result of `jacobians`; arrays of the trace's dtype.

    Attributes
    ----------
    state : ndarray (T, B, S, S)
        [t, b, i, j] = ∂(s in slot t+1)_i / ∂(s in slot t)_j; the identity beyond a sequence's end.
    input : ndarray (T, B, S, I)
        [t, b, i, j] = ∂(s in slot t+1)_i / ∂x_t,j; zero beyond a sequence's end.
    slices : dict of (layer, "h" or "c") to slice
        Where each layer's states lie along the axes S.
    """

    state: FloatArray
    input: FloatArray
    slices: dict[Part, slice]


@dataclass(frozen=True, eq=False)
class SingularValues:
    """Result of `singular_values`.

    Attributes
    ----------
    log : ndarray (B, K) of float64
        Natural logarithms, falling; -inf for 0. K is S, or the smaller of the two parts' sizes.
    start, stop : int
        Slots.
    """

    log: FloatArray
    start: int
    stop: int

    @property
    def values(self) -> FloatArray:
        """σ_1 >= ... >= σ_K (B, K); where float64 ends they are inf or 0, and `log` is not."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self.log)


def jacobians(trace: Trace) -> StepJacobians:
    """Form the Jacobians of all steps at once, in closed form.

    They take T·B·S·(S+I) numbers, with S = 2·L·H for an LSTM: 1.3 GB in float32 for 100 steps of 8 samples of 2 layers
    of 160 units. `Linearized` gives those of one step, and products with vectors that form none.

    Parameters
    ----------
    trace : Trace
        From the forward pass of an RNN or LSTM of one direction.

    Returns
    -------
    StepJacobians

    Raises
    ------
    TypeError, ValueError
        Not a trace, or one of both directions.
    """
    linear = Linearized(trace)
    rows = (linear.steps, linear.batch, linear.size)
    state, inputs = (np.empty((*rows, columns), linear.dtype) for columns in (linear.size, linear.input_size))
    for t in range(linear.steps):
        state[t], inputs[t] = linear.state_jacobian(t), linear.input_jacobian(t)
    return StepJacobians(state, inputs, linear.slices)


def singular_values(
    trace: Trace, start: int, stop: int, *, of: Part | None = None, wrt: Part | None = None
) -> SingularValues:
    """Singular values of ∂s_stop/∂s_start, between two slots of the state, for each sample.

    Parameters
    ----------
    trace : Trace
        From the forward pass of an RNN or LSTM of one direction. Slot 0 is the initial state, slot t+1 the state after
        step t; beyond a sequence's end the state stays as it is.
    start, stop : int
        0 <= start <= stop <= T.
    of, wrt : (layer, "h" or "c"), optional
        Only this part of the state in slot `stop`, and in slot `start`: `of=(1, "h"), wrt=(0, "c")` for
        ∂h¹_stop/∂c⁰_start through every path between them. Absent: all of s.

    Returns
    -------
    SingularValues

    Raises
    ------
    TypeError, ValueError
        Not a trace, one of a batch of 0, slots out of range or order, or a part that there is not.

    Notes
    -----
    Each σ_i is accurate by itself, as long as each single step is well conditioned: e^-255 to ten digits, in a product
    over 60 steps whose largest is e^-12. From a float32 trace the Jacobians carry its seven digits into that. Where a
    product has lower rank, as with relu units that are off, the last values are exactly 0 (-inf). So are those of less
    than 1e-300 σ_1. A NaN in a sample's steps makes all of its values NaN.

    References
    ----------
    Stewart, On graded QR decompositions of products of matrices, ETNA 3, 1995. Demmel et al., Computing the singular
    value decomposition with high relative accuracy, Linear Algebra Appl. 299, 1999. Drmač, Veselić, New fast and
    accurate Jacobi SVD algorithm, SIAM J. Matrix Anal. Appl. 29, 2008.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 8, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((2000, 2, 3)))
    >>> far = singular_values(trace, 0, 2000)
    >>> far.log.shape, bool((far.log[:, 0] < -750).all()), far.values[:, 0]  # e^-750 is beyond float64
    ((2, 16), True, array([0., 0.]))
    """
    linear = Linearized(trace)
    if not linear.batch:
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    start = check_int("start", start, least=0, most=linear.steps)
    stop = check_int("stop", stop, least=start, most=linear.steps)
    rows, columns = _part("of", of, linear), _part("wrt", wrt, linear)
    forth: list[_Map] = [
        _embedding(columns, linear.size),
        *(lambda q, t=t: linear.jvp(t, q) for t in range(start, stop)),
        lambda q: q[:, rows],
    ]
    back: list[_Map] = [
        _embedding(rows, linear.size),
        *(lambda q, t=t: linear.vjp(t, q.mT)[0].mT for t in reversed(range(start, stop))),
        lambda q: q[:, columns],
    ]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    # the narrow side first: its sweep spans all that the product lets through
    first, second = (back, forth) if height <= width else (forth, back)
    with np.errstate(all="ignore"):
        identity = np.repeat(np.eye(min(height, width))[None], linear.batch, axis=0)
        log_d, u = _graded(_factors(second, _basis(first, identity)))
        log = np.stack([_graded_singular_values(d, row) for d, row in zip(log_d, u, strict=True)])
    return SingularValues(log, start, stop)


def _part(name: str, part: Part | None, linear: Linearized) -> slice:
    if part is None:
        return slice(0, linear.size)
    if part not in list(linear.slices):
        raise ValueError(f"{name}: expected one of {', '.join(map(str, linear.slices))}; got {part!r}")
    return linear.slices[part]


def _embedding(part: slice, size: int) -> _Map:
    """(B, ·, K) of a part as (B, S, K), zero elsewhere."""

    def embed(q: FloatArray) -> FloatArray:
        whole = np.zeros((len(q), size, q.shape[2]))
        whole[:, part] = q
        return whole

    return embed


def _basis(maps: list[_Map], q: FloatArray) -> FloatArray:  # (B, ·, K)
    """Q after all maps."""
    for apply in maps:
        q, _ = signed_qr(apply(q))
    return q


def _factors(maps: list[_Map], q: FloatArray) -> Iterator[FloatArray]:  # (B, K, K)
    """(2): R of each map."""
    for apply in maps:
        q, r = signed_qr(apply(q))
        yield r


def _graded(factors: Iterable[FloatArray]) -> tuple[FloatArray, FloatArray]:  # (B, K, K) each -> (B, K), (B, K, K)
    """R_{n-1} ... R_0 as (log d, U) with D = diag(d), the largest |element| of each row of U being 1."""
    log_d, u = np.zeros((1, 1)), np.ones((1, 1, 1))
    for n, r in enumerate(factors):
        if n == 0:
            log_d, u = np.zeros(r.shape[:2]), np.broadcast_to(np.eye(r.shape[1]), r.shape)
        size = np.log(np.abs(r)) + log_d[:, None, :]  # of the elements of R D
        top = size.max(axis=2, keepdims=True)
        u = np.sign(r) * np.exp(np.where(size == -np.inf, size, size - top)) @ u
        largest = np.abs(u).max(axis=2, keepdims=True)
        log_d = (top + np.log(largest))[:, :, 0]
        u = u / np.where(largest == 0, 1, largest)
    return log_d, u


def _graded_singular_values(log_d: FloatArray, u: FloatArray) -> FloatArray:  # (K,), (K, K) -> (K,)
    """Logarithms of the singular values of D U."""
    from scipy.linalg.lapack import dgejsv  # only when asked for: SciPy brings a BLAS of its own

    top = log_d.max()
    if top == -np.inf:
        return np.full(len(log_d), -np.inf)
    columns = (np.exp(log_d - top)[:, None] * u).T  # scaled by column, which gejsv's accuracy does not suffer from
    if not np.isfinite(columns).all():
        return np.full(len(log_d), np.nan)
    sigma, _, _, work, _, info = dgejsv(columns, joba=0, jobu=3, jobv=3, jobr=0)
    if info != 0:
        raise np.linalg.LinAlgError(f"singular values: gejsv did not converge (info {info})")
    return np.log(sigma) + np.log(work[0] / work[1]) + top
