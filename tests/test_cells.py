"""RNNCell and LSTMCell against torch.nn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close

B, I, H = 5, 3, 6
REL = TOLERANCE["float64"]
pytestmark = pytest.mark.usefixtures("each_backend")


def pair(cell: str, bias: bool, rng: np.random.Generator) -> tuple[Any, Any]:
    if cell == "lstm":
        ours = srnn.LSTMCell(I, H, bias=bias, dtype=np.float64, rng=rng)
        theirs: torch.nn.Module = torch.nn.LSTMCell(I, H, bias=bias, dtype=torch.float64)
    else:
        ours = srnn.RNNCell(I, H, bias=bias, nonlinearity=cell, dtype=np.float64, rng=rng)
        theirs = torch.nn.RNNCell(I, H, bias=bias, nonlinearity=cell, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(w) for name, w in ours.parameters.items()})
    return ours, theirs


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("given", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_equals_torch(cell: str, bias: bool, given: bool, batched: bool, rng: np.random.Generator) -> None:
    ours, theirs = pair(cell, bias, rng)
    lead = (B,) if batched else ()
    x, h, c, d_h, d_c = (rng.standard_normal((*lead, n)) for n in (I, H, H, H, H))
    xt, ht, ct = (torch.tensor(v, requires_grad=True) for v in (x, h, c))
    lstm = cell == "lstm"
    want = theirs(xt, ((ht, ct) if lstm else ht) if given else None)
    want_h, want_c = want if lstm else (want, None)
    loss = (want_h * torch.tensor(d_h)).sum()
    if lstm:
        loss = loss + (want_c * torch.tensor(d_c)).sum()
    loss.backward()

    state = ((h, c) if lstm else h) if given else None
    trace = ours.forward(x, state)
    got = ours(x, state)
    grads = ours.backward(trace, d_state=(d_h, d_c) if lstm else d_h)
    split = ours.backward(trace, 0.25 * d_h, (0.75 * d_h, d_c) if lstm else 0.75 * d_h)
    got_h, got_c = got if lstm else (got, None)
    assert_close("h'", got_h, want_h.detach().numpy(), rel=REL)
    assert_close("output", trace.output, got_h, rel=0)
    assert_close("dx", grads.input, xt.grad.numpy(), rel=REL)
    assert_close("dx, half as output", split.input, grads.input, rel=REL)
    if lstm:
        assert_close("c'", got_c, want_c.detach().numpy(), rel=REL)
        assert_close("state c'", trace.state[1], got_c, rel=0)
    if given:
        initials = grads.state if lstm else (grads.state,)
        for name, value, want_grad in zip(("dh", "dc"), initials, (ht, ct), strict=False):
            assert_close(name, value, want_grad.grad.numpy(), rel=REL)
    for name, parameter in theirs.named_parameters():
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=REL)


def test_a_loop_of_cells_is_the_layer(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    cell = srnn.LSTMCell(I, H, dtype=np.float64)
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in lstm.parameters.items()})
    x = rng.standard_normal((7, B, I))
    trace = lstm.forward(x)
    state = None
    for t in range(7):
        step = cell.forward(x[t], state)
        state = step.state
        assert_close("h", step.output, trace.h[t + 1], rel=REL)
        assert_close("gates", step.gates[0], trace.gates[t], rel=REL)


def test_bad_input() -> None:
    cell = srnn.LSTMCell(I, H)
    x = np.zeros((B, I), np.float32)
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, input_size\) .* input_size=3; got \(5, 4\)"):
        cell(np.zeros((B, I + 1), np.float32))
    with pytest.raises(ValueError, match="x: expected shape"):
        cell(np.zeros((1, B, I), np.float32))
    with pytest.raises(TypeError, match=r"state: expected a pair \(h_0, c_0\)"):
        cell(x, np.zeros((B, H), np.float32))
    with pytest.raises(ValueError, match=r"c_0: expected shape \(5, 6\) for batch=5, hidden=6; got \(6,\)"):
        cell(x, (np.zeros((B, H), np.float32), np.zeros(H, np.float32)))
    trace = cell.forward(x)
    with pytest.raises(ValueError, match=r"d_output: expected shape \(5, 6\)"):
        cell.backward(trace, np.zeros((1, H), np.float32))
    with pytest.raises(ValueError, match="trace: expected one of RNNCell"):
        srnn.RNNCell(I, H).backward(trace)
    with pytest.raises(TypeError, match="trace: expected what forward"):
        cell.backward(x)  # type: ignore[arg-type]
