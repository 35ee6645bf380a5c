"""EveryStep against torch, and training on drawn batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.data import flip_flop, flip_flop_baseline
from scratchrnn.losses import mse_loss
from scratchrnn.models import EveryStep, LastStep
from scratchrnn.optim import Adam
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.train import Sampled, Trainer

T, B, I, H, O = 7, 5, 3, 6, 2
CASES: list[tuple[Any, dict[str, Any]]] = [
    (srnn.RNN, {}),
    (srnn.LSTM, {"num_layers": 2, "bidirectional": True}),
    (srnn.LSTM, {"proj_size": 4, "batch_first": True}),
]


def new(kind: Any, rng: np.random.Generator, **options: Any) -> EveryStep:
    return EveryStep(kind(I, H, dtype=np.float64, rng=rng, **options), O, rng=rng)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_everything_equals_torch(
    kind: Any, options: dict[str, Any], rng: np.random.Generator, each_backend: str
) -> None:
    model = new(kind, rng, **options)
    x = rng.standard_normal((B, T, I) if "batch_first" in options else (T, B, I))
    weights = rng.standard_normal((*x.shape[:2], O))

    module = srnn.interop.torch.to_module(model.rnn)
    linear = srnn.interop.torch.to_module(model.decoder)
    x_t = torch.from_numpy(x).requires_grad_()
    want = linear(module(x_t)[0])
    (want * torch.from_numpy(weights)).sum().backward()

    trace = model.forward(x)
    grads = model.backward(trace, weights)
    assert_close("output", trace.output, want.detach().numpy(), rel=TOLERANCE["float64"])
    assert_close("inference", model(x), trace.output, rel=TOLERANCE["float64"])
    assert_close("dx", grads.input, x_t.grad.numpy(), rel=TOLERANCE["float64"])  # type: ignore[union-attr]
    named = {f"rnn.{n}": p for n, p in module.named_parameters()}
    named |= {f"decoder.{n}": p for n, p in linear.named_parameters()}
    assert list(grads.parameters) == list(model.parameters) == list(named)
    for name, parameter in named.items():
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=TOLERANCE["float64"])


def test_file_and_back(tmp_path: Path, rng: np.random.Generator) -> None:
    model = new(srnn.LSTM, rng, num_layers=2)
    model.save(tmp_path / "model.safetensors")
    again = EveryStep.load(tmp_path / "model.safetensors")
    x = rng.standard_normal((T, B, I))
    assert_close("output", again(x), model(x), rel=0)
    assert repr(again) == repr(model)
    assert repr(model).startswith("EveryStep(LSTM(")
    with pytest.raises(ValueError, match="expected a saved LastStep; got a saved EveryStep"):
        LastStep.load(tmp_path / "model.safetensors")


def test_it_trains() -> None:
    rng = np.random.default_rng(0)
    model = EveryStep(srnn.LSTM(2, 8, rng=rng), 2, rng=rng)
    task = Sampled(model, lambda r: flip_flop(12, 32, r, bits=2), mse_loss, rng=rng)
    losses = [step.loss for step in Trainer(task, Adam(model.parameters, lr=0.02), steps=200, progress=False)]
    assert losses[-1] < flip_flop_baseline(12) / 10 < losses[0]


def test_refuses(rng: np.random.Generator) -> None:
    model = new(srnn.RNN, rng)
    trace = model.forward(np.zeros((T, B, I)))
    with pytest.raises(ValueError, match=r"x: expected three axes, time, batch and input; got shape \(7, 3\)"):
        model.forward(np.zeros((T, I)))
    with pytest.raises(ValueError, match=r"x: expected three axes"):
        model(np.zeros((T, I)))
    with pytest.raises(ValueError, match=r"d_output: expected shape \(7, 5, 2\) of the trace's output"):
        model.backward(trace, np.zeros((B, O)))
    with pytest.raises(TypeError, match="trace"):
        model.backward(trace.rnn, trace.output)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM"):
        EveryStep(srnn.Linear(2, 2), 1)  # type: ignore[arg-type]
