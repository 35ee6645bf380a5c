"""What a study measures inside a model: on which text, of which losses, and on texts and sizes at the edge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scratchrnn.data import Vocabulary
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.report import render
from scratchrnn.study import Settings, run
from scratchrnn.study.inside import BEFORE, look_inside, places
from scratchrnn.study.record import to_json
from scratchrnn.testing import assert_close

WORDS = ["fox", "jumps", "over", "lazy", "dogs", "and", "runs"]
TEXT = " ".join(np.random.default_rng(5).choice(WORDS, 150))
SETTINGS = Settings(
    steps=2, hidden_size=7, embedding_size=5, batch=3, window=11, validate_every=1, distance=13, sequences=4, warm_up=6,
    trials=3, trial_length=8, sample_length=12, backend="numpy",
)  # fmt: skip


def new_model(cell: str, text: str = TEXT) -> CharModel:
    vocabulary = Vocabulary(text)
    return CharModel(vocabulary.characters, cell, 7, 5, dtype=np.float64, rng=np.random.default_rng(1))


def d_of_one_loss(model: CharModel, codes: np.ndarray, row: int, t: int) -> list[np.ndarray]:
    """dL_t/dh of the last layer in each slot, of one sequence alone, L_t the loss of what was read at warm_up + t."""
    warm_up = SETTINGS.warm_up
    _, state = model(codes[:warm_up, [row]])
    read = codes[warm_up : warm_up + t + 1, [row]]
    trace = model.forward(read, state)
    _, d_logits = cross_entropy(trace.logits[-1], codes[warm_up + t + 1, [row]], reduction="sum")
    d_last = d_logits @ model.decoder.weight
    d_output = np.zeros_like(trace.rnn.output)
    d_output[-1] = d_last
    return list(model.rnn.backward(trace.rnn, d_output)[0].h[1:, 0])


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_itemized_is_of_each_loss_alone(cell: str) -> None:
    model = new_model(cell)
    held_out = model.vocabulary.encode(TEXT)
    inside = look_inside(model, held_out, SETTINGS)
    codes = places(held_out, SETTINGS)
    norms = inside.itemized.h[-1, :, :, 0]  # [t, k]
    assert norms.shape == (SETTINGS.distance, SETTINGS.distance)
    for t in (0, 4, SETTINGS.distance - 1):
        want = [np.linalg.norm(d) for d in d_of_one_loss(model, codes, 0, t)]
        assert_close(f"norms[{t}]", norms[t, : t + 1], np.array(want), rel=1e-9)
        assert not norms[t, t + 1 :].any()


def test_paths_are_of_the_last_loss_alone() -> None:
    model = new_model("lstm")
    held_out = model.vocabulary.encode(TEXT)
    inside = look_inside(model, held_out, SETTINGS)
    assert inside.paths is not None
    codes, last = places(held_out, SETTINGS), SETTINGS.distance - 1
    warm_up = SETTINGS.warm_up
    wanted = []
    for row in range(SETTINGS.sequences):
        _, state = model(codes[:warm_up, [row]])
        trace = model.forward(codes[warm_up:-1, [row]], state)
        _, d_logits = cross_entropy(trace.logits[-1], codes[-1, [row]], reduction="sum")
        d_output = np.zeros_like(trace.rnn.output)
        d_output[-1] = d_logits @ model.decoder.weight
        d_c = model.rnn.backward(trace.rnn, d_output)[0].c[1:, 0]
        wanted.append(np.linalg.norm(d_c, axis=1)[::-1])
    assert len(inside.paths.total[-1]) == last + 1
    assert_close("total", inside.paths.total[-1], np.median(wanted, axis=0), rel=1e-9)


def test_words_and_the_neighbours_of_their_states() -> None:
    model = new_model("rnn")
    held_out = model.vocabulary.encode(TEXT)
    words = look_inside(model, held_out, SETTINGS).words
    assert words is not None
    states = []
    for word in dict.fromkeys(words.words):
        own = words.projection.points[[n for n, other in enumerate(words.words) if other == word]]
        ends = [n for n in range(BEFORE, len(TEXT) + 1) if f"{TEXT} "[n - len(word) : n + 1] == f"{word} "]
        known = model.forward(held_out[np.array(ends) - BEFORE + np.arange(BEFORE)[:, None]]).rnn[0].h[-1]
        distance = np.linalg.norm(own[:, None] - words.projection.transform(known), axis=2)
        assert distance.min(axis=1).max() < 1e-9  # each is one after an end of its word
        assert len(set(distance.argmin(axis=1))) == len(own)  # each after another
        states.extend(known[distance.argmin(axis=1)])
    count, same_word, same_letter = len(states), 0, 0
    for n, word in enumerate(words.words):
        other = words.words[
            min((m for m in range(count) if m != n), key=lambda m: np.linalg.norm(states[m] - states[n]))
        ]
        same_word, same_letter = same_word + (other == word), same_letter + (other[-1] == word[-1])
    assert (words.same_word, words.same_letter) == pytest.approx((same_word / count, same_letter / count))
    pairs = [(a, b) for n, a in enumerate(words.words) for m, b in enumerate(words.words) if m != n]
    assert words.chance_word == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert words.chance_letter == pytest.approx(np.mean([a[-1] == b[-1] for a, b in pairs]))


EDGES: dict[str, tuple[str, dict[str, Any]]] = {
    "the least of everything": (
        TEXT, {"hidden_size": 1, "sequences": 1, "distance": 2, "warm_up": 1, "trials": 1, "trial_length": 2},
    ),
    "no words, one cell": ("0123456789+-*/=" * 40, {"cells": ("lstm",)}),
    "another script, another cell": ("кошка и собака, 春眠不觉晓 処处闻啼鳥; " * 20, {"cells": ("rnn",)}),
    "one character held out": ("b" + "a" * 600, {}),
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
def test_at_the_edges_a_study_runs_and_is_written(edge: str) -> None:
    text, changes = EDGES[edge]
    results = run(text, replace(SETTINGS, **changes))
    assert results.stopped is None
    assert "report.html" in render(results)
    assert to_json(results, [])
