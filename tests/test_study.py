from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn.data import split, unigram_entropy
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.report import findings, render
from scratchrnn.study import Progress, Results, Settings, run
from scratchrnn.study.folder import check_folder, is_study, weights, write_folder
from scratchrnn.study.measure import measure
from scratchrnn.study.record import FORMAT, summary, to_json

TEXT = "the quick brown fox <jumps> over the lazy dog & runs away;\nit was not seen again. " * 45
SETTINGS = Settings(
    steps=6, hidden_size=9, embedding_size=5, batch=4, window=11, validate_every=3, distance=21, sequences=7,
    warm_up=8, trials=6, trial_length=17, sample_length=40, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Results:
    return run(TEXT, SETTINGS, text_name="fox & <dog>.txt")


def stop_at(match: Callable[[Progress], bool], times: int = 1) -> dict[str, Any]:
    """Arguments of `run` that wish it to stop when a part is told."""
    count = 0

    def tell(progress: Progress) -> None:
        nonlocal count
        if count < times and match(progress):
            count += 1

    return {"tell": tell, "stop": lambda: count}


# --- running


def test_both_models_are_trained_and_measured(whole: Results) -> None:
    assert whole.stopped is None
    assert whole.steps_done == SETTINGS.steps
    assert whole.unigram_bits == pytest.approx(unigram_entropy(np.unique([*TEXT], return_inverse=True)[1]) / math.log(2))
    for cell, one in whole.models.items():
        assert len(one.curve.bits) == len(one.curve.gradient_norm) == len(one.curve.seconds) == 6
        assert [step for step, _ in one.curve.validation] == [0, 2, 3, 5, 6]
        assert one.curve.validation[-1][1] < one.curve.validation[0][1]
        assert one.before is not None
        assert one.after is not None
        assert one.after.by_distance.input.shape == (21,)
        assert one.after.memory.gradient_norms.shape == (17,)
        assert (one.after.c is None) == (cell == "rnn")
        assert one.sample is not None
        assert len(one.sample) == 40
        assert one.model.vocabulary.characters == "".join(sorted(set(TEXT)))


def test_same_seed_same_numbers(whole: Results) -> None:
    again = run(TEXT, SETTINGS)
    other = run(TEXT, replace(SETTINGS, seed=4))
    for cell, one in whole.models.items():
        assert again.models[cell].curve.bits == one.curve.bits
        assert again.models[cell].sample == one.sample
        assert other.models[cell].curve.bits != one.curve.bits
    assert to_json(again, []).partition(b'"models"')[2] != b""


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_gradient_at_a_distance_is_that_of_the_loss(cell: str, rng: np.random.Generator) -> None:
    settings = replace(SETTINGS, distance=5, warm_up=3, sequences=2)
    model = CharModel("".join(sorted(set(TEXT))), cell, 9, 5, dtype=np.float64, rng=rng)
    held_out = split(model.vocabulary.encode(TEXT))[1]
    got = measure(model, held_out, settings).by_distance.input

    want = np.zeros(5)
    for start in (0, len(held_out) - 9):
        codes = held_out[start : start + 9, None]
        _, state = model(codes[:3])
        vectors = model.embedding(codes[3:8])

        def loss(x: Any, state: Any = state, target: Any = codes[8]) -> float:
            output, _ = model.rnn(x, state)
            return float(cross_entropy(model.decoder(output[-1]), target)[0])

        gradient = np.zeros_like(vectors)
        for at in np.ndindex(vectors.shape):
            step = np.zeros_like(vectors)
            step[at] = 1e-5
            gradient[at] = (loss(vectors + step) - loss(vectors - step)) / 2e-5
        want += np.linalg.norm(gradient[::-1, 0], axis=1) / 2
    assert got == pytest.approx(want, rel=1e-5)


def test_stop_before_training_measures_nothing_more() -> None:
    results = run(TEXT, SETTINGS, **stop_at(lambda p: p.doing == "measure untrained"))
    assert results.stopped == "interrupted"
    assert results.models["rnn"].before is not None
    assert results.models["lstm"].before is None
    assert results.steps_done == 0


def test_stop_in_training_measures_what_was_reached() -> None:
    results = run(TEXT, SETTINGS, **stop_at(lambda p: p.step == 4 and p.cell == "lstm"))
    assert results.stopped == "interrupted"
    assert results.steps_done == len(results.models["rnn"].curve.bits) == len(results.models["lstm"].curve.bits)
    assert 4 <= results.steps_done <= 5
    assert results.models["lstm"].after is not None
    assert results.models["lstm"].sample is not None


def test_a_second_wish_skips_measuring() -> None:
    wishes = stop_at(lambda p: p.step >= 4 or p.doing == "measure trained", times=2)
    results = run(TEXT, SETTINGS, **wishes)
    assert results.stopped == "interrupted"
    assert results.models["rnn"].after is None or results.models["lstm"].after is None


def test_divergence_ends_training_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = CharModel.forward
    calls = 0

    def fail_late(self: CharModel, *args: Any) -> Any:
        nonlocal calls
        trace = forward(self, *args)
        calls += trace.logits.shape[0] == SETTINGS.window
        if calls == 7 and trace.logits.shape[0] == SETTINGS.window:  # the RNN's fourth window
            trace.logits[...] = np.nan
        return trace

    monkeypatch.setattr(CharModel, "forward", fail_late)
    results = run(TEXT, SETTINGS)
    assert results.stopped == "the loss of rnn became nan at step 4"
    assert results.steps_done == 3
    assert results.models["rnn"].after is not None
    assert b"the loss of rnn became nan at step 4" in render(results)["report.html"]


# --- settings


def test_settings_are_checked() -> None:
    assert Settings.quick(seed=5).seed == 5
    assert Settings.quick().steps < Settings().steps
    for changes, message in (
        ({"steps": 0}, "steps: expected an integer of at least 1; got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0; got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0"),
        ({"backend": "abacus"}, "backend: unknown name 'abacus'"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [SETTINGS, Settings(), Settings.quick()])
def test_shortest_text(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"^text: expected at least [0-9,]+ characters .*; got 50$") as raised:
        settings.check_text(TEXT[:50])
    found = re.search(r"least ([0-9,]+)", str(raised.value))
    assert found
    least = int(found[1].replace(",", ""))
    text = (TEXT * 2)[:least]
    with pytest.raises(ValueError, match="expected at least"):
        run(text[:-1], settings)
    if settings is SETTINGS:
        assert run(text, replace(settings, steps=1)).steps_done == 1


# --- what is written


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
    assert "<script" not in text
    assert page.counts["figure"] == 6
    assert page.counts["svg"] == 12
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
    names = {"loss", "gradients", "memory", "saturation", "gates", "states"}
    assert {f"figures/{n}.{kind}" for n in names for kind in ("svg", "png")} == files.keys() - {"report.html"}
    for name in names:
        assert files[f"figures/{name}.svg"].rstrip().endswith(b"</svg>")
        png = files[f"figures/{name}.png"]
        width, height = struct.unpack(">II", png[16:24])
        assert png[:4] == b"\x89PNG"
        assert min(width, height) > 500


@pytest.mark.parametrize(
    ("match", "figures"),
    [(lambda p: p.cell == "rnn", 0), (lambda p: p.doing == "train" and p.step == 0, 5), (lambda p: p.step == 2, 6)],
)
def test_report_of_what_was_reached(match: Callable[[Progress], bool], figures: int) -> None:
    results = run(TEXT, SETTINGS, **stop_at(match))
    files = render(results)
    page = read(files["report.html"])
    assert page.counts.get("figure", 0) == figures
    assert b"This study did not run to its end: interrupted." in files["report.html"]
    record = json.loads(to_json(results, files))
    assert record["stopped"] == "interrupted"
    assert record["steps_done"] == results.steps_done


def test_json_holds_every_number(whole: Results) -> None:
    record = json.loads(to_json(whole, ["results.json", "a"]))
    assert (record["format"], record["version"], record["stopped"]) == (FORMAT, 1, None)
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
        assert np.shape(entry["after"]["states"]["h"]) == one.after.h.shape
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

    def with_losses(first: float, second: float) -> str:
        curves = [replace(m.curve, validation=[(0, 6.5), (6, v)]) for m, v in ((rnn, first), (lstm, second))]
        models = {"rnn": replace(rnn, curve=curves[0]), "lstm": replace(lstm, curve=curves[1])}
        return findings.learning(replace(whole, models=models, unigram_bits=4.0))

    assert "the LSTM needs 2.00 bits" in with_losses(2.5, 2.0)
    assert "ahead by 0.50 bits, 20%" in with_losses(2.5, 2.0)
    assert "the RNN needs 1.00 bits" in with_losses(1.0, 2.0)
    assert "no real difference" in with_losses(2.0, 2.01)
    assert "learned less than that" in with_losses(5.0, 5.5)

    def with_decay(**changes: Any) -> str:
        after = replace(rnn.after, decay=replace(rnn.after.decay, **changes))  # type: ignore[type-var]
        return findings.gradients(replace(whole, models={"rnn": replace(rnn, after=after), "lstm": lstm}))

    assert "for 13 characters in the trained RNN" in with_decay(horizon=13, censored=False, exploding=False)
    assert "grows on its way back" in with_decay(exploding=True)
    assert "still above 1% at 20 characters" in with_decay(horizon=20, censored=True, exploding=False)


# --- the folder


@pytest.fixture
def study_files(whole: Results) -> dict[str, bytes]:
    files = {"report.html": b"new", "figures/loss.svg": b"<svg/>"}
    return files | {"results.json": to_json(whole, [*files, "results.json"])}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_new_folder(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    out = tmp_path / "a" / "b"
    check_folder(out)
    assert list(tmp_path.iterdir()) == []
    write_folder(out, study_files)
    assert everything(out) == study_files
    assert [p.name for p in out.parent.iterdir()] == ["b"]
    assert is_study(out)
    check_folder(out)


def test_a_study_is_replaced_and_other_files_stay(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    write_folder(tmp_path / "s", study_files)
    (tmp_path / "s" / "notes.txt").write_text("mine")
    (tmp_path / "s" / "figures" / "mine.svg").write_text("mine")
    files = study_files | {"report.html": b"newer"}
    del files["figures/loss.svg"]
    write_folder(tmp_path / "s", files)
    assert everything(tmp_path / "s") == files | {"notes.txt": b"mine", "figures/mine.svg": b"mine"}


def test_foreign_folder_is_refused_unless_forced(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files that are not of a study; choose another --out"):
        check_folder(tmp_path)
    (tmp_path / "results.json").write_text('{"format": "other"}')
    with pytest.raises(FileExistsError, match="holds files"):
        check_folder(tmp_path)
    check_folder(tmp_path, force=True)
    write_folder(tmp_path, study_files)
    assert everything(tmp_path) == study_files | {"thesis.tex": b"mine"}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for path in (tmp_path / "f", tmp_path / "f" / "inside"):
        with pytest.raises(OSError, match="f"):
            check_folder(path, force=True)


def test_failure_while_writing_leaves_the_old_study(
    tmp_path: Path, study_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "s", study_files)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for name in ("s", "new"):
        with pytest.raises(OSError, match="No space left"):
            write_folder(tmp_path / name, study_files | {"report.html": b"newer"})
    assert everything(tmp_path) == {f"s/{name}": data for name, data in study_files.items()}


def test_weights_can_be_loaded(whole: Results, tmp_path: Path) -> None:
    for name, data in weights(whole).items():
        (tmp_path / name).write_bytes(data)
        loaded = CharModel.load(tmp_path / name)
        want = whole.models[name.removesuffix(".safetensors")].model
        assert all(np.array_equal(loaded.parameters[n], a) for n, a in want.parameters.items())
