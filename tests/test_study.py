"""Running a study, stopping it, and its folder."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from scratchrnn.data import split, unigram_entropy
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.report import render
from scratchrnn.study import Progress, Results, Settings, run
from scratchrnn.study.folder import check_folder, complete_steps, is_study, sibling, weights, write_folder
from scratchrnn.study.measure import measure
from scratchrnn.study.record import to_json
from scratchrnn.study.run import _known_words
from scratchrnn.train import evaluate, language

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


def test_known_words_are_those_that_the_model_wrote_whole() -> None:
    text = "the quick brown fox"
    assert _known_words("the qu", "ick brown cat the", text) == 0.5  # brown, cat: "quick" is half the prompt's
    assert _known_words("the ", "quick fox.", text) == 1.0  # nothing is cut off
    assert _known_words("the ", "quick", text) is None  # of quicksand, for all one knows
    assert _known_words("", "12 a", text) is None


def test_both_models_are_trained_and_measured(whole: Results) -> None:
    assert whole.stopped is None
    assert whole.steps_done == SETTINGS.steps
    assert whole.unigram_bits == pytest.approx(
        unigram_entropy(np.unique([*TEXT], return_inverse=True)[1]) / math.log(2)
    )
    for cell, one in whole.models.items():
        assert len(one.curve.bits) == len(one.curve.gradient_norm) == len(one.curve.seconds) == 6
        assert [step for step, _ in one.curve.validation] == [0, 2, 3, 5, 6]
        assert one.curve.validation[-1][1] < one.curve.validation[0][1]
        assert one.before is not None
        assert one.after is not None
        assert one.after.by_distance.input.shape == (21,)
        assert one.after.memory.gradient_norms.shape == (17,)
        assert ("c" in one.after.stretch.layers[0]) == (cell == "lstm")
        assert one.sample is not None
        assert len(one.sample) == 40
        assert one.model.vocabulary.characters == "".join(sorted(set(TEXT)))


@pytest.mark.skipif(sys.platform == "darwin", reason="Apple's BLAS cannot be limited")
def test_blas_has_one_thread_meanwhile_and_as_many_as_before_afterwards() -> None:
    def threads() -> set[int]:
        return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}

    seen: set[int] = set()
    with threadpool_limits(limits=2, user_api="blas"):
        assert threads() == {2}  # of NumPy's BLAS, and SciPy's: otherwise nothing is limited
        run(TEXT, replace(SETTINGS, steps=1, cells=("rnn",)), tell=lambda progress: seen.update(threads()))
        assert threads() == {2}
    assert seen == {1}


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
    results = run(TEXT, SETTINGS, **stop_at(lambda p: p.step == 4 and p.cell == "rnn"))
    assert results.stopped == "interrupted"
    assert results.steps_done == len(results.models["rnn"].curve.bits) == len(results.models["lstm"].curve.bits)
    assert results.steps_done == 4  # not one of those after which the loss is looked at anyway
    assert results.models["lstm"].after is not None
    assert results.models["lstm"].sample is not None
    held_out = split(results.models["lstm"].model.vocabulary.encode(TEXT))[1]
    for one in results.models.values():
        step, bits = one.curve.validation[-1]
        assert step == results.steps_done
        assert bits == evaluate(one.model, held_out) / math.log(2)
        assert len({step for step, _ in one.curve.validation}) == len(one.curve.validation)


def test_a_wish_when_all_is_done_changes_nothing() -> None:
    for match in (lambda p: p.step == 6 and p.cell == "rnn", lambda p: p.doing == "write samples" and p.cell == "lstm"):
        results = run(TEXT, SETTINGS, **stop_at(match))
        assert results.stopped is None
        assert results.models["lstm"].sample is not None
    results = run(TEXT, SETTINGS, **stop_at(lambda p: p.doing == "measure trained" and p.cell == "lstm"))
    assert (results.stopped, results.steps_done) == ("interrupted", 6)


def test_a_second_wish_skips_measuring() -> None:
    wishes = stop_at(lambda p: p.step >= 4 or p.doing == "measure trained", times=2)
    results = run(TEXT, SETTINGS, **wishes)
    assert results.stopped == "interrupted"
    assert results.models["rnn"].after is None or results.models["lstm"].after is None


def test_a_wish_during_the_last_measurement_before_training_is_heard() -> None:
    results = run(TEXT, SETTINGS, **stop_at(lambda p: p.doing == "measure untrained" and p.cell == "lstm"))
    assert results.models["lstm"].before is not None
    assert (results.stopped, results.steps_done) == ("interrupted", 0)


def test_divergence_ends_training_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    loss_of = language.cross_entropy
    calls = 0

    def fail_late(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        loss, d_logits = loss_of(*args, **kwargs)
        return (np.nan if calls == 7 else loss), d_logits  # the RNN's fourth window

    monkeypatch.setattr(language, "cross_entropy", fail_late)
    results = run(TEXT, SETTINGS)
    assert results.stopped == "rnn: the loss became nan at step 4"
    assert results.steps_done == 3
    assert results.models["rnn"].after is not None
    assert b"rnn: the loss became nan at step 4" in render(results)["report.html"]


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


def test_only_figures_of_the_old_study_are_removed(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    out = tmp_path / "s"
    for listed in (
        ["notes.txt", "../outside.txt", "figures/../../outside.txt", 7, "figures/old.svg"],
        None,
        "notes.txt",
    ):
        record = json.loads(study_files["results.json"]) | {"files": listed}
        write_folder(out, study_files | {"results.json": json.dumps(record).encode(), "figures/old.svg": b"old"})
        (out / "notes.txt").write_text("mine")
        (tmp_path / "outside.txt").write_text("mine")
        write_folder(out, study_files)
        assert (out / "notes.txt").exists()
        assert (tmp_path / "outside.txt").exists()
        assert (out / "figures" / "old.svg").exists() == (not isinstance(listed, list))


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


def test_a_larger_complete_study_is_kept(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    out = tmp_path / "s"
    assert complete_steps(out) == 0
    write_folder(out, study_files)
    assert complete_steps(out) == 6
    check_folder(out, steps=6)
    with pytest.raises(FileExistsError, match=r"s: holds a complete study of 6 steps, and this one has 5; .*--force"):
        check_folder(out, steps=5)
    check_folder(out, steps=5, force=True)
    for name in ("s-stopped", "s-stopped-2"):
        assert sibling(out) == tmp_path / name
        (tmp_path / name).mkdir()
    record = json.loads(study_files["results.json"]) | {"stopped": "interrupted"}
    write_folder(out, study_files | {"results.json": json.dumps(record).encode()})
    assert complete_steps(out) == 0
    check_folder(out, steps=5)


def test_what_a_killed_process_left_is_removed(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    out = tmp_path / "s"
    write_folder(out, study_files)
    node = platform.node()
    stale = [f".scratchrnn-{pid}@{node}" for pid in (dead.pid, os.getpid())]
    kept = [f".scratchrnn-{os.getppid()}@{node}", f".scratchrnn-{dead.pid}@{node}x", ".scratchrnn-mine"]
    for name in [*stale, *kept]:
        for there in (tmp_path, out):
            (there / name / "figures").mkdir(parents=True)
    check_folder(out)
    for there in (tmp_path, out):
        assert {p.name for p in there.iterdir() if p.name.startswith(".")} == set(kept)


def test_a_folder_of_figures_that_cannot_be_written(tmp_path: Path, study_files: dict[str, bytes]) -> None:
    del study_files["figures/loss.svg"]
    write_folder(tmp_path / "s", study_files)
    (tmp_path / "s" / "figures").write_text("in the way")
    with pytest.raises(OSError, match=r"s: cannot be written: Not a directory$"):
        check_folder(tmp_path / "s")


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
