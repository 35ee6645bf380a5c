"""results.json against docs/results-json.md, key by key in both directions, and against the arrays that it tells."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn.dynamics import Finding
from scratchrnn.study import Measurement, Results, record, record_inside, run
from scratchrnn.study.record import plain, to_json
from tests.test_study import SETTINGS, TEXT, stop_at

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results-json.md"
ENDS = {
    "left": "number [H]", "right": "number [H]", "left_by_step": "number [D]", "right_by_step": "number [D]",
    "left_share": "number", "right_share": "number", "nan_count": "integer",
}  # fmt: skip
SYMPTOM = Finding("saturated", "warning", "layer 0 forward, h", {"share": 0.9, "units": 9}, "large weights", "smaller")
TYPES: dict[str, Any] = {"text": str, "integer": int, "boolean": bool, "number": (int, float), "object": dict}


def tell(results: Results) -> Any:
    """As a program reads it; NaN and Infinity, which are not JSON, are refused."""
    text = to_json(results, ["results.json"]).decode()

    def refuse(word: str) -> Any:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def with_symptom(results: Results) -> Results:
    """The same, with a finding in each measurement."""

    def ill(m: Measurement | None) -> Any:
        return m and replace(m, inside=replace(m.inside, diagnosis=replace(m.inside.diagnosis, findings=(SYMPTOM,))))

    models = {cell: replace(m, before=ill(m.before), after=ill(m.after)) for cell, m in results.models.items()}
    return replace(results, models=models)


@pytest.fixture(scope="module")
def whole() -> Results:
    return run(TEXT, replace(SETTINGS, backend="numpy", steps=3), text_name="fox & <dog>.txt")


# --- the page


def schema() -> dict[str, str]:
    """Type by key, in full, as the page's tables have it; `*` stands for what a heading names."""
    found: dict[str, str] = {}
    prefix = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            prefix = {"The study": "", "`models.rnn`": "models.*.", "`models.lstm.before`": "models.*.*."}.get(
                line.removeprefix("## ").split(", ")[0], ""
            )
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for key in re.findall(r"`([^`]+)`", cells[0]) if len(cells) == 3 else ():
            assert prefix + key not in found
            for name, kind in ENDS.items() if cells[1] == "ends" else [("", cells[1])]:
                found[f"{prefix}{key}.{name}".rstrip(".")] = kind
    return found


SCHEMA = schema()


def keys(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key in full, and what it holds; an object that the page names is one as well."""
    general = re.sub(r"^models\.(rnn|lstm)", "models.*", path)
    general = re.sub(r"^(models\.\*)\.(before|after)(?=\.)", r"\1.*", general)
    if general in SCHEMA or not isinstance(value, dict):
        yield general, value
    if isinstance(value, dict) and not general.endswith((".evidence", ".measured")):
        for name, item in value.items():
            yield from keys(item, f"{path}.{name}".lstrip("."))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from keys(item, path + "[]")


def test_every_key_is_on_the_page_and_every_one_there_is_written(whole: Results) -> None:
    written = {key for key, _ in keys(tell(with_symptom(whole)))}
    assert written - SCHEMA.keys() == set()
    assert SCHEMA.keys() - written == set()


def sizes(record: Any, cell: str) -> dict[str, int]:
    """What the page's letters stand for."""
    s = record["settings"]
    shown = min(64, s["distance"])
    return {
        "S": record["steps_done"], "D": s["distance"], "K": shown, "R": s["trial_length"], "H": s["hidden_size"],
        "L": 1, "E": min(32, s["hidden_size"]), "P": 51, "C": 2, "G": min(60, s["distance"]) + 1,
        "A": s["distance"] // 2 + 1, "B": shown // 2 + 1, "2": 2,
    }  # fmt: skip


def check(key: str, value: Any, kind: str, letters: dict[str, int]) -> None:
    """That a value is of the type that the page says, with the lengths that it says."""
    base, dims = re.match(r"(\w+)((?: ?\[\w*\])*)", kind).groups()  # type: ignore[union-attr]
    if value is None:
        assert "or null" in kind or kind == "number", key
        return
    for letter in re.findall(r"\[(\w*)\]", dims):
        assert isinstance(value, list), key
        if letter:
            assert len(value) == letters.setdefault(letter, len(value)), f"{key} [{letter}]"
        if not value:
            return
        value = next((item for item in value if item is not None), 0.0)
    assert isinstance(value, TYPES[base]), key
    assert base == "boolean" or not isinstance(value, bool), key


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_types_and_lengths_are_those_of_the_page(whole: Results, cell: str) -> None:
    told = tell(with_symptom(whole))
    told["models"] = {cell: told["models"][cell]}
    letters = sizes(told, cell)
    for key, value in keys(told):
        check(key, value, SCHEMA[key], letters)
    assert letters["W"] > letters["F"] == 1
    gates = {"i", "f", "o", "g", "tanh_c"} & told["models"][cell]["after"]["saturation"].keys()
    assert len(gates) == (5 if cell == "lstm" else 0)
    absent = {key for key, value in keys(told["models"][cell]["after"]["inside"]) if value is None}
    assert {"paths", "forget", "cells"} <= absent if cell == "rnn" else not {"paths", "forget", "cells"} & absent


def test_what_was_not_reached_is_null() -> None:
    before = tell(run(TEXT, replace(SETTINGS, backend="numpy"), **stop_at(lambda p: p.cell == "rnn")))
    assert before["stopped"] == "interrupted"
    for cell, model in before["models"].items():
        absent = {key for key, value in model.items() if value is None}
        assert absent == {"flow", "after", "sample", "known_words"} | ({"before"} if cell == "lstm" else set())
    for key, value in keys(before):
        check(key, value, SCHEMA[key], {})


def test_the_docstrings_name_every_key() -> None:
    text = f"{record.__doc__} {record_inside.__doc__}"
    names = {name for key in SCHEMA for name in key.removesuffix("[]").replace("[]", "").split(".") if name != "*"}
    told = set(re.findall(r"\w+", text))
    assert {n for n in names if not key_of_settings(n)} - told - set(ENDS) == set()
    heads = {name for line in text.splitlines() for name in re.findall(r"^ {2,12}(\w+) {2,}", line)}
    assert len(heads) > 20
    assert heads <= names


def key_of_settings(name: str) -> bool:
    return f"settings.{name}" in SCHEMA


# --- the numbers


def close(got: Any, want: Any, path: str = "") -> None:
    """That what JSON tells is what the array has, to six digits; null for what is not finite."""
    if isinstance(want, dict):
        assert got.keys() == want.keys(), path
        for name in want:
            close(got[name], want[name], f"{path}.{name}")
    elif want is None or isinstance(want, (str, bool)):
        assert got == want, path
    else:
        numbers = np.array([np.nan if g is None else g for g in np.ravel(np.array(got, object))], float)
        expected = np.ravel(np.asarray(want, float))
        expected = np.where(np.isfinite(expected), expected, np.nan)
        np.testing.assert_allclose(numbers, expected, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_inside_holds_the_arrays_that_it_names(whole: Results, cell: str) -> None:
    told = tell(with_symptom(whole))["models"][cell]
    measured = whole.models[cell].after
    assert measured is not None
    x, entry = measured.inside, told["after"]["inside"]
    s, p = x.spectrum, x.position
    close(entry["lyapunov"], {
        "exponents": s.exponents, "standard_error": s.standard_error, "entropy": s.entropy, "steps": s.steps,
        "kaplan_yorke_dimension": s.kaplan_yorke_dimension, "warmup": s.warmup,
    })  # fmt: skip
    close(entry["constant_input"], {
        "character": x.constant, "verdict": p.verdict, "period": p.period, "settling_time": p.settling_time,
        "spectral_radius": p.spectral_radius, "contraction": p.contraction, "lyapunov": p.lyapunov,
        "to_fixed_point": p.to_fixed_point,
    })  # fmt: skip
    for name in ("stable", "spectral_radius", "unstable_directions", "candidates", "unconverged"):
        close(entry["fixed_points"][name], getattr(x.fixed, name))
    assert [one["span"] for one in entry["singular_values"]] == [1, 2, 4, 8, 16]
    for one, want in zip(entry["singular_values"], x.singular, strict=True):
        close(one["log"], want.log[0])
    close(entry["connectivity"], x.connectivity.norm[0])
    close(entry["itemized"], {"h": x.itemized.h[0, :, :, 0], "share_beyond": x.itemized.share_beyond()})
    assert x.words is not None
    assert entry["words"].pop("words") == list(x.words.words)
    close(entry["words"], {
        "points": x.words.projection.points, "same_word": x.words.same_word, "same_letter": x.words.same_letter,
        "chance_word": x.words.chance_word, "chance_letter": x.words.chance_letter,
        "explained_variance_ratio": x.words.projection.explained_variance_ratio,
    })  # fmt: skip
    assert entry["diagnosis"] == {"findings": [asdict(SYMPTOM)]}
    if cell == "rnn":
        return
    assert x.paths is not None
    assert x.forget is not None
    assert x.cells is not None
    close(entry["paths"], {name: getattr(x.paths, name)[0] for name in ("c_path", "through_h", "total")})
    close(entry["forget"], {"product": x.forget.product[0], "truth": x.forget.truth[0]})
    claims = entry["cells"].pop("claims")
    assert [claim["holds"] for claim in claims] == [claim.holds for claim in x.cells.claims()]
    close(claims[0]["measured"], dict(x.cells.claims()[0].measured))
    memories = {
        name: {
            "autocorrelation": m.autocorrelation.by_lag, "autocorrelation_time": m.autocorrelation.time,
            "gradient": m.gradient, "horizon": m.decay.horizon,
        }
        for name, m in (("c", x.cells.c), ("h", x.cells.h))
    }  # fmt: skip
    units = {name: getattr(x.cells, name) for name in ("forget", "forget_time", "output", "carried", "exposed")}
    close(entry["cells"], units | memories)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_flow_and_the_rest_hold_the_arrays_that_they_name(whole: Results, cell: str) -> None:
    told, one = tell(whole)["models"][cell], whole.models[cell]
    flow, m = one.flow, one.before
    assert flow is not None
    assert m is not None
    close(told["flow"], {
        "steps": flow.steps, "horizon": flow.horizon, "censored": flow.censored, "exploding": flow.exploding,
        "decay_time": flow.decay_time, "h_saturation": flow.h_saturation, "forget_gate": flow.forget_gate,
        "spectral_radius": flow.spectral_radius, "input": flow.input,
    })  # fmt: skip
    close(told["training"], {
        "bits": one.curve.bits, "gradient_norm": one.curve.gradient_norm, "seconds": one.curve.seconds,
        "validation": one.curve.validation,
    })  # fmt: skip
    close(told["before"]["text"], {
        "input": m.by_distance.input, "h": m.by_distance.h[0],
        "c": None if m.by_distance.c is None else m.by_distance.c[0], **vars(m.decay),
    })  # fmt: skip
    memory = {name: value for name, value in vars(m.memory).items() if name != "threshold"}
    close(told["before"]["random_input"], memory)
    close(told["before"]["saturation"]["h"], vars(m.saturation.h))
    if cell == "lstm":
        for name in "ifo":
            close(told["before"]["saturation"][name], vars(m.saturation.gates[name]))
    states = told["before"]["states"]
    close(states["h"], m.stretch.layers[0]["h"])
    close(states["c"], m.stretch.layers[0].get("c"))
    close(states["probability"], m.stretch.probability)
    for t, row in enumerate(states["gradient"]):
        close(row, m.stretch.gradient[t, : t + 1])


def test_null_for_what_is_no_number_wherever_it_stands() -> None:
    odd = {
        "a": np.array([1.0, math.nan, math.inf, -math.inf]),
        "b": [math.nan, (1, math.inf)],
        "c": np.float32("nan"),
        "d": {"e": np.array(math.nan)},
    }
    assert plain(odd) == {"a": [1.0, None, None, None], "b": [None, [1, None]], "c": None, "d": {"e": None}}


def test_truth_and_whole_numbers_keep_their_kind() -> None:
    odd = {"a": np.bool_(True), "b": np.int64(3), "c": np.array([True]), "d": np.array([2]), "e": np.float32(0.1)}
    got = plain(odd)
    assert json.dumps(got) == '{"a": true, "b": 3, "c": [true], "d": [2], "e": 0.1}'
