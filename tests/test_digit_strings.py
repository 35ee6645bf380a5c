"""Digit strings: what they are, who is held out, and that an encoder and a decoder learn to reverse them."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn.data import digit_strings
from scratchrnn.data.digit_strings import END, IGNORED

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

seq2seq = importlib.import_module("seq2seq")  # a program, not part of a package


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("task", ["reverse", "sort"])
def test_every_array_by_plain_python(task: str, held_out: bool, rng: np.random.Generator) -> None:
    longest = 6
    drawn = digit_strings(300, rng, shortest=2, longest=longest, task=task, held_out=held_out)
    assert drawn.source.shape == (longest, 300)
    assert set(drawn.lengths) == {2, 3, 4, 5, 6}
    for b, text in enumerate(drawn.strings):
        answer = list(map(int, text[::-1] if task == "reverse" else sorted(text)))
        padding = longest - len(text)
        assert drawn.lengths[b] == len(text) == drawn.target_lengths[b] - 1
        assert drawn.source[:, b].tolist() == [*map(int, text), *[0] * padding]
        assert drawn.target_in[:, b].tolist() == [END, *answer, *[0] * padding]
        assert drawn.target_out[:, b].tolist() == [*answer, END, *[IGNORED] * padding]
        assert (zlib.crc32(text.encode()) % 10 == 0) == held_out


def test_lengths_and_digits_are_equally_likely(rng: np.random.Generator) -> None:
    drawn = digit_strings(20_000, rng, longest=5)
    assert np.abs(np.bincount(drawn.lengths, minlength=6)[1:] / 20_000 - 0.2).max() < 0.012  # four standard deviations
    last = drawn.source[drawn.lengths - 1, np.arange(20_000)][drawn.lengths == 5]
    assert np.abs(np.bincount(last, minlength=10) / len(last) - 0.1).max() < 0.02


def test_one_in_ten_is_held_out_of_every_length() -> None:
    for n in (1, 2, 3, 4):
        texts = ["".join(digits) for digits in itertools.product("0123456789", repeat=n)]
        held_out = sum(zlib.crc32(text.encode()) % 10 == 0 for text in texts)
        assert 0.08 <= held_out / len(texts) <= 0.12
    assert set(digit_strings(20, np.random.default_rng(0), longest=1, held_out=True).strings) == {"6"}
    assert "6" not in digit_strings(500, np.random.default_rng(0), longest=1).strings


def test_distinct_keeps_the_first_of_each_in_order(rng: np.random.Generator) -> None:
    drawn = digit_strings(400, rng, longest=2)
    kept = drawn.distinct()
    assert kept.strings == list(dict.fromkeys(drawn.strings))
    first = [drawn.strings.index(text) for text in kept.strings]
    for name in ("source", "target_in", "target_out"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(drawn, name)[:, first])
    np.testing.assert_array_equal(kept.lengths, drawn.lengths[first])


def test_correct_wants_every_digit_and_the_length(rng: np.random.Generator) -> None:
    drawn = digit_strings(6, rng, shortest=3, longest=4)
    right = [np.array([int(d) for d in text[::-1]]) for text in drawn.strings]
    assert drawn.correct(right).all()
    wrong = [w.copy() for w in right]
    wrong[1][2] = (wrong[1][2] + 1) % 10
    wrong[2] = wrong[2][:-1]
    wrong[4] = np.append(wrong[4], 0)
    wrong[5] = wrong[5][:0]
    assert drawn.correct(wrong).tolist() == [True, False, False, True, False, False]
    with pytest.raises(ValueError, match="written: expected 6 targets, one for each string; got 5"):
        drawn.correct(right[:5])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"batch": 0}, ValueError, "batch: expected an integer of at least 1; got 0"),
        ({"longest": 3, "shortest": 4}, ValueError, "longest: expected at least shortest=4; got 3"),
        ({"shortest": 0}, ValueError, "shortest: expected an integer of at least 1; got 0"),
        ({"task": "copy"}, ValueError, "task: expected 'reverse' or 'sort'; got 'copy'"),
        ({"rng": 0}, TypeError, "rng: expected a numpy.random.Generator; got int 0"),
        ({"held_out": 1}, TypeError, "held_out: expected True or False; got int 1"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], kind: Any, message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        digit_strings(**({"batch": 2, "rng": np.random.default_rng(0)} | arguments))


# Learning


@pytest.mark.parametrize("changes", [{}, {"bidirectional": True}], ids=["handed on", "bridge"])
def test_short_strings_are_learned_in_seconds(changes: dict[str, Any]) -> None:
    """Who guesses is right once in 11² to 11⁴ strings; measured after 250 steps, three seeds: 98 % to 100 %."""
    recipe = seq2seq.Recipe(longest=3, hidden=32, steps=250, batch=64, lr=2e-2, **changes)
    rng = np.random.default_rng(1)
    model, held_out = seq2seq.build(recipe, rng), seq2seq.unseen(recipe, 1000)
    assert (model.bridge is None) == (not changes)
    assert seq2seq.exact_match(model, held_out) < 0.05
    losses = [loss for _, loss in seq2seq.train(model, recipe, rng)]
    assert losses[0] == pytest.approx(np.log(11), abs=0.3)
    assert seq2seq.exact_match(model, held_out) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_more_than_99_in_100_unseen_strings_are_reversed_within_a_minute(seed: int) -> None:
    began = time.perf_counter()
    recipe, rng = seq2seq.Recipe(), np.random.default_rng(seed)
    model, held_out = seq2seq.build(recipe, rng), seq2seq.unseen(recipe)
    assert len(held_out.lengths) >= 1000
    for _ in seq2seq.train(model, recipe, rng):
        pass
    assert seq2seq.exact_match(model, held_out) > 0.99
    assert time.perf_counter() - began < 60


def test_the_program_prints_what_it_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        ["seq2seq.py", "--task", "sort", "--longest", "2", "--hidden", "8", "--steps", "20", "--batch", "4"],
    )
    seq2seq.main()
    out = capsys.readouterr().out
    assert re.search(r"task='sort', longest=2.*\n\d+ parameters, no bridge, seed 0\n\d+ distinct strings held out", out)
    assert len(re.findall(r"^ +\d+  [\d.]+ +[\d.]+%  +[\d.]+$", out, re.MULTILINE)) == 10
