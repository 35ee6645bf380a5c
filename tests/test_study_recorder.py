"""The recorder in a study: it looks at every model however training ends, and changes nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scratchrnn.study import Progress, Results, run
from scratchrnn.train import language
from tests.test_study import SETTINGS, TEXT, stop_at

RUNNING = importlib.import_module("scratchrnn.study.run")  # the package has the function under this name
SMALL = replace(SETTINGS, backend="numpy", steps=9, validate_every=3)


def sampled(results: Results) -> list[list[int] | None]:
    """The updates after which each model was looked at."""
    return [None if one.flow is None else one.flow.steps.tolist() for one in results.models.values()]


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Make the loss of one training window NaN; the models' windows come in turn."""
    loss_of, calls = language.cross_entropy, [0]

    def cross_entropy(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        loss, d_logits = loss_of(*args, **kwargs)
        return (np.nan if calls[0] == call else loss), d_logits

    monkeypatch.setattr(language, "cross_entropy", cross_entropy)


def test_after_a_whole_training() -> None:
    results = run(TEXT, SMALL)
    assert sampled(results) == [[0, 1, 2, 3, 6, 9]] * 2
    for one in results.models.values():
        assert one.flow is not None
        assert one.flow.input.shape == (6, SMALL.distance)
        assert np.isnan(one.flow.loss[0])  # before any update
        assert one.flow.loss[1:] / np.log(2) == pytest.approx([one.curve.bits[n] for n in (0, 1, 2, 5, 8)])
        assert (one.flow.spectral_radius is None) == (one.model.cell == "lstm")


@pytest.mark.parametrize(
    ("match", "seen"),
    [
        (lambda p: p.doing == "measure untrained", None),
        (lambda p: p.doing == "train" and p.step == 0, None),
        (lambda p: p.step == 1, [0, 1]),
        (lambda p: p.step == 4, [0, 1, 2, 3]),
        (lambda p: p.step == 9, [0, 1, 2, 3, 6, 9]),
    ],
)
def test_after_a_training_that_was_stopped(match: Callable[[Progress], bool], seen: list[int] | None) -> None:
    assert sampled(run(TEXT, SMALL, **stop_at(match, times=2))) == [seen] * 2


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        (1, [[0], [0]]),  # the RNN's first window
        (2, [[0, 1], [0]]),  # the LSTM's
        (9, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (12, [[0, 1, 2, 3, 6], [0, 1, 2, 3]]),
    ],
)
def test_after_a_training_that_diverged(monkeypatch: pytest.MonkeyPatch, call: int, seen: list[list[int]]) -> None:
    fail_at(monkeypatch, call)
    results = run(TEXT, SMALL)
    assert results.stopped is not None
    assert "the loss became nan" in results.stopped
    assert sampled(results) == seen


def test_what_was_seen_is_there_before_the_next_stage() -> None:
    """Not only once Python collects what is left of the training."""
    known: list[bool] = []
    models: dict[str, Any] = {}

    def tell(progress: Progress) -> None:
        if progress.doing == "measure trained":
            known.append(all(one.flow is not None for one in models.values()))

    original = RUNNING.ModelResults

    def remember(model: Any) -> Any:
        models[model.cell] = original(model)
        return models[model.cell]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RUNNING, "ModelResults", remember)
        stops = stop_at(lambda p: p.step == 3)
        run(TEXT, SMALL, stop=stops["stop"], tell=lambda p: (stops["tell"](p), tell(p))[0])
    assert known == [True, True]


class Blind:
    """A recorder that looks at nothing."""

    def __init__(self, probe: Any, *, every: int) -> None:
        del probe, every

    def __call__(self, trainer: Any, step: Any = None) -> None:
        """Take no notice."""

    def result(self) -> None:
        """See nothing."""


def test_training_is_the_same_to_the_bit_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run(TEXT, SMALL)
    monkeypatch.setattr(RUNNING, "GradientFlowRecorder", Blind)
    unseen = run(TEXT, SMALL)
    assert sampled(unseen) == [None, None]
    for cell, one in seen.models.items():
        other = unseen.models[cell]
        assert one.curve.bits == other.curve.bits
        assert one.curve.validation == other.curve.validation
        assert one.sample == other.sample
        for name, array in one.model.parameters.items():
            assert np.array_equal(array, other.model.parameters[name]), name


def test_weights_that_are_lost_are_not_measured() -> None:
    results = run(TEXT, replace(SMALL, learning_rate=1e38))
    assert results.steps_done == 1
    assert results.stopped is not None
    assert results.stopped.startswith("rnn: the loss became nan at step 2")
    for one in results.models.values():
        assert one.before is not None
        assert (one.after, one.sample, one.known_words) == (None, None, None)
        assert np.isnan(one.curve.validation[-1][1])
        assert one.flow is not None


def test_a_loss_that_is_lost_in_the_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, late = RUNNING.evaluate, []

    def lost(model: Any, text: Any) -> float:
        return float("nan") if late and model.cell == "rnn" else evaluate(model, text)

    monkeypatch.setattr(RUNNING, "evaluate", lost)
    results = run(TEXT, SMALL, tell=lambda p: late.extend([0] * (p.step == 8)))
    assert results.steps_done == 9
    assert results.stopped == "rnn: the loss on the text held out is not finite"
    assert [one.after is None for one in results.models.values()] == [True, False]
    assert results.models["lstm"].sample is not None
