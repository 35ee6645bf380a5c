from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.data import Stream, Window, unigram_entropy
from scratchrnn.models import CharModel
from scratchrnn.optim import SGD, Adam
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.train import NATS_PER_BIT, DivergedError, evaluate, train
from tests.test_models import TorchModel

CHARACTERS = "abcdef"


def new(cell: str, rng: np.random.Generator, dtype: Any = np.float64) -> CharModel:
    return CharModel(CHARACTERS, cell, 7, 4, 2, dtype=dtype, rng=rng)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_trajectory_equals_torch(cell: str, rng: np.random.Generator) -> None:
    model = new(cell, rng)
    reference = TorchModel(model)
    stream = Stream(rng.integers(0, 6, 3 * 20 + 1), batch=3, steps=5)  # 4 windows: the third epoch begins at step 9
    torch_optimizer = torch.optim.Adam(reference.parameters(), lr=0.02)
    trainer = train(model, stream.forever(), Adam(model.parameters, lr=0.02), max_norm=0.3)
    windows = stream.forever()
    clipped = 0
    state: Any = None
    for number in range(1, 12):
        window = next(windows)
        if window.starts:
            state = None
        logits, state = reference(torch.from_numpy(window.inputs), state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(window.targets).flatten())
        torch_optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.3)
        clipped += bool(norm > 0.3)
        torch_optimizer.step()
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()

        step = next(trainer)
        assert step.number == number
        assert step.characters == 15
        assert step.loss == pytest.approx(loss.item(), rel=TOLERANCE["trajectory"])
        assert step.gradient_norm == pytest.approx(norm.item(), rel=TOLERANCE["trajectory"])
    assert clipped > 0
    for name, parameter in reference.named_parameters():
        assert_close(name, model.parameters[name], parameter.detach().numpy(), rel=TOLERANCE["trajectory"])


def test_units_of_a_step(rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    step = next(train(model, Stream(rng.integers(0, 6, 31), 3, 5).epoch(), SGD(model.parameters, lr=0.1)))
    assert step.bits * math.log(2) == pytest.approx(step.loss)
    assert step.characters_per_second == pytest.approx(15 / step.seconds)


def test_stopping_is_ceasing_to_ask(rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    stream = Stream(rng.integers(0, 6, 61), 3, 5)
    steps = train(model, stream.epoch(), SGD(model.parameters, lr=0.1))
    next(steps)
    after_one = model.state_dict()
    steps.close()  # type: ignore[attr-defined]
    for name, array in after_one.items():
        assert_close(name, model.parameters[name], array, rel=0)
    model = new("rnn", rng)
    assert len(list(train(model, stream.epoch(), SGD(model.parameters, lr=0.1)))) == stream.windows_per_epoch


def test_learns_what_can_be_learned(rng: np.random.Generator) -> None:
    codes = np.tile(np.arange(6), 200)  # a, b, c ... in turn: certain once the last is known
    model = new("lstm", rng, np.float32)
    assert evaluate(model, codes) == pytest.approx(math.log(6), abs=0.3)
    for step in train(model, Stream(codes, 4, 10).forever(), Adam(model.parameters, lr=0.03)):
        if step.number == 60:
            break
    assert evaluate(model, codes) < 0.1 < unigram_entropy(codes)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_stops_before_the_update(bad: float, rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    model.parameters["decoder.bias"][2] = bad
    before = model.state_dict()
    with pytest.raises(DivergedError, match=r"^the loss of rnn became (nan|inf) at step 1$"):
        next(train(model, Stream(rng.integers(0, 6, 31), 3, 5).epoch(), SGD(model.parameters, lr=0.1)))
    for name, array in before.items():
        assert np.array_equal(model.parameters[name], array, equal_nan=True)


def test_evaluate_is_the_mean_over_rows_that_carry_their_state(rng: np.random.Generator) -> None:
    model = new("lstm", rng)
    codes = rng.integers(0, 6, 2 * 33 + 1)
    reference = TorchModel(model)
    rows = Stream(codes, 2, 1)
    logits, _ = reference(torch.from_numpy(rows.inputs))
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.targets).flatten()).item()
    for steps in (1, 7, 33):
        assert evaluate(model, codes, rows=2, steps=steps) == pytest.approx(want, rel=TOLERANCE["float64"])
    assert want / NATS_PER_BIT == pytest.approx(want / math.log(2))


def test_evaluate_of_a_short_text(rng: np.random.Generator) -> None:
    assert evaluate(new("rnn", rng), np.array([0, 1])) > 0
    with pytest.raises(ValueError, match="text: expected at least 2 characters"):
        evaluate(new("rnn", rng), np.array([0]))


def test_state_is_dropped_where_rows_begin(rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    window = Window(rng.integers(0, 6, (5, 3)), rng.integers(0, 6, (5, 3)), starts=True)
    follows = Window(window.inputs, window.targets, starts=False)
    still = SGD(model.parameters, lr=0.0)
    again = [step.loss for step in train(model, [window, window], still)]
    carried = [step.loss for step in train(model, [window, follows], still)]
    assert again[0] == again[1] == carried[0] != carried[1]
