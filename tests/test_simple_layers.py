"""Linear, Embedding and Dropout against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close, difference

REL = TOLERANCE["float64"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (5,), (7, 5), (0, 5), (150, 4)], ids=str)
def test_linear(lead: tuple[int, ...], bias: bool, rng: np.random.Generator) -> None:
    ours = srnn.Linear(3, 6, bias=bias, dtype=np.float64, rng=rng)
    theirs = torch.nn.Linear(3, 6, bias=bias, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(w) for name, w in ours.parameters.items()})
    x, d = rng.standard_normal((*lead, 3)), rng.standard_normal((*lead, 6))
    xt = torch.tensor(x, requires_grad=True)
    y = theirs(xt)
    (y * torch.tensor(d)).sum().backward()
    trace = ours.forward(x)
    x[...] = 0  # the trace owns its input
    for w in ours.parameters.values():
        w *= 2
    grads = ours.backward(trace, d)
    assert_close("y", trace.output, y.detach().numpy(), rel=REL)
    assert_close("dx", grads.input, xt.grad.numpy(), rel=REL)
    for name, parameter in theirs.named_parameters():
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=REL)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
@pytest.mark.parametrize("shape", [(), (9,), (7, 5), (0,)], ids=str)
def test_embedding(shape: tuple[int, ...], padding_idx: int | None, rng: np.random.Generator) -> None:
    ours = srnn.Embedding(6, 4, padding_idx=padding_idx, dtype=np.float64, rng=rng)
    theirs = torch.nn.Embedding(6, 4, padding_idx=padding_idx, dtype=torch.float64)
    if padding_idx is not None:
        assert not ours.weight[padding_idx].any()
    theirs.load_state_dict({"weight": torch.tensor(ours.weight)})
    indices = rng.integers(0, 6, shape)
    indices = np.asarray(indices)
    d = rng.standard_normal((*shape, 4))
    y = theirs(torch.tensor(indices))
    (y * torch.tensor(d)).sum().backward()
    trace = ours.forward(indices)
    grads = ours.backward(trace, d)
    assert_close("y", trace.output, y.detach().numpy(), rel=0)
    assert_close("weight", grads.parameters["weight"], theirs.weight.grad.numpy(), rel=REL)
    assert grads.input is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_are_torchs_for_one_seed(dtype: Any) -> None:
    torch_dtype = torch.from_numpy(np.zeros(0, dtype)).dtype
    for ours, theirs in (
        (lambda g: srnn.Linear(7, 5, dtype=dtype, rng=g), lambda: torch.nn.Linear(7, 5, dtype=torch_dtype)),
        (lambda g: srnn.LSTMCell(7, 5, dtype=dtype, rng=g), lambda: torch.nn.LSTMCell(7, 5, dtype=torch_dtype)),
        (lambda g: srnn.Embedding(7, 5, dtype=dtype, rng=g), lambda: torch.nn.Embedding(7, 5, dtype=torch_dtype)),
        (
            lambda g: srnn.LSTM(7, 5, 2, bidirectional=True, proj_size=3, dtype=dtype, rng=g),
            lambda: torch.nn.LSTM(7, 5, 2, bidirectional=True, proj_size=3, dtype=torch_dtype),
        ),
    ):
        torch.manual_seed(3)
        want = dict(theirs().named_parameters())
        got = ours(srnn.rng.torch_manual_seed(3)).parameters
        assert list(got) == list(want)
        for name in got:
            assert_close(name, got[name], want[name].detach().numpy(), rel=0)


def test_dropout(rng: np.random.Generator) -> None:
    layer = srnn.Dropout(0.3, rng=rng)
    x, d = rng.standard_normal((200, 50)), rng.standard_normal((200, 50))
    trace = layer.forward(x)
    assert trace.mask is not None
    kept = trace.mask != 0
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.21 / x.size)
    np.testing.assert_array_equal(trace.output[kept], x[kept] * (1 / 0.7))
    assert not trace.output[~kept].any()
    assert_close("dx", layer.backward(trace, d).input, d * trace.mask, rel=0)
    assert layer(x) is x
    plain = layer.forward(x, training=False)
    assert_close("y", plain.output, x, rel=0)
    assert plain.output is not x
    assert_close("dx", layer.backward(plain, d).input, d, rel=0)
    again = layer.forward(x, rng=np.random.default_rng(5)).mask, layer.forward(x, rng=np.random.default_rng(5)).mask
    assert_close("mask", again[0], again[1], rel=0)
    assert srnn.Dropout(1.0).forward(x.astype(np.float32)).output.dtype == np.float32


def test_bad_input() -> None:
    linear, embedding = srnn.Linear(3, 6), srnn.Embedding(6, 4)
    with pytest.raises(ValueError, match=r"x: expected a last axis of in_features=3; got shape \(2, 4\)"):
        linear(np.zeros((2, 4), np.float32))
    with pytest.raises(TypeError, match="x: expected dtype float32; got float64"):
        linear(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"d_output: expected shape \(2, 6\); got \(6,\)"):
        linear.backward(linear.forward(np.zeros((2, 3), np.float32)), np.zeros(6, np.float32))
    with pytest.raises(TypeError, match=r"indices: expected a NumPy array of integers; got an array .* float64"):
        embedding(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"indices: expected values from 0 to 5; got 6 at \(1, 0\)"):
        embedding(np.array([[0, 1], [6, -1]]))
    with pytest.raises(ValueError, match=r"got -1 at \(0,\)"):
        embedding(np.array([-1]))
    with pytest.raises(ValueError, match="padding_idx: expected less than num_embeddings=6; got 6"):
        srnn.Embedding(6, 4, padding_idx=6)
    with pytest.raises(ValueError, match=r"p: expected a number between 0 and 1; got -0.1"):
        srnn.Dropout(-0.1)
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator for dropout masks"):
        srnn.Dropout(0.5, rng=srnn.rng.torch_manual_seed(0)).forward(np.zeros((2, 3)))


def test_linear_in_float32_is_as_close_to_the_truth_as_torch(rng: np.random.Generator) -> None:
    n = 20_000
    x, d = (rng.random((n, k), dtype=np.float32) for k in (3, 6))
    ours = srnn.Linear(3, 6, rng=rng)
    grads = ours.backward(ours.forward(x), d)
    theirs = torch.nn.Linear(3, 6)
    (theirs(torch.tensor(x)) * torch.tensor(d)).sum().backward()
    wide = d.astype(np.float64)
    for name, truth in (("weight", wide.T @ x), ("bias", wide.sum(axis=0))):
        mine = difference(grads.parameters[name], truth).rms_ratio
        its = difference(dict(theirs.named_parameters())[name].grad.numpy(), truth).rms_ratio
        assert mine <= max(TOLERANCE["float32_growth"] * its, 2.0**-24)


def test_traces_are_checked() -> None:
    linear, x = srnn.Linear(3, 6), np.zeros((2, 3), np.float32)
    embedding, dropout = srnn.Embedding(5, 3), srnn.Dropout(0.5)
    d = np.zeros((2, 6), np.float32)
    with pytest.raises(TypeError, match=r"trace: expected what forward of Linear\(in_features=3"):
        linear.backward(x, d)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"trace: expected one of Linear\(in_features=4, .* another size"):
        srnn.Linear(4, 6).backward(linear.forward(x), d)
    with pytest.raises(ValueError, match="another size"):
        srnn.Embedding(5, 4).backward(embedding.forward(np.zeros(2, int)), np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match="trace: expected what forward of Dropout"):
        dropout.backward(linear.forward(x), d)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rng: expected"):
        dropout.forward(x, training=False, rng=0)  # type: ignore[arg-type]
