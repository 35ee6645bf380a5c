"""The definition's tangents: every array of forward and backward against finite differences along a direction."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.testing import TOLERANCE, assert_close

T, B, I, H, P = 4, 3, 2, 5, 6
LENGTHS = {"full": np.full(B, T), "lengths": np.array([3, 4, 1])}
STEP = 1e-6
kernels = backends.load("numpy")
lstm_tangent = importlib.import_module("scratchrnn.kernels.numpy.lstm_tangent")
rnn_tangent = importlib.import_module("scratchrnn.kernels.numpy.rnn_tangent")

Arrays = dict[str, np.ndarray]


def padded(arrays: Arrays, lengths: np.ndarray) -> Arrays:
    """Zero beyond each sequence's end, as kernels take arrays of time."""
    for name, array in arrays.items():
        if name in ("x", "dh", "dc"):
            steps = np.arange(len(array))[:, None]
            array[steps >= lengths if name == "x" else steps > lengths] = 0
    return arrays


def difference(run: Callable[[Arrays], Arrays], at: Arrays, along: Arrays) -> Arrays:
    """Central differences of everything that `run` returns."""
    above = run({name: at[name] + STEP * along[name] for name in at})
    below = run({name: at[name] - STEP * along[name] for name in at})
    return {name: (above[name] - below[name]) / (2 * STEP) for name in above}


def zeros(*arrays: np.ndarray) -> list[np.ndarray]:
    return [np.zeros_like(a) for a in arrays]


def check(got: Arrays, want: Arrays) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert_close(name, got[name], want[name], rel=TOLERANCE["finite_difference"])


@pytest.mark.parametrize("proj", [0, P])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_lstm(proj: int, lengths: np.ndarray, rng: np.random.Generator) -> None:
    size = proj or H
    shapes = {
        "x": (T, B, I), "h_0": (B, size), "c_0": (B, H), "w_ih": (4 * H, I), "w_hh": (4 * H, size), "b_ih": (4 * H,),
        "b_hh": (4 * H,), "dh": (T + 1, B, size), "dc": (T + 1, B, H),
    }  # fmt: skip
    shapes |= {"w_hr": (P, H)} if proj else {}
    v, u = (padded({name: rng.standard_normal(s) for name, s in shapes.items()}, lengths) for _ in range(2))

    def run(v: Arrays) -> Arrays:
        h, c, gates, a = (np.empty(s) for s in ((T + 1, B, size), (T + 1, B, H), (T, B, 4 * H), (T, B, 4 * H)))
        h[0], c[0] = v["h_0"], v["c_0"]
        x, w, b, w_hr = v["x"], (v["w_ih"], v["w_hh"]), (v["b_ih"], v["b_hh"]), v.get("w_hr")
        kernels.lstm.forward(x, *w, *b, w_hr, lengths, h, c, gates)
        kernels.lstm.preactivations(x, *w, *b, lengths, h, a)
        dh, dc, da, dx = v["dh"].copy(), v["dc"].copy(), np.empty_like(gates), np.empty_like(x)
        dw, dw_hr = zeros(*w, *b), None if w_hr is None else np.zeros_like(w_hr)
        kernels.lstm.backward(x, *w, w_hr, lengths, h, c, gates, math.inf, None, dh, dc, da, dx, *dw, dw_hr)
        out = {"h": h, "c": c, "a": a, "gates": gates, "dh": dh, "dc": dc, "da": da, "dx": dx}
        out |= dict(zip(("dw_ih", "dw_hh", "db_ih", "db_hh"), dw, strict=True))
        return out | ({} if dw_hr is None else {"dw_hr": dw_hr})

    want, s = difference(run, v, u), run(v)
    want.pop("gates")
    h_dot, c_dot, a_dot = np.empty_like(s["h"]), np.empty_like(s["c"]), np.empty_like(s["a"])
    h_dot[0], c_dot[0] = u["h_0"], u["c_0"]
    w, w_hr = (v["w_ih"], v["w_hh"]), v.get("w_hr")
    w_dot, w_hr_dot = (u["w_ih"], u["w_hh"]), u.get("w_hr")
    lstm_tangent.forward(
        v["x"], u["x"], *w, w_hr, *w_dot, u["b_ih"], u["b_hh"], w_hr_dot, lengths, s["h"], s["c"], s["gates"],
        h_dot, c_dot, a_dot,
    )  # fmt: skip
    got = {"dh": u["dh"].copy(), "dc": u["dc"].copy(), "da": np.empty_like(a_dot), "dx": np.empty_like(v["x"])}
    sums = zeros(*w, v["b_ih"], v["b_hh"])
    dw_hr_dot = None if w_hr is None else np.zeros_like(w_hr)
    lstm_tangent.backward(
        v["x"], u["x"], *w, w_hr, *w_dot, w_hr_dot, lengths, s["h"], h_dot, s["c"], c_dot, s["gates"], a_dot,
        s["dh"], s["dc"], s["da"], *got.values(), *sums, dw_hr_dot,
    )  # fmt: skip
    got |= {"h": h_dot, "c": c_dot, "a": a_dot} | dict(zip(("dw_ih", "dw_hh", "db_ih", "db_hh"), sums, strict=True))
    check(got | ({} if dw_hr_dot is None else {"dw_hr": dw_hr_dot}), want)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_rnn(nonlinearity: str, lengths: np.ndarray, rng: np.random.Generator) -> None:
    shapes = {"x": (T, B, I), "h_0": (B, H), "w_ih": (H, I), "w_hh": (H, H), "b_ih": (H,), "b_hh": (H,)}
    shapes |= {"dh": (T + 1, B, H)}
    v, u = (padded({name: rng.standard_normal(s) for name, s in shapes.items()}, lengths) for _ in range(2))

    def run(v: Arrays) -> Arrays:
        h, a = np.empty((T + 1, B, H)), np.empty((T, B, H))
        h[0] = v["h_0"]
        x, w, b = v["x"], (v["w_ih"], v["w_hh"]), (v["b_ih"], v["b_hh"])
        kernels.rnn.forward(x, *w, *b, nonlinearity, lengths, h)
        kernels.rnn.preactivations(x, *w, *b, lengths, h, a)
        dh, da, dx, dw = v["dh"].copy(), np.empty_like(a), np.empty_like(x), zeros(*w, *b)
        kernels.rnn.backward(x, *w, nonlinearity, lengths, h, math.inf, dh, da, dx, *dw)
        return {"h": h, "a": a, "dh": dh, "da": da, "dx": dx} | dict(
            zip(("dw_ih", "dw_hh", "db_ih", "db_hh"), dw, strict=True)
        )

    want, s = difference(run, v, u), run(v)
    running = np.arange(T)[:, None] < lengths
    assert np.abs(s["a"][running]).min() > 100 * STEP  # no relu at its kink, where differences prove nothing
    h_dot, a_dot = np.empty_like(s["h"]), np.empty_like(s["a"])
    h_dot[0] = u["h_0"]
    w, w_dot = (v["w_ih"], v["w_hh"]), (u["w_ih"], u["w_hh"])
    rnn_tangent.forward(v["x"], u["x"], *w, *w_dot, u["b_ih"], u["b_hh"], nonlinearity, lengths, s["h"], h_dot, a_dot)
    got = {"dh": u["dh"].copy(), "da": np.empty_like(a_dot), "dx": np.empty_like(v["x"])}
    sums = zeros(*w, v["b_ih"], v["b_hh"])
    rnn_tangent.backward(
        v["x"], u["x"], *w, *w_dot, nonlinearity, lengths, s["h"], h_dot, a_dot, s["dh"], s["da"], *got.values(), *sums
    )
    check(got | {"h": h_dot, "a": a_dot} | dict(zip(("dw_ih", "dw_hh", "db_ih", "db_hh"), sums, strict=True)), want)


def test_relu_at_its_kink() -> None:
    """Derivative 0 at 0, forward and backward, and a nan passes: as in torch."""
    h, one = np.array([[0.0, 2.0, np.nan]]), np.ones((1, 3))
    np.testing.assert_array_equal(rnn_tangent.step_forward(one, h, "relu"), [[0, 1, 1]])
    np.testing.assert_array_equal(rnn_tangent.step_backward(one, one, h, one, "relu"), [[0, 1, 1]])
