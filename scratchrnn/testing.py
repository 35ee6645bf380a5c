"""Comparing arrays: one rule, one table of tolerances.

The same function serves the test suite, `scratchrnn check` and the benchmarks' verification, so that "equal" means
one thing everywhere. Two figures must both stay below the tolerance:

    rms_ratio = rms(got - want) / rms(want)            the usual size of the error
    max_ratio = max|got - want| / max|want|            no single element may stand out

A reference that is all zero leaves no scale, so there `got` must be exactly zero. NaN always fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# The tolerances of the project, as multiples of the unit roundoff where they follow from rounding.
# "float64" is what float64 arithmetic in two different summation orders may differ by: eps(float64) = 2.2e-16,
# grown over the few hundred dependent operations of the test shapes. "trajectory": ten optimizer steps compound it.
# "finite_difference": central differences err by eps/h + h² = 2e-10 with h = 1e-6, times the size of the loss over that
# of its gradient; measured at worst 4e-9.
# "float32_growth": our float32 result may lie this many times further from float64 truth than torch's float32 does,
# "float32_floor": unless it is within four roundings (of eps(float32) = 1.2e-7) of the truth, where the ratio of the
# two errors is luck: on the grid of the tests fewer than 1 % of the quantities have a ratio above 2, none above 3 eps.
# A sum that cancels loses more, in torch as here: `scratchrnn.check` then allows for how much rounding the inputs once
# moves the result.
TOLERANCE = {
    "float64": 1e-12,
    "trajectory": 1e-10,
    "finite_difference": 2e-8,
    "float32_growth": 2.0,
    "float32_floor": 4 * 2.0**-23,
}


@dataclass(frozen=True)
class Difference:
    """How far `got` lies from `want`, and where it is worst."""

    rms_ratio: float
    max_ratio: float
    max_abs: float
    index: tuple[int, ...]  # of the worst element
    got: float  # there
    want: float  # there

    @property
    def ratio(self) -> float:
        """The larger of the two ratios: what a tolerance is compared with."""
        return max(self.rms_ratio, self.max_ratio)


def difference(got: ArrayLike, want: ArrayLike) -> Difference:
    """Measure `got` against `want`, in float64, both of one shape.

    NaN or infinity in either gives infinite ratios, at the first such element, since no distance can be stated.
    """
    g = np.asarray(got, dtype=np.float64)
    w = np.asarray(want, dtype=np.float64)
    if g.shape != w.shape:
        raise ValueError(f"got: expected shape {w.shape}, that of want; got {g.shape}")
    if g.size == 0:
        return Difference(0.0, 0.0, 0.0, (), 0.0, 0.0)
    bad = ~(np.isfinite(g) & np.isfinite(w))
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), g.shape))
        return Difference(np.inf, np.inf, np.inf, index, float(g[index]), float(w[index]))
    error = np.abs(g - w)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), g.shape))
    max_abs = float(error[index])
    scale = float(np.max(np.abs(w)))
    if scale == 0.0:
        ratio = 0.0 if max_abs == 0.0 else np.inf
        return Difference(ratio, ratio, max_abs, index, float(g[index]), 0.0)
    # scaled before squaring: a gradient of 1e-200 must not vanish in its own square
    rms_ratio = float(np.sqrt(np.mean((error / scale) ** 2)) / np.sqrt(np.mean((w / scale) ** 2)))
    return Difference(rms_ratio, max_abs / scale, max_abs, index, float(g[index]), float(w[index]))


def assert_close(name: str, got: Any, want: Any, *, rel: float, check_dtype: bool = True) -> None:
    """Raise AssertionError unless `got` equals `want` to `rel`; shape and dtype are compared first.

    Parameters
    ----------
    name : str
        The quantity's name, first word of the message.
    got, want : ndarray
        Arrays of one shape (and dtype, unless `check_dtype` is False).
    rel : float
        Bound on both `rms_ratio` and `max_ratio`; 0 demands equal values.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise AssertionError(f"{name}: expected shape {want.shape}; got {got.shape}")
    if check_dtype and got.dtype != want.dtype:
        raise AssertionError(f"{name}: expected dtype {want.dtype}; got {got.dtype}")
    d = difference(got, want)
    if not d.ratio <= rel:
        raise AssertionError(
            f"{name}: rms ratio {d.rms_ratio:.3g}, max ratio {d.max_ratio:.3g}, allowed {rel:.3g}; "
            f"worst at {d.index}: got {d.got!r}, want {d.want!r} (shape {want.shape})"
        )


def assert_matches_reference(
    fn_forward: Callable[..., Any],
    fn_backward: Callable[..., Any] | None = None,
    *,
    cell: str = "lstm",
    dtypes: Sequence[str] | None = None,
    seed: int = 0,
) -> None:
    """Raise AssertionError unless an implementation of your own computes what the definition does.

    The message is the report of `scratchrnn.check.reference`, whose arguments these are: the likely mistake, and the
    errors by quantity, step and gate.

    Examples
    --------
    As a test of your own project:

    >>> import numpy as np
    >>> def forward(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    ...     output = []
    ...     for x_t in x:
    ...         h = np.tanh(x_t @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
    ...         output.append(h)
    ...     return np.stack(output), h
    >>> def test_forward():
    ...     assert_matches_reference(forward, cell="rnn_tanh")
    >>> test_forward()
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    from scratchrnn.check.reference import reference

    reference(fn_forward, fn_backward, cell=cell, dtypes=dtypes, seed=seed).raise_if_wrong()
