"""A sweep that is interrupted, diverges, cannot write or meets what is there: its page, its folders, its exit code."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn import report
from scratchrnn.cli import main
from scratchrnn.cli.progress import Display
from scratchrnn.report import comparison
from scratchrnn.report.drawing import Drawing
from scratchrnn.study import Progress, Settings, folder
from scratchrnn.train import language
from tests.test_study import TEXT

Match = Callable[[Progress, Settings], bool]
ARGUMENTS = ("study", "--quick", "--steps", "3", "--text", "t.txt", "--cell", "rnn", "--out", "out")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in an empty folder, and reports that take no time to draw."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text(TEXT)
    monkeypatch.setattr(report, "render", lambda results: {"report.html": b"a study"})
    monkeypatch.setattr(comparison, "draw", lambda name, figure: Drawing("<svg></svg>", "<svg></svg>", b"", b""))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def sweep(capsys: pytest.CaptureFixture[str], values: str, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([*ARGUMENTS, "--sweep", values, *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(done.value.code or 0), out, err


def told(path: str = "out") -> Any:
    return json.loads(Path(path, "results.json").read_bytes())


def page() -> str:
    return Path("out", "report.html").read_text(encoding="utf-8")


def press(monkeypatch: pytest.MonkeyPatch, match: Match, number: int = signal.SIGINT) -> None:
    """Send one signal when a study says something."""
    tell, sent = Display.tell, []

    def telling(self: Display, progress: Progress) -> None:
        tell(self, progress)
        if not sent and match(progress, self.settings):
            sent.append(progress)
            signal.raise_signal(number)

    monkeypatch.setattr(Display, "tell", telling)


def press_while_writing(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """Send one signal while the report of the study of that number is drawn."""
    drawn: list[Any] = []

    def render(results: Any) -> dict[str, bytes]:
        drawn.append(results)
        if len(drawn) == which:
            signal.raise_signal(signal.SIGINT)
        return {"report.html": b"a study"}

    monkeypatch.setattr(report, "render", render)


# --- interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_the_second_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    press(monkeypatch, lambda p, s: p.step == 1 and s.hidden_size == 6, number)
    found = sweep(capsys, "hidden=5,6,7", "--json")
    assert found[0] == code
    assert "stopping and measuring what was reached" not in found[1]
    assert json.loads(found[1])["stopped"] == "interrupted"
    assert list(json.loads(found[1])["studies"]) == ["5", "6"]
    assert (told()["stopped"], told()["values"]) == ("interrupted", [5, 6, 7])
    assert [(study["value"], study["stopped"]) for study in told()["studies"]] == [(5, None), (6, "interrupted")]
    assert (told("out/hidden-6")["stopped"], told("out/hidden-6")["steps_done"]) == ("interrupted", 2)
    assert not Path("out", "hidden-7").exists()
    assert "This sweep did not run to its end: interrupted." in page()
    assert "2 of 3 studies" in page()


def test_a_wish_while_a_report_is_written_ends_the_sweep_after_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    press_while_writing(monkeypatch, 1)
    assert sweep(capsys, "hidden=5,6")[0] == 130
    assert told("out/hidden-5")["stopped"] is None
    assert told()["stopped"] == "interrupted"
    assert [study["value"] for study in told()["studies"]] == [5]
    assert not Path("out", "hidden-6").exists()


def test_a_wish_while_the_last_report_is_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    press_while_writing(monkeypatch, 2)
    assert sweep(capsys, "hidden=5,6")[0] == 0
    assert told()["stopped"] is None
    assert "did not run" not in page()


def test_interrupted_before_the_first_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a study to keep, what little there is is written, and the page has no numbers to draw."""
    press(monkeypatch, lambda p, s: p.doing == "measure untrained")
    assert sweep(capsys, "hidden=5,6")[0] == 130
    assert (told()["stopped"], told("out/hidden-5")["steps_done"]) == ("interrupted", 0)
    assert told()["studies"][0]["models"]["rnn"]["bits"] is None
    assert page().count("<figure") == 1  # where the gradient reaches before any training
    assert "There are not two studies to compare yet." in page()


def test_interrupted_before_the_first_step_over_a_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(capsys, "hidden=5,6")[0] == 0
    before, old_page = Path("out/hidden-6/results.json").read_bytes(), page()
    with monkeypatch.context() as patch:
        press(patch, lambda p, s: p.doing == "measure untrained" and s.hidden_size == 6)
        code, _, err = sweep(capsys, "hidden=5,6")
    assert (code, err.splitlines()[-1]) == (
        130, "error: interrupted before the first step; out/hidden-6 is as it was"
    )  # fmt: skip
    assert Path("out/hidden-6/results.json").read_bytes() == before
    assert told()["stopped"] == "interrupted"
    assert [study["value"] for study in told()["studies"]] == [5]
    assert "did not run to its end: interrupted." in page()

    # in the very first study nothing of the sweep was reached: what was there stays
    assert sweep(capsys, "hidden=5,6")[0] == 0
    assert "did not run" not in page()
    press(monkeypatch, lambda p, s: p.doing == "measure untrained")
    assert sweep(capsys, "hidden=5,6")[0] == 130
    assert told()["stopped"] is None
    assert len(page()) == len(old_page)


def test_a_stopped_study_beside_a_complete_one_is_the_one_that_the_page_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(capsys, "hidden=5,6")[0] == 0
    press(monkeypatch, lambda p, s: p.step == 1)
    code, _, err = sweep(capsys, "hidden=5,6")
    assert code == 130
    assert "out/hidden-5 holds a complete study of 3 steps and stays as it is; writing to out/hidden-5-stopped" in err
    assert told("out/hidden-5")["stopped"] is None
    assert told("out/hidden-5-stopped")["stopped"] == "interrupted"
    assert [study["folder"] for study in told()["studies"]] == ["hidden-5-stopped"]
    assert 'href="hidden-5-stopped/report.html"' in page()
    assert 'href="hidden-5/report.html"' not in page()


# --- diverged


def test_a_study_that_diverges_ends_the_sweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss_of, calls = language.cross_entropy, []

    def cross_entropy(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        loss, d_logits = loss_of(*args, **kwargs)
        return (np.nan if len(calls) == 5 else loss), d_logits  # the second window of the second study

    monkeypatch.setattr(language, "cross_entropy", cross_entropy)
    code, _, err = sweep(capsys, "hidden=5,6,7")
    why = "rnn: the loss became nan at step 2"
    assert (code, err.splitlines()[-1]) == (1, f"error: {why}")
    assert told()["stopped"] == why
    assert f"This sweep did not run to its end: {why}." in page()
    assert [study["value"] for study in told()["studies"]] == [5, 6]


# --- folders


@pytest.mark.parametrize(("lost", "kept"), [("out/hidden-6", [5]), ("out", None)])
def test_a_folder_that_is_lost_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lost: str, kept: list[int] | None
) -> None:
    write = folder.write_folder

    def full(out: Path, files: Any) -> None:
        if out == Path(lost):
            raise OSError(28, "No space left on device", str(out))
        write(out, files)

    monkeypatch.setattr(folder, "write_folder", full)
    code, out, err = sweep(capsys, "hidden=5,6")
    assert (code, out) == (2, "")
    (rescue,) = Path().resolve().glob("scratchrnn-study-*")
    last = err.splitlines()[-1]
    assert last == f"error: {lost}: cannot be written: No space left on device; the study is in {rescue}"
    assert (rescue / "results.json").exists()
    assert told("out/hidden-5")["stopped"] is None
    if kept is None:
        assert not Path("out", "results.json").exists()
    else:  # as a killed process would leave it
        assert told()["stopped"] == "not all studies are made yet"
        assert [study["value"] for study in told()["studies"]] == kept


def test_what_cannot_be_written_is_refused_before_the_first_study(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out", "thesis.tex").write_text("mine")
    for prepare, message in (
        (lambda: None, "out: holds files that are not of a sweep; choose another --out, or give --force"),
        (lambda: Path("out", "thesis.tex").rename("out/hidden-6"), "out: holds files that are not of a sweep"),
    ):
        prepare()
        code, out, err = sweep(capsys, "hidden=5,6")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {message}")
    code, _, err = sweep(capsys, "hidden=5,6", "--force")
    assert (code, err) == (2, "error: out/hidden-6: expected a folder to write to; got a file\n")
    assert [path.name for path in Path("out").iterdir()] == ["hidden-6"]


def test_another_sweep_of_fewer_studies_in_the_same_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(capsys, "hidden=5,6,7")[0] == 0
    assert sweep(capsys, "hidden=4,6")[0] == 0
    assert (told()["values"], [study["folder"] for study in told()["studies"]]) == ([4, 6], ["hidden-4", "hidden-6"])
    assert "hidden-5" not in page()
    assert told("out/hidden-5")["stopped"] is None  # left alone
    assert sweep(capsys, "seed=1,2")[0] == 0
    assert [study["folder"] for study in told()["studies"]] == ["seed-1", "seed-2"]
    # fewer steps would replace what took longer
    code, _, err = sweep(capsys, "hidden=6,8", "--steps", "2")
    assert code == 2
    assert "out/hidden-6: holds a complete study of 3 steps, and this one has 2" in err
    assert not Path("out", "hidden-8").exists()


# --- numbers as they were given


def test_values_keep_their_digits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = sweep(capsys, "seed=12345678,12345679")
    assert code == 0
    for seed in ("12345678", "12345679"):
        assert Path("out", f"seed-{seed}").is_dir()
        assert f"<td>{seed}</td>" in page()
        assert f"seed {seed}\n" in err
        assert seed in out
    assert sweep(capsys, "learning-rate=0.01000000001,0.01000000002", "--steps", "1", "--force")[0] == 0
    assert [study["folder"] for study in told()["studies"]] == [
        "learning-rate-0.01000000001", "learning-rate-0.01000000002",
    ]  # fmt: skip
