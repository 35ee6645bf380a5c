"""The definition itself: against finite differences, and its sequence against its own steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.testing import TOLERANCE, assert_close

T, B, I, H, P = 4, 3, 2, 5, 3
LENGTHS = np.array([3, 4, 1])
STEP = 1e-6
kernels = backends.load("numpy")


def derivative(loss: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Central differences of `loss` in every element of `array`."""
    found = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + STEP
        above = loss()
        array[index] = kept - STEP
        below = loss()
        array[index] = kept
        found[index] = (above - below) / (2 * STEP)
    return found


@pytest.mark.parametrize("proj", [0, P])
@pytest.mark.parametrize("lengths", [np.full(B, T), LENGTHS], ids=["full", "lengths"])
def test_lstm(proj: int, lengths: np.ndarray, rng: np.random.Generator) -> None:
    size = proj or H
    h, c = np.zeros((T + 1, B, size)), np.zeros((T + 1, B, H))
    h[0], c[0] = rng.standard_normal((B, size)), rng.standard_normal((B, H))
    x = rng.standard_normal((T, B, I))
    w_ih, w_hh = rng.standard_normal((4 * H, I)), rng.standard_normal((4 * H, size))
    b_ih, b_hh = rng.standard_normal(4 * H), rng.standard_normal(4 * H)
    w_hr = rng.standard_normal((P, H)) if proj else None
    gates = np.zeros((T, B, 4 * H))
    d_h, d_c = rng.standard_normal(h.shape), rng.standard_normal(c.shape)  # the loss sees every h_t and every c_t
    beyond = np.arange(T + 1)[:, None] > lengths
    d_h[beyond], d_c[beyond] = 0, 0

    def loss() -> float:
        kernels.lstm.forward(x, w_ih, w_hh, b_ih, b_hh, w_hr, lengths, h, c, gates)
        return float((h * d_h).sum() + (c * d_c).sum())

    loss()
    out = dh, dc, _, dx = d_h.copy(), d_c.copy(), np.empty_like(gates), np.empty_like(x)
    dw_ih, dw_hh, db_ih, db_hh = (np.zeros_like(v) for v in (w_ih, w_hh, b_ih, b_hh))
    dw_hr = None if w_hr is None else np.zeros_like(w_hr)
    last = (dw_ih, dw_hh, db_ih, db_hh, dw_hr)
    kernels.lstm.backward(x, w_ih, w_hh, w_hr, lengths, h, c, gates, math.inf, None, *out, *last)
    checked = {
        "dx": (dx, x), "dW_ih": (dw_ih, w_ih), "dW_hh": (dw_hh, w_hh), "db_ih": (db_ih, b_ih), "db_hh": (db_hh, b_hh),
        "dh_0": (dh[0], h[0]), "dc_0": (dc[0], c[0]),
    }  # fmt: skip
    if dw_hr is not None and w_hr is not None:
        checked["dW_hr"] = (dw_hr, w_hr)
    for name, (got, array) in checked.items():
        assert_close(name, got, derivative(loss, array), rel=TOLERANCE["finite_difference"])


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("lengths", [np.full(B, T), LENGTHS], ids=["full", "lengths"])
def test_rnn(nonlinearity: str, lengths: np.ndarray, rng: np.random.Generator) -> None:
    h = np.zeros((T + 1, B, H))
    h[0] = rng.standard_normal((B, H))
    x = rng.standard_normal((T, B, I))
    w_ih, w_hh = rng.standard_normal((H, I)), rng.standard_normal((H, H))
    b_ih, b_hh = rng.standard_normal(H), rng.standard_normal(H)
    a = np.zeros((T, B, H))
    d_h = rng.standard_normal(h.shape)
    d_h[np.arange(T + 1)[:, None] > lengths] = 0

    def loss() -> float:
        kernels.rnn.forward(x, w_ih, w_hh, b_ih, b_hh, nonlinearity, lengths, h)
        return float((h * d_h).sum())

    loss()
    kernels.rnn.preactivations(x, w_ih, w_hh, b_ih, b_hh, lengths, h, a)
    running = np.arange(T)[:, None] < lengths
    assert np.abs(a[running]).min() > 100 * STEP  # no relu at its kink, where differences prove nothing
    dh, da, dx = d_h.copy(), np.empty_like(a), np.empty_like(x)
    dw_ih, dw_hh, db_ih, db_hh = (np.zeros_like(v) for v in (w_ih, w_hh, b_ih, b_hh))
    kernels.rnn.backward(x, w_ih, w_hh, nonlinearity, lengths, h, math.inf, dh, da, dx, dw_ih, dw_hh, db_ih, db_hh)
    for name, got, array in (
        ("dx", dx, x), ("dW_ih", dw_ih, w_ih), ("dW_hh", dw_hh, w_hh), ("db_ih", db_ih, b_ih), ("db_hh", db_hh, b_hh),
        ("dh_0", dh[0], h[0]),
    ):  # fmt: skip
        assert_close(name, got, derivative(loss, array), rel=TOLERANCE["finite_difference"])


def test_sigmoid_is_exact_over_the_whole_range() -> None:
    a = np.array([-np.inf, -800.0, -40.0, -1.0, -0.0, 0.0, 1.0, 40.0, 800.0, np.inf])
    with np.errstate(all="raise", under="ignore"):
        got = kernels.lstm.sigmoid(a)
    want = [0, 0, 4.248354255291589e-18, 0.2689414213699951, 0.5, 0.5, 0.7310585786300049, 1, 1, 1]
    np.testing.assert_allclose(got, want, rtol=4e-16)
    assert np.isnan(kernels.lstm.sigmoid(np.array([np.nan])))[0]
    assert kernels.lstm.sigmoid(a.astype(np.float32)).dtype == np.float32
