"""The two toy examples, to the printed digits."""

from __future__ import annotations

import numpy as np
import pytest

import scratchrnn as srnn


def test_one_cell_update() -> None:
    i, f, g, o = np.array([[0.6, 0.4], [0.8, 0.2], [0.7, -0.1], [0.9, 0.3]])
    c, h = srnn.toy.cell_update(i, f, g, o, c_prev=np.array([0.3, 0.0]))
    np.testing.assert_allclose(c, [0.66, -0.04], rtol=1e-15)
    np.testing.assert_allclose(h, [0.52052707, -0.0119936], atol=5e-9)
    with pytest.raises(ValueError, match=r"g: expected shape \(2,\) of i; got \(1,\)"):
        srnn.toy.cell_update(i, f, g[:1], o, c)
    with pytest.raises(TypeError, match="c_prev: expected dtype float64; got float32"):
        srnn.toy.cell_update(i, f, g, o, c.astype(np.float32))


def test_torchs_seed_0_without_torch() -> None:
    """Inputs, outputs and states as torch 2 prints them; all c_t beside them, which it cannot."""
    g = srnn.rng.torch_manual_seed(0)
    x = g.randn(1, 4, 3)
    lstm = srnn.LSTM(3, 2, batch_first=True, rng=g)
    trace = lstm.forward(x)
    inputs = [
        [1.5410, -0.2934, -2.1788],
        [0.5684, -1.0845, -1.3986],
        [0.4033, 0.8380, -0.7193],
        [-0.4033, -0.5966, 0.1820],
    ]
    outputs = [[-0.1491, 0.0378], [-0.2774, 0.0892], [-0.0008, 0.2280], [0.0942, 0.1251]]
    cells = [[-0.2062, 0.4409], [-0.4016, 0.8418], [-0.0024, 0.7915], [0.2080, 0.3955]]
    assert np.round(x[0], 4).tolist() == np.float32(inputs).tolist()
    assert np.round(trace.output[0], 4).tolist() == np.float32(outputs).tolist()
    assert np.round(trace.c[1:, 0], 4).tolist() == np.float32(cells).tolist()
    h_n, c_n = lstm(x)[1]
    assert np.round(h_n[0, 0], 4).tolist() == np.float32(outputs[-1]).tolist()
    assert np.round(c_n[0, 0], 4).tolist() == np.float32(cells[-1]).tolist()
