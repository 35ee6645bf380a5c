"""The sentences of the report on c and h, on words and on symptoms; tests/test_findings.py has the others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scratchrnn.dynamics import Finding
from scratchrnn.gradflow import Decay
from scratchrnn.report.sections import (
    cells,
    diagnosis,
    words,
)  # fmt: skip
from scratchrnn.study import Results, run
from tests.test_study import SETTINGS, TEXT
from tests.told import both, having, only, unmeasured, untrained

INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def whole() -> Results:
    return run(TEXT, replace(SETTINGS, backend="numpy", steps=3))


# --- cell against hidden state


def claimed(results: Results, after: int, before: int, c: Decay, h: Decay) -> Results:
    def found(holding: int) -> Any:
        claims = tuple(
            SimpleNamespace(holds=n < holding, statement="c < h", measured={"a & b": 0.25, "n": NAN}) for n in range(6)
        )
        return SimpleNamespace(claims=lambda: claims, c=SimpleNamespace(decay=c), h=SimpleNamespace(decay=h))

    return having(having(results, "lstm", cells=found(after)), "lstm", "before", cells=found(before))


def decay(horizon: int, *, censored: bool = False, exploding: bool = False) -> Decay:
    return Decay(horizon, censored, exploding, decay_factor=0.5, decay_time=1.44)


def test_cells(whole: Results) -> None:
    def said(after: int, before: int, c: Decay, h: Decay) -> str:
        return cells.finding(claimed(whole, after, before, c, h))

    assert said(3, 2, decay(12), decay(1)) == (
        "Of 6 things often said of c and h, 3 hold in the trained LSTM, and 2 held before training. A small change of "
        "c stays above 1% of its size for 12 characters, one of h stays above 1% of its size for 1 character."
    )
    assert said(1, 0, decay(20, censored=True), decay(7, exploding=True)) == (
        "Of 6 things often said of c and h, 1 holds in the trained LSTM, and none held before training. A small change "
        "of c is still above 1% of its size after 20 characters, where the measurement ends, one of h grows instead of "
        "fading."
    )
    assert said(0, 1, decay(2), decay(2)).startswith(
        "Of 6 things often said of c and h, none holds in the trained LSTM, and 1 held before training. A"
    )
    early = untrained(claimed(whole, 3, 2, decay(12), decay(4)))
    assert cells.finding(early).startswith("Of 6 things often said of c and h, 2 hold in the untrained LSTM. A small")


def test_table_of_claims(whole: Results) -> None:
    table = cells.SECTION.more(claimed(whole, 1, 0, decay(2), decay(2)))
    assert table.count("<td>yes</td>") == 1
    assert table.count("<td>no</td>") == 5
    assert table.count('<th scope="row">c &lt; h</th><td>a &amp; b: 0.25; n: undefined</td>') == 6
    assert cells.SECTION.more(unmeasured(whole, "lstm")) == ""


# --- what a state holds


def after_words(same: tuple[float, float], chance: tuple[float, float], plane: tuple[float, ...]) -> Any:
    projection = SimpleNamespace(explained_variance_ratio=np.array(plane))
    return SimpleNamespace(
        words=(),
        same_word=same[0],
        same_letter=same[1],
        chance_word=chance[0],
        chance_letter=chance[1],
        projection=projection,
    )


def test_words(whole: Results) -> None:
    rnn, lstm = after_words((0.5, 0.75), (0.07, 0.2), (0.3, 0.1)), after_words((0.625, 1.0), (0.07, 0.2), (0.4, 0.25))
    assert words.finding(both(whole, "words", rnn, lstm)) == (
        "After a frequent word, the nearest other state is one after the same word in 50% of cases in the trained RNN "
        "and 62% of cases in the trained LSTM (7% by chance), and one after a word with the same last letter in 75% "
        "and 100% (20% by chance). Two principal components hold 40% and 65% of the variance."
    )
    alone = words.finding(both(whole, "words", None, lstm))
    assert alone == (
        "After a frequent word, the nearest other state is one after the same word in 62% of cases in the trained LSTM "
        "(7% by chance), and one after a word with the same last letter in 100% (20% by chance). Two principal "
        "components hold 65% of the variance."
    )
    none = both(whole, "words", None, None)
    assert words.finding(none) == (
        "The text held out has too few words that come again, or the states after them are all the same."
    )
    assert not words.SECTION.drawable(none, "words")
    assert not words.SECTION.drawable(both(whole, "words", rnn, None), "words")
    small = replace(none, settings=replace(SETTINGS, hidden_size=1))
    assert words.finding(small) == "States of one hidden unit lie on a line: there is no plane to show them in."


# --- symptoms


def ill(*names: str) -> Any:
    return SimpleNamespace(findings=tuple(Finding(n, "warning", "h < 1", {}, "a & b", "c") for n in names))


def test_diagnosis(whole: Results) -> None:
    def said(rnn: Any, lstm: Any) -> str:
        return diagnosis.finding(both(whole, "diagnosis", rnn, lstm))

    healthy = (
        "None of five symptoms in the trained RNN and LSTM: no states of zeros, none saturated nearly everywhere, none "
        "the same for different texts, every number finite, and gradients arrive."
    )
    assert said(ill(), ill()) == healthy
    assert diagnosis.SECTION.more(both(whole, "diagnosis", ill(), ill())) == ""
    assert said(ill("saturated"), ill()) == "1 symptom: in the trained RNN, saturated."
    assert said(ill("saturated", "no learning", "saturated"), ill("all zeros")) == (
        "4 symptoms: in the trained RNN, saturated, no learning; in the trained LSTM, all zeros."
    )
    alone = only(both(whole, "diagnosis", ill(), ill()), "lstm")
    assert diagnosis.finding(alone) == healthy.replace("RNN and LSTM", "LSTM")
    table = diagnosis.SECTION.more(both(whole, "diagnosis", ill("saturated"), ill("all zeros")))
    assert table.count("<tr><th scope='row'>") == 2
    assert "RNN: saturated</th><td>h &lt; 1</td><td>a &amp; b</td><td>c</td>" in table
    assert "LSTM: all zeros" in table
