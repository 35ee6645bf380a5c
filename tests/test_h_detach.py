"""h-detach, the gates' view of h cut inside backward: against torch's autograd with h.detach() at the same places."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.kernels.cpu import plan
from scratchrnn.testing import TOLERANCE, assert_close, difference
from tests import test_weight_drop, test_zoneout
from tests.problems import BATCH, LENGTHS, PROJ, STEPS, Case, by_us, draw
from tests.stepwise import Cotangents, Reference, compare

CASES = [
    *(
        Case("lstm", num_layers=layers, bidirectional=both, proj_size=proj, lengths=lengths)
        for layers, both, proj, lengths in itertools.product((1, 2), (False, True), (0, PROJ), (None, LENGTHS))
    ),
    Case("lstm", 3, bias=False),
    *(Case("lstm", 2, sizes=sizes) for sizes in ((1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 1))),
]
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def draw_mask(rng: np.random.Generator, steps: int, batch: int) -> np.ndarray:
    """About half; the first step among them, and one sample that is never detached if there are several."""
    mask = rng.random((steps, batch)) < 0.5
    mask[0, 0] = True
    if batch > 1:
        mask[:, 1] = False
    return mask


def bits(grads: srnn.Gradients) -> dict[str, bytes]:
    arrays = {"dx": grads.input, "dh_0": grads.state[0], "dc_0": grads.state[1]} | grads.parameters
    for key, part in grads.layers.items():
        arrays |= {f"dh {key}": part.h, f"dc {key}": part.c}
    return {name: array.tobytes() for name, array in arrays.items()}


# --- the numbers


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case}-{case.sizes}")
def test_equals_torch(case: Case, rng: np.random.Generator, each_backend: str) -> None:
    layer, p = case.layer(rng, np.float64), draw(case, rng)
    steps, batch = p.x.shape[:2]
    mask = draw_mask(rng, steps, batch)
    for flow in ({}, {"clip": 0.05}, {"cut": rng.random((steps, batch)) < 0.2}):
        for detach_h in (mask, np.ones_like(mask)):
            how: dict[str, Any] = {**flow, "detach_h": detach_h}
            trace = layer.forward(p.x, p.state, p.lengths)
            grads = layer.backward(trace, p.d_output, p.d_state, **how)
            reference = Reference(layer, p.x, p.state, list(p.lengths or [steps] * batch), **how)
            compare(reference, trace, grads, Cotangents(p.d_output, p.d_state), f"{case} {list(how)}")


def test_it_changes_what_it_should(rng: np.random.Generator, each_backend: str) -> None:
    case = Case("lstm")
    layer, p = case.layer(rng, np.float64), draw(case, rng)
    mask = np.zeros((STEPS, BATCH), bool)
    mask[4, 2] = True
    want, got = by_us(layer, p), by_us(layer, p, detach_h=mask)
    for name in ("dx", "dh_0", "dc_0"):
        same = [np.array_equal(got[name][:, b], want[name][:, b]) for b in range(BATCH)]
        assert same == [True, True, False, True, True], name
    assert np.array_equal(got["dx"][4:], want["dx"][4:])
    trace = layer.forward(p.x, p.state)
    one, all_of_it = (layer.backward(trace, p.d_output, detach_h=m) for m in (mask, np.ones_like(mask)))
    assert_close("dh", one.h[4, 2], p.d_output[3, 2], rel=0)
    assert_close("dh", all_of_it.h[1:], p.d_output, rel=0)
    assert not all_of_it.state[0].any()


@pytest.mark.parametrize("wrapper", ["WeightDrop", "Zoneout"])
def test_wrappers(wrapper: str, rng: np.random.Generator, each_backend: str) -> None:
    """What zoneout kept of h goes back through what was kept: the gates alone are cut off."""
    case = Case("lstm", 2, bidirectional=True, lengths=LENGTHS)
    module: Any = test_weight_drop if wrapper == "WeightDrop" else test_zoneout
    layer, p, mask = module.wrapped(case, rng), draw(case, rng), draw_mask(rng, STEPS, BATCH)
    trace = module.check(layer, case, p, detach_h=mask)
    changed, plain = (layer.backward(trace, p.d_output, **flow).input for flow in ({"detach_h": mask}, {}))
    assert difference(changed, plain).ratio > 1e-3


@pytest.mark.parametrize("batched", [True, False], ids=["batch first", "no batch"])
def test_every_layout(batched: bool, rng: np.random.Generator, each_backend: str) -> None:
    layer = srnn.LSTM(3, 6, 2, bidirectional=True, dtype=np.float64, rng=rng)
    x = rng.standard_normal((STEPS, BATCH if batched else 1, 3))
    mask = rng.random(x.shape[:2]) < 0.5

    def turn(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if batched else array[:, 0]

    other = srnn.LSTM(3, 6, 2, bidirectional=True, dtype=np.float64, batch_first=batched)
    other.load_state_dict(layer.state_dict())
    want = srnn.bptt.full(layer, x, lambda output, _: output, detach_h=mask)
    got = srnn.bptt.full(other, turn(x), lambda output, _: output, detach_h=turn(mask))
    assert_close("dx", got.input, turn(want.input), rel=0)
    for name, value in want.parameters.items():
        assert_close(name, got.parameters[name], value, rel=0)
    plain = srnn.bptt.full(layer, x, lambda output, _: output)
    assert difference(plain.input, want.input).ratio > 1e-3


def test_nan_stays_behind(rng: np.random.Generator, each_backend: str) -> None:
    layer = srnn.LSTM(3, 6, dtype=np.float64, rng=rng)
    layer.weight_hh_l0[:] = np.inf  # each product with it would be a nan
    trace = layer.forward(np.zeros((4, 2, 3)), (np.zeros((1, 2, 6)), np.ones((1, 2, 6))), training=False)
    d_output = np.zeros_like(trace.output)
    grads = layer.backward(trace, d_output, detach_h=np.ones((4, 2), bool))
    assert not grads.h.any()
    assert np.isnan(layer.backward(trace, d_output).h[:-1]).all()


@pytest.mark.parametrize("layout", ["time first", "batch first", "no batch"])
def test_streams_and_windows(layout: str, rng: np.random.Generator, each_backend: str) -> None:
    """A reset begins a piece with a mask of its own; windows take the whole mask, or ask for their parts."""
    first = layout == "batch first"
    layer = srnn.LSTM(3, 6, 2, batch_first=first, dtype=np.float64, rng=rng)
    x, mask, reset = rng.standard_normal((13, 2, 3)), rng.random((13, 2)) < 0.5, np.zeros((13, 2), bool)
    reset[5, 1] = True
    d_output = rng.standard_normal((13, 2, 6))

    def turn(array: np.ndarray) -> np.ndarray:
        return array[:, 1] if layout == "no batch" else array.swapaxes(0, 1) if first else array

    stream = srnn.bptt.Stream(layer)
    trace = stream.forward(turn(x), turn(reset))
    got = stream.backward(trace, turn(d_output), detach_h=turn(mask))
    parts = (slice(0, 5), slice(5, 13))
    one, other = (srnn.bptt.full(layer, turn(x[p]), turn(d_output[p]), detach_h=turn(mask[p])) for p in parts)
    of_sample_1 = {"time first": np.s_[:, 1], "batch first": np.s_[1], "no batch": np.s_[:]}[layout]
    want = np.concatenate([one.input[of_sample_1], other.input[of_sample_1]])
    assert_close("dx", got.input[of_sample_1], want, rel=TOLERANCE["float64"])

    asked = []

    def ask(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return turn(mask[start:stop])

    for given in (turn(mask), ask):
        state: Any = None
        for window in srnn.bptt.windows(layer, turn(x), turn(d_output), k1=4, k2=4, detach_h=given):
            part = slice(window.start, window.stop)
            alone = srnn.bptt.full(layer, turn(x[part]), turn(d_output[part]), state, detach_h=turn(mask[part]))
            assert_close("dx", window.gradients.input, alone.input, rel=TOLERANCE["float64"])
            for name, value in alone.parameters.items():
                assert_close(name, window.gradients.parameters[name], value, rel=TOLERANCE["float64"])
            state = window.state
    assert asked == [(0, 4), (4, 8), (8, 12), (12, 13)]
    with pytest.raises(ValueError, match=r"detach_h: expected 13 time steps; got shape \("):
        next(srnn.bptt.windows(layer, turn(x), k1=4, k2=4, detach_h=turn(mask[:12])))
    with pytest.raises(ValueError, match=r"detach_h: expected shape .* with a value for each step and sample; got \("):
        stream.backward(trace, turn(d_output), detach_h=turn(mask[:12]))


# --- the bits


@dtypes
def test_bits(dtype: Any, rng: np.random.Generator, each_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of nothing changes none; nor do threads and a minimal trace."""
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    layer = srnn.LSTM(3, 40, 2, bidirectional=True, dtype=dtype, rng=rng)
    x, ends = rng.standard_normal((61, 9, 3)).astype(dtype), rng.integers(1, 62, 9)
    trace = layer.forward(x, lengths=ends)
    d_output, mask = rng.standard_normal(trace.output.shape).astype(dtype), rng.random((61, 9)) < 0.5
    padding = np.arange(61)[:, None] >= ends
    plain = bits(layer.backward(trace, d_output))
    for nothing in (np.zeros_like(mask), padding):
        assert bits(layer.backward(trace, d_output, detach_h=nothing)) == plain
    before = srnn.get_num_threads()
    found = []
    for count, kind in itertools.product((1, 4) if each_backend == "numba" else (1,), ("full", "minimal")):
        srnn.set_num_threads(count)
        found.append(bits(layer.backward(layer.forward(x, lengths=ends, trace=kind), d_output, detach_h=mask)))
    srnn.set_num_threads(before)
    assert all(one == found[0] for one in found[1:])
    assert found[0] != plain


# --- what is refused


def test_bad_arguments(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, rng=rng)
    trace = layer.forward(np.ones((7, 5, 3), np.float32))
    for mask, kind, message in (
        (np.ones((5, 7), bool), ValueError, r"detach_h: expected shape \(7, 5\) of the trace.*; got \(5, 7\)"),
        (np.ones((7, 5)), TypeError, "detach_h: expected a NumPy array of bool; got an array .* dtype float64"),
        (True, TypeError, "detach_h: expected a NumPy array of bool; got bool True"),
    ):
        with pytest.raises(kind, match=message):
            layer.backward(trace, detach_h=mask)
    rnn = srnn.RNN(3, 6, rng=rng)
    with pytest.raises(ValueError, match="detach_h: expected None for an RNN, whose only path is h: cut stops that"):
        rnn.backward(rnn.forward(np.ones((7, 5, 3), np.float32)), detach_h=np.ones((7, 5), bool))
