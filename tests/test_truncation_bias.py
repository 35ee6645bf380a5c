"""How far truncated gradients are from the full one."""

from __future__ import annotations

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.bptt import truncated, truncation_bias
from scratchrnn.testing import TOLERANCE, assert_close
from tests.test_bptt import draw, make

T, B = 23, 5
pytestmark = pytest.mark.usefixtures("each_backend")


def test_bias_of_truncation(rng: np.random.Generator) -> None:
    layer = make("lstm", rng, dtype=np.float64)
    x, state, d_output, _ = draw(layer, rng, B, T)
    found = truncation_bias(layer, x, d_output, k2=(1, 5, T, T + 1), state=state)
    assert found.k1.tolist() == found.k2.tolist() == [1, 5, T, T + 1]
    full = srnn.bptt.full(layer, x, d_output, state=state)
    for n, k in enumerate((1, 5)):
        cut = truncated(layer, x, d_output, k1=k, k2=k, state=state)
        g, t = (np.concatenate([p.ravel() for p in grads.parameters.values()]) for grads in (full, cut))
        assert found.cosine[n] == pytest.approx(g @ t / np.sqrt((g @ g) * (t @ t)), rel=1e-12)
        assert found.norm_ratio[n] == pytest.approx(np.sqrt((t @ t) / (g @ g)), rel=1e-12)
        g, t = full.parameters["weight_hh_l0"].ravel(), cut.parameters["weight_hh_l0"].ravel()
        assert found.cosine_of["weight_hh_l0"][n] == pytest.approx(g @ t / np.sqrt((g @ g) * (t @ t)), rel=1e-12)
    assert found.cosine[2:] == pytest.approx(1, abs=1e-15)
    assert (found.norm_ratio[2:] == 1).all()
    assert found.cosine[0] < found.cosine[1] < 1
    each = truncation_bias(layer, x, d_output, k2=(5,), k1=1, state=state)
    assert found.cosine[1] < each.cosine[0] < 1  # every loss reaches back 5 steps, not 3 on average


def test_bias_without_a_gradient(rng: np.random.Generator) -> None:
    layer = make("tanh", rng)
    x, _, d_output, _ = draw(layer, rng, B, T)
    found = truncation_bias(layer, x, np.zeros_like(d_output), k2=[3])
    assert np.isnan([found.cosine, found.norm_ratio]).all()


def test_bias_of_gradients_whose_squares_vanish(rng: np.random.Generator) -> None:
    layer = make("lstm", rng, dtype=np.float64)
    x, _, d_output, _ = draw(layer, rng, B, T)
    want, got = (truncation_bias(layer, x, d, k2=(2, 5)) for d in (d_output, d_output * 1e-200))
    assert_close("cosine", got.cosine, want.cosine, rel=TOLERANCE["float64"])
    assert_close("norm_ratio", got.norm_ratio, want.norm_ratio, rel=TOLERANCE["float64"])
