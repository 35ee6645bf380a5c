"""A stretch seen character by character: one batch of losses against torch's autograd, one loss at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.interop.torch import to_module
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.study import Settings
from scratchrnn.study.measure import measure
from scratchrnn.study.stretch import Stretch, measure_stretch
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]
CELLS = ("rnn", "lstm")
STEPS, HIDDEN, EMBEDDING, LAYERS = 7, 5, 3, 2
CHARACTERS = "abcdefghi"


def tiny(cell: str, rng: np.random.Generator, layers: int = LAYERS) -> CharModel:
    model = CharModel(CHARACTERS, cell, HIDDEN, EMBEDDING, layers, dtype=np.float64, rng=rng)
    for array in model.parameters.values():
        array *= 1.7  # states that differ, gates away from 1/2
    return model


def start(cell: str, rng: np.random.Generator, layers: int = LAYERS) -> Any:
    h_0, c_0 = rng.standard_normal((2, layers, 1, HIDDEN))
    return (h_0, c_0) if cell == "lstm" else h_0


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_torch_loss_by_loss(cell: str, rng: np.random.Generator, each_backend: str) -> None:
    model, state = tiny(cell, rng), start(cell, rng)
    codes = rng.integers(0, len(CHARACTERS), STEPS + 1)
    got = measure_stretch(model, codes, state)

    module = to_module(model.rnn)
    weight, bias = (torch.from_numpy(model.decoder.parameters[name].copy()) for name in ("weight", "bias"))
    x = torch.from_numpy(model.embedding(codes[:-1, None])).requires_grad_()
    begin = tuple(map(torch.from_numpy, state)) if cell == "lstm" else torch.from_numpy(state)
    output, _ = module(x, begin)
    logits = output[:, 0] @ weight.T + bias
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(codes[1:]), reduction="none")
    want = np.stack([torch.autograd.grad(loss, x, retain_graph=True)[0][:, 0].norm(dim=1).numpy() for loss in losses])
    assert_close("gradient", got.gradient, want, rel=EXACT)
    assert (got.gradient[np.triu_indices(STEPS, 1)] == 0).all()  # no loss reaches what is read after it
    assert (got.gradient[np.tril_indices(STEPS)] > 0).all()
    assert_close("probability", got.probability, torch.exp(-losses).detach().numpy(), rel=EXACT)
    assert_close("h", got.layers[-1]["h"], output[:, 0].detach().numpy(), rel=EXACT)

    # the last layer's d_h, of the sum of all losses: what the readout sends, plus what comes back from the next step
    (d_output,) = torch.autograd.grad(losses.sum(), output, retain_graph=True)
    assert_close("last d_h", got.layers[-1]["d_h"][-1], d_output[-1, 0].numpy(), rel=EXACT)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_the_engine_loss_by_loss(cell: str, rng: np.random.Generator, each_backend: str) -> None:
    model, state = tiny(cell, rng), start(cell, rng)
    codes = rng.integers(0, len(CHARACTERS), STEPS + 1)
    got = measure_stretch(model, codes, state)
    trace = model.forward(codes[:-1, None], state)
    want = np.zeros((STEPS, STEPS))
    for t in range(STEPS):
        d_logits = np.zeros_like(trace.logits)
        d_logits[t] = cross_entropy(trace.logits[t], codes[t + 1 : t + 2])[1]
        d_output: Any = model.decoder.backward(trace.decoder, d_logits).input
        dx: Any = model.rnn.backward(trace.rnn, d_output).input
        want[t] = np.linalg.norm(dx[:, 0], axis=1)
    assert_close("gradient", got.gradient, want, rel=EXACT)

    grads = model.backward(trace, cross_entropy(trace.logits, codes[1:, None], reduction="sum")[1])
    for n, layer in enumerate(got.layers):
        assert_close(f"d_h of layer {n}", layer["d_h"], grads[n].h[1:, 0], rel=EXACT)
        assert_close(f"h of layer {n}", layer["h"], trace.rnn[n].h[1:, 0], rel=EXACT)
        if cell == "lstm":
            assert_close(f"d_c of layer {n}", layer["d_c"], grads[n].c[1:, 0], rel=EXACT)
            assert_close(f"c of layer {n}", layer["c"], trace.rnn[n].c[1:, 0], rel=EXACT)
            for gate in "ifgo":
                assert_close(f"{gate} of layer {n}", layer[gate], getattr(trace.rnn[n], gate)[:, 0], rel=EXACT)
        assert layer.keys() == ({"h", "d_h"} if cell == "rnn" else {"h", "c", "i", "f", "g", "o", "d_h", "d_c"})


def test_predictions_are_the_likeliest(rng: np.random.Generator) -> None:
    model, state = tiny("lstm", rng), start("lstm", rng)
    codes = rng.integers(0, len(CHARACTERS), STEPS + 1)
    got = measure_stretch(model, codes, state)
    assert got.text + got.following[-1] == model.vocabulary.decode(codes)
    assert got.text[1:] == got.following[:-1]
    logits, _ = model(codes[:-1, None], state)
    p = torch.softmax(torch.from_numpy(logits[:, 0]), dim=1)
    values, best = p.topk(3)
    assert_close("candidate_probability", got.candidate_probability, values.numpy(), rel=EXACT)
    assert got.candidates == tuple(model.vocabulary.decode(row) for row in best.numpy())


def test_one_step_and_two_characters(rng: np.random.Generator) -> None:
    model = CharModel("ab", "rnn", 3, 2, rng=rng)
    got = measure_stretch(model, np.array([0, 1]), np.zeros((1, 1, 3), np.float32))
    assert isinstance(got, Stretch)
    assert got.gradient.shape == (1, 1)
    assert got.candidate_probability.shape == (1, 2)
    assert set(got.candidates[0]) == {"a", "b"}


@pytest.mark.parametrize("codes", [np.array([1]), np.zeros((3, 2), np.int64)])
def test_too_little_to_read(codes: Any, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"codes: expected shape \(K \+ 1,\) with at least one character"):
        measure_stretch(tiny("rnn", rng), codes, start("rnn", rng))


@pytest.mark.parametrize("cell", CELLS)
def test_study_reads_on_from_its_warm_up(cell: str, rng: np.random.Generator) -> None:
    settings = Settings(distance=6, warm_up=4, sequences=2, trials=2, trial_length=3)
    model = tiny(cell, rng, layers=1)
    held_out = rng.integers(0, len(CHARACTERS), 40)
    got = measure(model, held_out, settings).stretch
    assert got.text == model.vocabulary.decode(held_out[4:10])
    assert got.following == model.vocabulary.decode(held_out[5:11])
    trace = model.forward(held_out[:10, None])
    assert_close("h", got.layers[0]["h"], trace.rnn.h[5:, 0], rel=EXACT)
