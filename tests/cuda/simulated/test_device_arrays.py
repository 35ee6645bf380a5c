"""A recurrent layer on arrays of the simulated device, beside the definition on NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.kernels.cuda.queue import SimulatedArray
from scratchrnn.testing import assert_close

T, B, I, H = 4, 2, 2, 3


@pytest.mark.parametrize("trace", ["full", "minimal"])
def test_a_layer(trace: str, rng: np.random.Generator) -> None:
    lengths = 3, 4
    x, d_output = rng.standard_normal((B, T, I)), rng.standard_normal((B, T, 2 * H))
    cut = rng.random((B, T)) < 0.3

    def run(backend: str, move: Any) -> dict[str, Any]:
        lstm = srnn.LSTM(
            I, H, bidirectional=True, batch_first=True, dtype=np.float64, backend=backend, rng=np.random.default_rng(1)
        )
        kept = lstm.forward(move(x), lengths=lengths, trace=trace)
        grads = lstm.backward(kept, move(d_output), clip=0.5, cut=cut)
        states = {"h_n": kept.state[0], "a": kept[0, "reverse"].a, "f": kept[0].f, "output": lstm(move(x))[0]}
        return states | {"dx": grads.input, "dc": grads[0, "reverse"].c} | grads.parameters

    there = run("cuda", lambda array: array.view(SimulatedArray))
    for name, array in run("numpy", lambda array: array).items():
        assert type(there[name]) is SimulatedArray, name
        assert_close(name, np.asarray(there[name]), array, rel=1e-12)
