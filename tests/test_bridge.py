"""The bridge alone: finite differences, layouts, files, bad input; in a model, see test_encoder_decoder.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.models import Bridge
from scratchrnn.testing import TOLERANCE, assert_close
from tests.test_encoder_decoder import DECODERS, E_IN, E_OUT, ENCODERS, B, Layer, layer


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("source", "target"), [(ENCODERS[4], DECODERS[5]), (ENCODERS[3], DECODERS[2])])
def test_bridge_with_and_without_a_batch(source: Layer, target: Layer, batched: bool, rng: np.random.Generator) -> None:
    bridge = Bridge(layer(source, E_IN, rng), layer(target, E_OUT, rng), rng=rng)
    shapes = bridge.source.shapes(B if batched else None)
    state = tuple(rng.standard_normal(shape) for shape in shapes)
    trace = bridge.forward(state if len(state) > 1 else state[0])
    d_start = tuple(rng.standard_normal(a.shape) for a in trace.state)
    grads = bridge.backward(trace, d_start)

    def loss(*arrays: np.ndarray) -> float:
        start = bridge(arrays if len(arrays) > 1 else arrays[0])
        return sum(float((a * d).sum()) for a, d in zip(start, d_start, strict=True))

    found = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    for n, (array, gradient) in enumerate(zip(state, found, strict=True)):
        direction, step = rng.standard_normal(array.shape), 1e-6
        moved = [[a + sign * step * direction if m == n else a for m, a in enumerate(state)] for sign in (1, -1)]
        want = (loss(*moved[0]) - loss(*moved[1])) / (2 * step)
        assert_close(f"d_state[{n}]", (gradient * direction).sum(), want, rel=TOLERANCE["finite_difference"])
    for array in trace.state:
        assert array.flags.carray


def test_bridge_reads_no_cell_state_for_an_rnn(rng: np.random.Generator) -> None:
    bridge = Bridge(layer(ENCODERS[1], E_IN, rng), layer(DECODERS[3], E_OUT, rng), rng=rng)
    h, c = rng.standard_normal((2, 1, B, 6))
    np.testing.assert_array_equal(bridge((h, c)), bridge((h, c + 1)))
    d_h, d_c = bridge.backward(bridge.forward((h, c)), rng.standard_normal((2, B, 7))).state
    assert d_h.any()
    assert d_c.shape == c.shape
    assert not d_c.any()


def test_save_and_load(rng: np.random.Generator, tmp_path: Path) -> None:
    bridge = Bridge(layer(ENCODERS[4], E_IN, rng), layer(DECODERS[5], E_OUT, rng), rng=rng)
    bridge.save(tmp_path / "b.safetensors")
    loaded = Bridge.load(tmp_path / "b.safetensors")
    assert repr(loaded) == repr(bridge)
    state = tuple(rng.standard_normal(shape) for shape in bridge.source.shapes(B))
    for got, want in zip(loaded(state), bridge(state), strict=True):
        assert_close("start", got, want, rel=0)


def test_refuses_input(rng: np.random.Generator) -> None:
    bridge = Bridge(srnn.LSTM(3, 6, 2), srnn.RNN(3, 5))
    h = np.zeros((2, 4, 6), np.float32)
    with pytest.raises(TypeError, match="state: expected the state of a layer; got None"):
        bridge(None)
    with pytest.raises(TypeError, match=r"state: expected a pair \(h_n, c_n\) for an LSTM"):
        bridge(h)
    with pytest.raises(ValueError, match=r"c_n: expected shape \(2, 4, 6\) for num_layers=2, batch=4; got \(2, 3, 6\)"):
        bridge.forward((h, h[:, :3]))
    trace = bridge.forward((h, h))
    with pytest.raises(ValueError, match=r"d_h_0: expected shape \(1, 4, 5\) for num_layers=1, batch=4; got \(1, 5\)"):
        bridge.backward(trace, np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match="trace: expected one of Bridge"):
        Bridge(srnn.LSTM(3, 6, 2), srnn.LSTM(3, 5)).backward(trace, trace.state)
