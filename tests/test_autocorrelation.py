"""Autocorrelation of states. Oracles: plain loops, and processes whose autocorrelation is known."""

from __future__ import annotations

import numpy as np
import pytest

from scratchrnn.dynamics import autocorrelation
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]


def by_loops(s: np.ndarray, lengths: list[int], lags: int) -> np.ndarray:
    """Equations (1) and (2), pair by pair."""
    out = np.empty((lags + 1, s.shape[2]))
    for j in range(s.shape[2]):
        rows = [s[:n, b, j] for b, n in enumerate(lengths)]
        mean = np.concatenate(rows).mean()
        for k in range(lags + 1):
            pairs = [(row[t] - mean) * (row[t + k] - mean) for row in rows for t in range(len(row) - k)]
            out[k, j] = np.mean(pairs)
    return out / out[0]


def ar1(factors: list[float], steps: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Stationary from the first step."""
    phi = np.array(factors)
    s = np.empty((steps, batch, len(phi)))
    s[0] = rng.standard_normal((batch, len(phi))) / np.sqrt(1 - phi**2)
    for t in range(1, steps):
        s[t] = phi * s[t - 1] + rng.standard_normal((batch, len(phi)))
    return s


@pytest.mark.parametrize("lengths", [None, [11, 4, 7]])
@pytest.mark.parametrize("max_lag", [None, 1, 10])
def test_equal_to_plain_loops(lengths: list[int] | None, max_lag: int | None, rng: np.random.Generator) -> None:
    s = rng.standard_normal((11, 3, 5)) + 4
    found = autocorrelation(s, lengths, max_lag=max_lag)
    want = by_loops(s, lengths or [11] * 3, 5 if max_lag is None else max_lag)
    assert_close("units", found.units, want, rel=EXACT)
    assert_close("by_lag", found.by_lag, np.median(want, axis=1), rel=EXACT)
    assert found.left_out == 0


def test_padding_is_never_read(rng: np.random.Generator) -> None:
    s = rng.standard_normal((9, 2, 3))
    want = autocorrelation(s, [9, 4])
    s[4:, 1] = np.nan
    assert_close("units", autocorrelation(s, [9, 4]).units, want.units, rel=0)


def test_a_process_of_order_1_has_powers(rng: np.random.Generator) -> None:
    factors = [0.95, 0.5, -0.8]
    found = autocorrelation(ar1(factors, 4000, 16, rng), max_lag=30)
    k = np.arange(31)
    for j, phi in enumerate(factors):
        # standard error of r at most about sqrt(2 / (1 - phi²) / N) with N = 64000
        np.testing.assert_allclose(found.units[:, j], phi**k, atol=5 * np.sqrt(2 / (1 - phi**2) / 64000))
    assert found.unit_times[0] == pytest.approx(-1 / np.log(0.95), rel=0.1)
    assert 1 < found.unit_times[1] < 2  # 0.5 and 0.25 around 0.368
    assert 0 < found.unit_times[2] < 1  # -0.8 at lag 1


def test_time_is_on_the_straight_line_between_two_lags() -> None:
    s = np.array([1.0, 1.0, -1.0, -1.0] * 40)[:, None, None]  # a square wave of period 4: r = 1, ~0, ~-1
    found = autocorrelation(s, max_lag=4)
    r = found.by_lag
    assert found.time == pytest.approx((1 - np.exp(-1)) / (1 - r[1]))
    slow = np.linspace(0, 1, 100)[:, None, None]
    assert autocorrelation(slow, max_lag=10).time == np.inf


def test_a_shift_and_a_scale_change_nothing(rng: np.random.Generator) -> None:
    s = rng.standard_normal((50, 2, 3))
    assert_close("units", autocorrelation(7 * s - 3).units, autocorrelation(s).units, rel=1e-11)


def test_units_that_never_change_or_are_not_finite_are_left_out(rng: np.random.Generator) -> None:
    s = ar1([0.5] * 5, 60, 2, rng)
    alone = autocorrelation(s[:, :, [0, 4]])
    s[:, :, 1] = 0.1  # whose mean is not exactly 0.1
    s[3, 1, 2] = np.nan
    s[5, 0, 3] = np.inf
    found = autocorrelation(s)
    assert found.left_out == 3
    assert np.isnan(found.units[:, [1, 2, 3]]).all()
    assert np.isnan(found.unit_times[[1, 2, 3]]).all()
    assert_close("by_lag", found.by_lag, alone.by_lag, rel=EXACT)
    nothing = autocorrelation(np.zeros((5, 2, 3)))
    assert nothing.left_out == 3
    assert np.isnan(nothing.by_lag).all()
    assert np.isnan(nothing.time)


def test_float32_is_measured_in_float64(rng: np.random.Generator) -> None:
    s = rng.standard_normal((40, 2, 3)).astype(np.float32)
    found = autocorrelation(s)
    assert found.units.dtype == np.float64
    assert_close("units", found.units, autocorrelation(s.astype(np.float64)).units, rel=0)


def test_two_steps(rng: np.random.Generator) -> None:
    assert autocorrelation(rng.standard_normal((2, 1, 3))).units.shape == (2, 3)


def test_bad_input() -> None:
    s = np.zeros((5, 2, 3))
    with pytest.raises(ValueError, match=r"states: expected shape \(T, B, H\), none of them 0; got \(5, 2\)"):
        autocorrelation(s[:, :, 0])
    with pytest.raises(ValueError, match=r"got \(5, 0, 3\)"):
        autocorrelation(s[:, :0])
    with pytest.raises(TypeError, match="states: expected a NumPy array; got list"):
        autocorrelation([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="states: expected a sequence of at least two steps; got none"):
        autocorrelation(s[:1])
    with pytest.raises(ValueError, match=r"lengths: expected shape \(2,\)"):
        autocorrelation(s, [5])
    with pytest.raises(ValueError, match="max_lag: expected an integer from 1 to 3; got 4"):
        autocorrelation(s, [4, 2], max_lag=4)
