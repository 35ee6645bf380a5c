"""What a study tells people and programs: the page, its figures, its sentences, results.json."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from scratchrnn.cli.progress import _cell
from scratchrnn.report import render, sections, words
from scratchrnn.report.page import caption
from scratchrnn.report.words import COLORS
from scratchrnn.study import Progress, Results, run
from scratchrnn.study.folder import weights
from scratchrnn.study.record import FORMAT, summary, to_json
from tests.test_study import SETTINGS, TEXT, stop_at

LIVE_DATA = '<script type="application/json" id="live-data">'
MODULES = list(pkgutil.iter_modules(sections.__path__))


OF_LSTM = {"gates", "paths", "forget-product", "autocorrelation", "cell-units"}
FIGURES = OF_LSTM | {
    "loss", "gradients", "memory-over-training", "gradient-over-training", "memory", "states", "itemized",
    "share-beyond", "lyapunov", "singular-values", "connectivity", "saturation", "position", "words",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Results:
    return run(TEXT, SETTINGS, text_name="fox & <dog>.txt")


class Page(HTMLParser):
    """Tags in balance, and every address."""

    VOID = frozenset({"meta", "br", "link", "img", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href"}]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: bytes) -> Page:
    page = Page()
    page.feed(html.decode())
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def files(whole: Results) -> dict[str, bytes]:
    return render(whole)


def test_report_is_one_page_that_needs_nothing_else(files: dict[str, bytes]) -> None:
    page = read(files["report.html"])
    assert page.addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    text = files["report.html"].decode()
    assert "url(http" not in text
    linked = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text)
    assert [title for _, title in linked] == [section.title for section in sections.SECTIONS]
    assert all(f'<article id="{name}"><h2>{title}</h2>' in text for name, title in linked)
    assert re.findall(r"<script[^>]*>", text) == [LIVE_DATA, "<script>"]
    assert page.counts["figure"] == len(FIGURES)
    assert page.counts["svg"] == 2 * len(FIGURES)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    # two figures of one id would clip one by the other's frame
    clips = re.findall(r'<clipPath id="([^"]+)"', text)
    assert len(clips) == len(set(clips)) > 6


def test_report_escapes_the_text(files: dict[str, bytes], whole: Results) -> None:
    text = files["report.html"].decode()
    assert "fox &amp; &lt;dog&gt;.txt" in text
    assert "<dog>" not in text
    assert "<jumps>" not in text
    for one in whole.models.values():
        assert f"{one.curve.validation[-1][1]:.2f}" in text


def test_figures_are_files_of_both_kinds(files: dict[str, bytes]) -> None:
    assert {f"figures/{n}.{kind}" for n in FIGURES for kind in ("svg", "png")} == files.keys() - {"report.html"}
    for name in FIGURES:
        assert files[f"figures/{name}.svg"].rstrip().endswith(b"</svg>")
        png = files[f"figures/{name}.png"]
        width, height = struct.unpack(">II", png[16:24])
        assert png[:4] == b"\x89PNG"
        assert min(width, height) > 500


@pytest.mark.parametrize(
    ("match", "figures"),
    [(lambda p: p.cell == "rnn", 0), (lambda p: p.doing == "train" and p.step == 0, 16), (lambda p: p.step == 2, 19)],
)
def test_report_of_what_was_reached(match: Callable[[Progress], bool], figures: int) -> None:
    results = run(TEXT, SETTINGS, **stop_at(match))
    files = render(results)
    page = read(files["report.html"])
    assert page.counts.get("figure", 0) == figures
    assert b"This study did not run to its end: interrupted." in files["report.html"]
    assert (
        files["report.html"].count(b"nothing to compare it with") <= 2
    )  # above, and beside a table; not in every section
    assert files["report.html"].count(b"<article") > 1
    record = json.loads(to_json(results, files))
    assert record["stopped"] == "interrupted"
    assert record["steps_done"] == results.steps_done


def test_json_holds_every_number(whole: Results) -> None:
    record = json.loads(to_json(whole, ["results.json", "a"]))
    assert (record["format"], record["version"], record["stopped"]) == (FORMAT, 2, None)
    assert record["files"] == ["a", "results.json"]
    assert record["text"]["characters"] == len(TEXT)
    assert record["settings"]["hidden_size"] == 9
    for cell, one in whole.models.items():
        entry = record["models"][cell]
        assert one.after is not None
        assert entry["parameters"] == sum(a.size for a in one.model.parameters.values())
        assert entry["training"]["bits"] == pytest.approx(one.curve.bits, rel=1e-5)
        assert entry["after"]["text"]["input"] == pytest.approx(one.after.by_distance.input, rel=1e-5)
        assert entry["after"]["random_input"]["seed_rule"] == one.after.memory.seed_rule
        assert np.shape(entry["after"]["states"]["h"]) == one.after.stretch.layers[-1]["h"].shape
        assert ("f" in entry["after"]["saturation"]) == (cell == "lstm")
        assert entry["sample"] == one.sample
        assert summary(whole)["models"][cell]["horizon_on_text"] == one.after.decay.horizon


def test_json_has_null_for_what_is_no_number(whole: Results) -> None:
    odd = replace(whole, seconds=math.nan, unigram_bits=math.inf)
    record = json.loads(to_json(odd, []))
    assert record["seconds"] is None
    assert record["text"]["unigram_bits"] is None


# --- what is found


def test_findings_follow_the_numbers(whole: Results) -> None:
    rnn, lstm = whole.models["rnn"], whole.models["lstm"]
    assert rnn.after is not None
    assert lstm.after is not None
    trained = rnn.after

    def with_losses(first: float, second: float) -> str:
        curves = [replace(m.curve, validation=[(0, 6.5), (6, v)]) for m, v in ((rnn, first), (lstm, second))]
        models = {"rnn": replace(rnn, curve=curves[0]), "lstm": replace(lstm, curve=curves[1])}
        return sections.learning.finding(replace(whole, models=models, unigram_bits=4.0))

    assert "the LSTM needs 2.00 bits" in with_losses(2.5, 2.0)
    assert "ahead by 0.50 bits, 20%" in with_losses(2.5, 2.0)
    assert "ahead by 0.19 bits" in with_losses(2.0249, 1.8251)  # 2.02 and 1.83, as shown
    assert "more than a hundred times as many" in with_losses(2.0, 0.0)
    assert "the RNN needs 1.00 bits" in with_losses(1.0, 2.0)
    assert "no real difference" in with_losses(2.0, 2.01)
    assert "learned less than that" in with_losses(5.0, 5.5)

    def with_decay(**changes: Any) -> str:
        after = replace(trained, decay=replace(trained.decay, **changes))
        return sections.gradients.finding(replace(whole, models={"rnn": replace(rnn, after=after), "lstm": lstm}))

    assert "in the trained RNN stays above 1% of its size for 13 characters" in with_decay(
        horizon=13, censored=False, exploding=False
    )
    assert "grows on its way back" in with_decay(exploding=True)
    assert "still above 1% at 20 characters" in with_decay(horizon=20, censored=True, exploding=False)
    assert rnn.before is not None
    assert f"from {rnn.before.decay.horizon} to 20+ in the RNN" in with_decay(
        horizon=20, censored=True, exploding=False
    )


def test_what_training_did_is_a_sentence() -> None:
    moved, left = ("6", "11"), ("8", "8")
    both = words.trained("the horizon", {"RNN": moved, "LSTM": left})
    assert both == "Training moved the horizon from 6 to 11 in the RNN and left it at 8 in the LSTM."
    assert words.trained("x", {"RNN": left, "LSTM": left}) == "Training left x at 8 in the RNN and at 8 in the LSTM."


def test_horizon_that_stays_is_not_said_to_go(whole: Results) -> None:
    flow = whole.models["rnn"].flow
    assert flow is not None
    horizon = np.full_like(flow.horizon, 8)

    def text(values: np.ndarray) -> str:
        calm = replace(
            flow, horizon=values, censored=np.zeros_like(flow.censored), exploding=np.zeros_like(flow.exploding)
        )
        return sections.flow.finding(replace(whole, models={"rnn": replace(whole.models["rnn"], flow=calm)}))

    assert "gradient begins and ends at 8 characters in" in text(horizon)
    horizon[-1] = 10
    assert "gradient goes from 8 to 10 characters in" in text(horizon)


def test_what_was_measured_has_units_and_marks(whole: Results) -> None:
    lstm = whole.models["lstm"].after
    assert lstm is not None
    found = lstm.inside.cells
    assert found is not None
    found = replace(found, c=replace(found.c, decay=replace(found.c.decay, horizon=99, censored=True, exploding=False)))
    said = sections.cells._measured
    assert said(found, "horizon of c", 99) == "horizon of c: 99+ characters"
    assert said(found, "time of h", 0.316) == "time of h: 0.32 characters"
    assert said(found, "time of c", np.inf) == "time of c: longer than was measured"
    assert said(found, "autocorrelation of h at lag 1", -0.5) == "autocorrelation of h at lag 1: −0.50"
    assert said(found, "median share shown", np.nan) == "median share shown: undefined"


def test_flags_are_told_wherever_the_number_is(whole: Results) -> None:
    rnn = whole.models["rnn"]
    assert rnn.after is not None
    limit = whole.settings.trial_length
    for changes, shown in (({"censored": True, "exploding": False}, "16+"), ({"exploding": True}, "16!")):
        memory = replace(rnn.after.memory, horizon=16, seed_rule=limit, **changes)  # type: ignore[arg-type]
        after = replace(rnn.after, memory=memory, decay=replace(rnn.after.decay, censored=False, exploding=False))
        odd = replace(whole, models=whole.models | {"rnn": replace(rnn, after=after)})
        text = sections.memory.finding(odd)
        assert f"counts {limit}+ and" in text
        assert f"the corrected measure says {shown} and" in text
        entry = summary(odd)["models"]["rnn"]
        assert entry["seed_rule_censored"]
        assert not entry["horizon_on_text_censored"]
        assert entry["horizon_on_random_input_exploding"] == ("!" in shown)
        found = summary(odd) | {"report": "x"}
        assert _cell(found["models"]["rnn"], "horizon_on_random_input") == shown
        assert _cell(found["models"]["rnn"], "seed_rule") == f"{limit}+"


def test_samples_without_words_and_without_end(whole: Results) -> None:
    def words(first: tuple[str | None, float | None], second: tuple[str | None, float | None]) -> str:
        pairs = zip(whole.models.items(), (first, second), strict=True)
        models = {cell: replace(one, sample=sample, known_words=known) for (cell, one), (sample, known) in pairs}
        return sections.samples.finding(replace(whole, models=models))

    assert words((None, None), (None, None)) == "Neither model came to write."
    assert (
        words((". .", None), ("- -", None))
        == "There are no words of three letters or more in what the RNN and the LSTM wrote."
    )
    assert "50% of the RNN's occur" in words(("the foz", 0.5), (None, None))
    assert "The other model did not come to write." in words(("the foz", 0.5), (None, None))


def test_counts_have_their_noun() -> None:
    assert words.count(1, "step") == "1 step"
    assert words.count(1200, "step") == "1,200 steps"
    assert words.count(2.5, "time") == "2.5 times"


def test_characters_without_a_sign_are_counted(whole: Results) -> None:
    def text(stretch: str) -> str:
        models = {
            c: replace(m, after=replace(m.after, stretch=replace(m.after.stretch, text=stretch)))
            for c, m in whole.models.items()
            if m.after
        }
        return sections.states.finding(replace(whole, models=models))

    assert "□" not in text("plain\n")
    assert "□ stands for 2 characters that" in text("a\u0301b\u200bc\u0301")


# --- how the page is put together


def test_each_file_of_sections_is_one_section(whole: Results) -> None:
    files = {module.name: importlib.import_module(f"{sections.__name__}.{module.name}") for module in MODULES}
    assert {id(file.SECTION) for file in files.values()} == {id(section) for section in sections.SECTIONS}
    names = [name for section in sections.SECTIONS for name in section.figures]
    assert len(names) == len(set(names))
    for section in sections.SECTIONS:
        assert "$" not in caption(whole, section.how)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_report_of_one_model(cell: str) -> None:
    results = run(TEXT, replace(SETTINGS, cells=(cell,)))
    files = render(results) | weights(results)
    other = {"rnn": "LSTM", "lstm": "RNN"}[cell]
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", files["report.html"].decode(), flags=re.DOTALL)
    assert other not in re.sub(r"scratchrnn|SRNN", "", text)
    assert f"{cell}.safetensors" in files
    assert f"{other.lower()}.safetensors" not in files
    assert read(files["report.html"]).counts["figure"] == len(FIGURES if cell == "lstm" else FIGURES - OF_LSTM)
    assert list(json.loads(to_json(results, files))["models"]) == [cell]
    for name in ("gradients", "memory", "loss"):  # in the colour that it has beside the other
        color = COLORS[cell].lower().encode()
        assert color in files[f"figures/{name}.svg"]


def test_report_of_one_unit_has_no_plane_of_words() -> None:
    results = run(TEXT, replace(SETTINGS, hidden_size=1))
    files = render(results)
    assert "figures/words.svg" not in files
    assert "figures/states.svg" in files
