"""What wraps a layer goes through streams and windows as the layer does; what runs parts of a pass anew refuses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close

T, B, I, H, K = 13, 3, 4, 5, 4  # windows of 4, 4, 4 and 1


def wrap(kind: str, layer: Any) -> Any:
    rng = np.random.default_rng(5)
    return srnn.WeightDrop(layer, 0.4, rng=rng) if kind == "weight drop" else srnn.Zoneout(layer, 0.3, 0.2, rng=rng)


@pytest.mark.parametrize("kind", ["weight drop", "zoneout"])
def test_windows_are_passes_over_the_parts(kind: str, rng: np.random.Generator) -> None:
    """With k1 = k2 each window is a pass of its own, and draws as that pass does."""
    lstm = srnn.LSTM(I, H, 2, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    through, by_hand = wrap(kind, lstm), wrap(kind, lstm)
    state = None
    for window in srnn.bptt.windows(through, x, d_output, k1=K, k2=K, clip=0.5):
        part = slice(window.start, window.stop)
        trace = by_hand.forward(x[part], state)
        want = by_hand.backward(trace, d_output[part], clip=0.5)
        assert_close("output", window.trace.output, trace.output, rel=TOLERANCE["float64"])
        assert_close("input", window.gradients.input, want.input, rel=TOLERANCE["float64"])
        for name, gradient in want.parameters.items():
            assert_close(name, window.gradients.parameters[name], gradient, rel=TOLERANCE["float64"])
        state = trace.state
    assert window.stop == T
    for name, got, end in zip("hc", window.state, trace.state, strict=True):
        assert_close(name, got, end, rel=TOLERANCE["float64"])


@pytest.mark.parametrize("kind", ["weight drop", "zoneout"])
def test_full_and_streams_take_them(kind: str, rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    one, other = wrap(kind, lstm), wrap(kind, lstm)
    want = other.backward(other.forward(x), d_output).parameters
    for name, gradient in srnn.bptt.full(one, x, d_output).parameters.items():
        assert_close(name, gradient, want[name], rel=0)
    stream = srnn.bptt.Stream(one)
    parts = np.concatenate([stream(x[:K]), stream(x[K:])])
    assert_close("inference", parts, one(x)[0], rel=TOLERANCE["float64"])


def test_what_runs_parts_anew_refuses_them(rng: np.random.Generator) -> None:
    layer = wrap("weight drop", srnn.LSTM(I, H, rng=rng))
    x = np.zeros((T, B, I), np.float32)
    for run in (
        lambda: srnn.bptt.truncated(layer, x, k1=3, k2=3),
        lambda: srnn.bptt.truncation_bias(layer, x, None),
        lambda: srnn.bptt.checkpointed(layer, x),
    ):
        with pytest.raises(
            TypeError, match="layer: expected an RNN or LSTM itself, not what wraps one; got W"
        ):
            run()
