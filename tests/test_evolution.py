"""One sequence's states and gates over time, against the layer run on this sequence alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.dynamics import evolution
from scratchrnn.testing import TOLERANCE, assert_close

LENGTHS = (4, 9, 1)
T, B, I, H = 9, 3, 2, 5


@pytest.mark.parametrize("trace", ["full", "minimal"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("sample", range(B))
def test_lstm_by_torch_cell(trace: str, direction: str, sample: int, rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, bidirectional=True, dtype=np.float64, rng=rng)
    x, n = rng.standard_normal((T, B, I)), LENGTHS[sample]
    found = evolution(lstm.forward(x, lengths=LENGTHS, trace=trace), layer=0, direction=direction, sample=sample)
    suffix = "_l0_reverse" if direction == "reverse" else "_l0"
    w = {
        name: torch.tensor(lstm.parameters[name + suffix]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    h = c = torch.zeros(H, dtype=torch.float64)
    assert list(found.parts) == ["h", "c", "i", "f", "g", "o"]
    assert (found.cell, found.layer, found.direction, found.sample, found.steps) == ("lstm", 0, direction, sample, n)
    for t in range(n) if direction == "forward" else reversed(range(n)):
        a = w["weight_ih"] @ torch.tensor(x[t, sample]) + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
        i, f, g, o = (
            torch.sigmoid(a[:H]),
            torch.sigmoid(a[H : 2 * H]),
            torch.tanh(a[2 * H : 3 * H]),
            torch.sigmoid(a[3 * H :]),
        )
        c = f * c + i * g
        h = o * torch.tanh(c)
        for name, want in zip("hcifgo", (h, c, i, f, g, o), strict=True):
            assert_close(f"{name}[{t}]", found.parts[name][t], want.numpy(), rel=TOLERANCE["float64"])


def test_some_parts_in_this_order_as_copies(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, proj_size=3, rng=rng)
    trace = lstm.forward(rng.standard_normal((T, B, I), np.float32))
    found = evolution(trace, layer=1, sample=2, parts=["f", "h"])
    assert list(found.parts) == ["f", "h"]
    assert found.parts["h"].shape == (T, 3)
    np.testing.assert_array_equal(found.parts["h"], trace[1].h[1:, 2])
    np.testing.assert_array_equal(found.parts["f"], trace[1].f[:, 2])
    found.parts["h"][:] = 7
    assert not (trace[1].h == 7).any()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_an_rnn_has_h_alone(nonlinearity: str, rng: np.random.Generator) -> None:
    rnn = srnn.RNN(I, H, nonlinearity=nonlinearity, rng=rng)
    found = evolution(rnn.forward(rng.standard_normal((T, I), np.float32)))  # no batch: sample 0
    assert list(found.parts) == ["h"]
    assert found.parts["h"].shape == (T, H)
    assert found.cell == f"rnn_{nonlinearity}"


def test_bad_input(rng: np.random.Generator) -> None:
    x = rng.standard_normal((T, B, I), np.float32)
    rnn = srnn.RNN(I, H, 2, rng=rng).forward(x)
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (x, {}, TypeError, "trace: expected what forward of a layer returned"),
        (rnn, {}, ValueError, "layer: expected to be given"),
        (rnn, {"layer": 2}, IndexError, "no layer 2"),
        (rnn, {"layer": 0, "sample": 3}, ValueError, "sample: expected less than 3, the batch; got 3"),
        (rnn, {"layer": 0, "sample": -1}, ValueError, "sample: expected an integer of at least 0"),
        (rnn, {"layer": 0, "parts": ("c",)}, ValueError, r"parts: expected some of \('h',\), each once; got tuple"),
        (rnn, {"layer": 0, "parts": ()}, ValueError, "parts: expected some of"),
        (rnn, {"layer": 0, "parts": ("h", "h")}, ValueError, "parts: expected some of"),
        (rnn, {"layer": 0, "parts": "h"}, ValueError, "parts: expected some of"),
    ]
    for trace, options, error, message in cases:
        with pytest.raises(error, match=message):
            evolution(trace, **options)
