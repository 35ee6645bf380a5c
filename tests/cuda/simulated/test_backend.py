"""The CUDA backend's own kernels, run in Python by Numba's simulator, against the definition."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest

from scratchrnn.kernels.cuda import chunks, pointwise_sums
from scratchrnn.kernels.cuda.queue import own_queue
from tests.cuda.recurrent import CELLS, check, draw, everything, forward_of, module, nothing_beyond

SIZES = 7, 3, 2, 5, 4  # T, B, I, H, P: chunks of 2, 2, 2, 1 steps, blocks of sums of 4 and 3
LENGTHS = 4, 7, 0
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_cell = pytest.mark.parametrize("cell", CELLS)
ragged = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])


@each_cell
@both_dtypes
@ragged
def test_every_function(cell: str, dtype: str, lengths: Any, rng: np.random.Generator) -> None:
    check("cuda", draw(cell, rng, SIZES, lengths=lengths), dtype)


@each_cell
@ragged
def test_clip_and_detach(cell: str, lengths: Any, rng: np.random.Generator) -> None:
    p = draw(cell, rng, SIZES, lengths=lengths, clip=0.05, detaching=True)
    got = check("cuda", p, "float64")
    assert np.abs(got["da"]).max() == p.clip
    assert (np.abs(got["da"]) < p.clip).any()


@each_cell
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (1, 3, 2, 5, 4), (6, 1, 3, 4, 2)], ids=str)
def test_edges(cell: str, sizes: Any, rng: np.random.Generator) -> None:
    check("cuda", draw(cell, rng, sizes), "float64")


def test_idle_chunks_are_few(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(chunks, "KEPT", 2)
    gc.disable()
    try:
        forward_of("cuda", draw("relu", rng, (1, 1, 1, 1, 1)))
        first = [weakref.ref(chunk) for chunk in chunks._idle.values()]
        assert len(first) == 2  # infer's and forward's, preactivations'
        for hidden in (2, 3):
            forward_of("cuda", draw("relu", rng, (1, 1, 1, hidden, 1)))
        assert [chunk() for chunk in first] == [None, None]  # at once: it is memory of the device
    finally:
        gc.enable()
    assert [what[0].hidden for _, _, *what in chunks._idle] == [3, 3]


def test_two_calls_at_once_have_a_chunk_each() -> None:
    what = chunks.Preactivations, own_queue(), chunks.Shape(2, 3, 3, 3, False, "float32")
    with chunks.lent(*what) as first:
        pass
    with chunks.lent(*what) as one, chunks.lent(*what) as other:
        assert one is first
        assert other is not first
    assert list(chunks._idle.values()) == [first]  # given back last


def test_a_chunk_that_failed_is_not_used_again(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def stopped(chunk: chunks.Chunk, count: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chunks.Chunk, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        forward_of("cuda", draw("tanh", rng, SIZES))
    assert not chunks._idle


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@each_cell
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_nan_and_inf_pass(cell: str, value: float, rng: np.random.Generator) -> None:
    """As in the definition: in the same places, and never beyond an end."""
    p = draw(cell, rng, SIZES, lengths=LENGTHS, clip=0.5, detaching=True)
    p.x[2, 1, 0] = value
    p.outside[0][6, 1, 2] = value
    p.weights["weight_hh"][0, 0] = value
    p.weights["weight_ih"][1, 1] = value
    got, want = everything("cuda", p), everything("numpy", p)
    for name in want:
        np.testing.assert_array_equal(np.isfinite(got[name]), np.isfinite(want[name]), name)
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-12, err_msg=name)
    nothing_beyond(got, p.lengths)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@each_cell
def test_nothing_beyond_an_end_whatever_the_weights_are(cell: str, rng: np.random.Generator) -> None:
    p = draw(cell, rng, SIZES, lengths=LENGTHS)
    for weight in p.weights.values():
        weight.fill(math.nan)
    found = everything("cuda", p)
    assert np.isnan(found["output"][0, 0]).all()
    nothing_beyond(found, p.lengths)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_an_infinite_last_state_leaves_the_gradients_alone(rng: np.random.Generator) -> None:
    p = draw("relu", rng, SIZES, lengths=LENGTHS)
    p.x[3, 0] = math.inf
    p.weights["weight_ih"] = np.abs(p.weights["weight_ih"])
    found = everything("cuda", p)
    assert np.isinf(found["h_n"][0]).all()
    want = everything("numpy", p)["dweight_hh"]
    assert np.isfinite(want).all()
    np.testing.assert_allclose(found["dweight_hh"], want, rtol=0, atol=1e-12)


@both_dtypes
def test_sigmoid_does_not_overflow(dtype: str) -> None:
    values = np.array([0.0, -0.0, 1e4, -1e4, math.inf, -math.inf, math.nan, 1e-30], dtype)
    a = np.tile(values, (1, 1, 4))
    gates, want = np.empty_like(a), np.empty_like(a)
    for folder, out in (("cuda", gates), ("numpy", want)):
        module(folder, "lstm").activate(a, np.array([1]), out)
    np.testing.assert_allclose(gates, want, rtol=2 * np.finfo(dtype).eps, atol=0)


@both_dtypes
@pytest.mark.parametrize("rows", [1, 30])
def test_linear(dtype: str, rows: int, rng: np.random.Generator) -> None:
    shapes = {"x": (rows, 3), "weight": (5, 3), "bias": (5,), "dy": (rows, 5), "dweight": (5, 3), "dbias": (5,)}
    drawn = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    found = {}
    for folder in ("cuda", "numpy"):
        v = {name: array.copy() for name, array in drawn.items()}
        v |= {"y": np.empty_like(v["dy"]), "dx": np.empty_like(v["x"])}
        module(folder, "linear").forward(v["x"], v["weight"], v["bias"], v["y"])
        module(folder, "linear").backward(v["x"], v["weight"], v["dy"], v["dx"], v["dweight"], v["dbias"])
        found[folder] = v
    for name, want in found["numpy"].items():
        np.testing.assert_allclose(found["cuda"][name], want, rtol=0, atol=20 * np.finfo(dtype).eps, err_msg=name)


def test_bias_gradients_are_summed_in_float64() -> None:
    """Each lane's sum cancels: in float32 nothing would be left of the ones."""
    dy = np.repeat(np.float32([2**26, 1, -(2**26)]), pointwise_sums.LANES)[:, None]
    dbias = np.zeros(1, np.float32)
    x, weight = np.zeros((len(dy), 2), np.float32), np.zeros((1, 2), np.float32)
    module("cuda", "linear").backward(x, weight, dy, np.empty_like(x), np.zeros_like(weight), dbias)
    assert dbias[0] == pointwise_sums.LANES
