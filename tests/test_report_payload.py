"""What the live part of the page is made from: its JSON, its orders, its finding."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from scratchrnn.report import render
from scratchrnn.report.order import alike, sign_changes, slow_first
from scratchrnn.report.payload import QUANTITIES, UNITS, pack, payload
from scratchrnn.report.sections import live
from scratchrnn.study import Results
from tests.awkward import NASTY, STEPS, awkward_study, now, stretches


@pytest.fixture(scope="module")
def results() -> Results:
    return awkward_study()


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return render(results)["report.html"].decode()


def unpack(text: str, steps: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(steps, -1)


# --- the JSON


def test_json_in_the_page_holds_the_arrays(html: str, results: Results) -> None:
    (text,) = re.findall(r'<script type="application/json" id="live-data">(.*?)</script>', html, re.DOTALL)
    data = json.loads(text)
    assert [m["cell"] for m in data["models"]] == ["rnn", "lstm"]
    for entry, stretch in zip(data["models"], stretches(results), strict=True):
        assert "".join(data["text"]) == stretch.text
        assert "".join(data["following"]) == stretch.following
        assert len(data["text"]) == len(stretch.text) == STEPS
        assert len(entry["layers"]) == len(stretch.layers)
        for layer, arrays in zip(entry["layers"], stretch.layers, strict=True):
            assert layer["arrays"].keys() == arrays.keys() <= data["quantities"].keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(unpack(layer["arrays"][name]["data"], STEPS), array)
            assert layer["units"] == layer["size"] == arrays["h"].shape[1]
            assert sorted(layer["orders"]["slow"]) == sorted(layer["orders"]["alike"]) == list(range(layer["size"]))
        for t, row in enumerate(entry["gradient"]):
            assert len(row) == t + 1
            assert row == pytest.approx(stretch.gradient[t, : t + 1], rel=5.001e-3)
        assert entry["probability"] == pytest.approx(stretch.probability, abs=5.001e-5)
        assert ["".join(c for c, _ in row) for row in entry["candidates"]] == list(stretch.candidates)
        shown = [[p for _, p in row] for row in entry["candidates"]]
        np.testing.assert_allclose(shown, stretch.candidate_probability, atol=5.001e-5)


def test_text_cannot_leave_its_script(html: str, results: Results) -> None:
    text = payload(now(results))
    assert NASTY[:10] in stretches(results)[0].text
    assert not set("<>&\u2028\x01é") & set(text)
    assert text.isascii()
    # nothing of the text outside: two scripts are ours
    assert html.count("<script") == html.count("</script>") == 2
    assert "alert(1)<" not in html


def test_what_is_not_finite_and_what_is_too_much(results: Results) -> None:
    m = now(results)["lstm"]
    wide = np.linspace(-1, 1, STEPS * 300, dtype=np.float32).reshape(STEPS, 300)
    wide[3, 2], wide[4, 2] = np.nan, -np.inf
    gradient = m.stretch.gradient.copy()
    gradient[9, 1], gradient[9, 2] = np.nan, np.inf
    probability = np.full(STEPS, np.nan)
    odd = replace(
        m.stretch, layers=({"h": wide, "d_h": np.zeros_like(wide)},), gradient=gradient, probability=probability
    )
    text = payload({"lstm": replace(m, stretch=odd)})
    (entry,) = json.loads(text, parse_constant=pytest.fail)["models"]
    (layer,) = entry["layers"]
    assert (layer["size"], layer["units"]) == (300, UNITS)
    np.testing.assert_array_equal(unpack(layer["arrays"]["h"]["data"], STEPS), wide[:, :UNITS])
    assert layer["arrays"]["d_h"]["limit"] == 1.0
    assert entry["gradient"][9][1:3] == [None, None]
    assert entry["probability"] == [None] * STEPS
    assert np.isinf(unpack(pack(np.array([[1e300]])), 1)).all()


def test_page_stays_small() -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((STEPS, 128)).astype(np.float32) for name in QUANTITIES}
    assert len(QUANTITIES) * len(pack(arrays["h"])) < 400_000


# --- orders and findings


def test_slow_units_come_first() -> None:
    slow, fast = np.ones(8), np.array([1, -1] * 4)
    once = np.array([-1.0] * 3 + [1.0] * 5)
    states = np.stack([fast, once, -slow, slow], axis=1)
    assert sign_changes(states).tolist() == [7, 1, 0, 0]
    assert slow_first(states).tolist() == [3, 2, 1, 0]


def test_units_that_move_alike_stand_together(rng: np.random.Generator) -> None:
    kinds = rng.standard_normal((2, 40))
    kind, scale, place = (grid.ravel() for grid in np.meshgrid([0, 1], [0.1, 9.0], [-20.0, 20.0]))
    order = alike((kinds[kind.astype(int)] * scale[:, None] + place[:, None]).T)  # nearer by place and scale
    assert sorted(order) == list(range(8))
    assert (np.diff(kind[order]) != 0).sum() == 1


@pytest.mark.parametrize(
    "states", [np.zeros((4, 1)), np.zeros((4, 3)), np.full((4, 3), np.nan), np.full((1, 2), np.inf)]
)
def test_order_of_what_does_not_move(states: np.ndarray) -> None:
    assert sorted(alike(states)) == list(range(states.shape[1]))


def test_needed_counts_characters_back() -> None:
    gradient = np.tril(np.ones((4, 4)))
    gradient[2, :3] = 1, 1, 8  # one character has half; row 3: two of four
    assert live.needed(gradient, 0.5) == 1.5
    assert live.needed(gradient, 1.0) == 3.5
    assert live.needed(np.zeros((4, 4)), 0.5) is None
    gradient[3, 0] = np.nan
    assert live.needed(gradient, 0.5) == 1


def test_finding_follows_the_numbers(results: Results) -> None:
    text = live.finding(results)
    rnn, lstm = stretches(results)
    right = sum(c[0] == y for c, y in zip(lstm.candidates, lstm.following, strict=True))
    assert f"{right} times for the LSTM." in text
    half = live.needed(rnn.gradient, 0.5)
    assert f"half goes to the last {'character' if half == 1 else f'{half:g} characters'} in the RNN" in text
    m = now(results)["rnn"]
    silent = replace(m, stretch=replace(rnn, gradient=rnn.gradient * 0))
    models = results.models | {"rnn": replace(results.models["rnn"], after=silent)}
    assert "half goes" not in live.finding(replace(results, models=models))
