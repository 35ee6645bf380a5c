"""What a Trainer shows, writes and refuses."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scratchrnn.optim import Adam
from scratchrnn.train.log import Log
from tests.points import Points, lines, trainer

# --- log, bar, callbacks


def test_log_lines(tmp_path: Path) -> None:
    objective = Points()
    objective.nats = True  # type: ignore[attr-defined]
    steps = list(trainer(objective, folder=tmp_path, evaluate_every=6))
    written = lines(tmp_path)
    assert [(line["kind"], line["step"]) for line in written[5:8]] == [("update", 6), ("evaluation", 6), ("update", 7)]
    line = written[0]
    assert list(line) == [
        "kind", "step", "loss", "bits", "perplexity", "penalty", "gradient_norm", "clipped", "lr", "items", "seconds",
        "items_per_second",
    ]  # fmt: skip
    assert line["loss"] == steps[0].loss
    assert line["bits"] == pytest.approx(steps[0].loss / math.log(2))
    assert line["perplexity"] == pytest.approx(math.exp(steps[0].loss))
    assert line["gradient_norm"] == steps[0].gradient_norm
    assert line["items_per_second"] == steps[0].items / steps[0].seconds


def test_each_line_is_there_when_the_step_is(tmp_path: Path) -> None:
    for step in trainer(folder=tmp_path):
        assert lines(tmp_path)[-1]["step"] == step.number


def test_infinite_figures_are_null(tmp_path: Path) -> None:
    objective = Points()
    objective.nats = True  # type: ignore[attr-defined]
    objective.bad[2] = 1e4
    trainer(objective, folder=tmp_path).run()
    assert lines(tmp_path)[1]["perplexity"] is None
    assert lines(tmp_path)[1]["loss"] == 1e4


def test_no_log_where_none_is_wanted(tmp_path: Path) -> None:
    trainer(folder=tmp_path, log=False).run()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]
    assert trainer().run().steps == 12


def test_nothing_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(progress=None).run()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_without_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert trainer(progress=None).run().steps == 12


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    objective = Points()
    objective.held_out = [0.125, 0.25]
    trainer(objective, progress=None, evaluate_every=6).run()
    shown = terminal.getvalue()
    assert "12/12" in shown
    assert "held out 0.25" in shown
    assert "/s" in shown


WITHOUT_A_BAR = """
import sys
import numpy as np
from scratchrnn import data, models, optim, train
model = models.CharModel("ab", "rnn", 3, 2, backend="numpy", rng=np.random.default_rng(0))
rows = data.ContiguousRows(np.arange(40) % 2, batch=3)
train.Trainer(train.LanguageModel(model, rows, k1=5), optim.SGD(model.parameters, lr=0.1), steps=3).run()
print("rich" in sys.modules)
"""


def test_rich_is_not_loaded_without_a_bar() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", WITHOUT_A_BAR], cwd=root, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_callbacks_see_trainer_and_step_in_order() -> None:
    seen: list[Any] = []
    run = trainer(
        steps=2, callbacks=[lambda run, step: seen.append(("a", run, step.number)), lambda run, step: seen.append("b")]
    )
    run.run()
    assert seen == [("a", run, 1), "b", ("a", run, 2), "b"]


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected an integer of at least 1; got 0"),
        ({"max_norm": 0.0}, "max_norm: expected a finite number above 0; got 0.0"),
        ({"max_norm": -math.inf}, "max_norm: expected a finite number above 0; got -inf"),
        ({"accumulate": 0}, "accumulate: expected an integer of at least 1; got 0"),
        ({"evaluate_every": 0}, "evaluate_every: expected an integer of at least 1; got 0"),
        ({"patience": 2}, "patience: expected evaluate_every with it"),
        ({"resume": True}, "folder: expected a path for checkpoints to be written to or resumed from; got None"),
        ({"checkpoint_every": 3}, "folder: expected a path"),
        ({"folder": "f", "keep": 0}, "keep: expected an integer of at least 1; got 0"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        trainer(**arguments)


def test_refuses_other_types() -> None:
    with pytest.raises(TypeError, match=r"^schedule: expected a function of the update's number; got float 0.5"):
        trainer(schedule=0.5)
    with pytest.raises(TypeError, match=r"^log: expected True or False; got int 1"):
        trainer(log=1)
    with pytest.raises(TypeError, match=r"^optimizer: expected one of scratchrnn.optim; got float 0.1"):
        trainer(optimizer=0.1)
    with pytest.raises(TypeError, match=r"^steps: expected an integer of at least 1; got float"):
        trainer(steps=1.5)


def test_the_optimizer_must_be_over_the_objectives_own_arrays() -> None:
    objective = Points()
    with pytest.raises(ValueError, match=r"^optimizer: expected the objective's own array w; got another"):
        trainer(objective, optimizer=Adam({name: a.copy() for name, a in objective.parameters.items()}))
    with pytest.raises(ValueError, match=r"^optimizer: expected one over w, scale; got one over w$"):
        trainer(objective, optimizer=Adam({"w": objective.parameters["w"]}))


def test_a_folder_that_holds_a_run_is_not_trained_over(tmp_path: Path) -> None:
    trainer(folder=tmp_path / "r", steps=3).run()
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    with pytest.raises(
        FileExistsError, match=r"r: holds a run \(checkpoints/step-00000003\.safetensors\); resume=True"
    ):
        trainer(folder=tmp_path / "r")
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before
    (tmp_path / "f").write_text("mine")
    with pytest.raises(FileExistsError, match="f: expected a folder; got a file"):
        trainer(folder=tmp_path / "f")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert trainer(folder=tmp_path / "other").run().steps == 12


def test_a_log_of_something_else_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(FileExistsError, match=r"log\.jsonl: expected the log of a run; this is another file"):
        trainer(folder=tmp_path, resume=True)
    assert (tmp_path / "log.jsonl").read_text() == '{"mine": 1}\n'


@pytest.mark.skipif(os.name != "posix", reason="file locks")
def test_where_files_cannot_be_locked_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    with pytest.warns(RuntimeWarning, match=r"log\.jsonl: cannot be locked \(No locks available\): see to it"):
        assert trainer(folder=tmp_path).run().steps == 12


def test_a_run_that_came_between_is_not_trained_over(tmp_path: Path) -> None:
    for resume in (False, True):
        late = trainer(folder=tmp_path, resume=resume, steps=20)
        trainer(folder=tmp_path, resume=resume, steps=6 + 6 * resume).run()
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(FileExistsError, match="another run has written here since this one looked"):
            late.run()
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full")
def test_a_log_on_a_full_disk_is_named(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.close()
    with (
        Path("/dev/full").open("ab", buffering=0) as log._file,
        pytest.raises(OSError, match="No space left") as caught,
    ):
        log.write({"kind": "update"})
    assert caught.value.filename == str(tmp_path / "log.jsonl")


def test_making_a_trainer_writes_nothing(tmp_path: Path) -> None:
    trainer(folder=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file locks")
def test_two_runs_in_one_folder_at_a_time_are_refused(tmp_path: Path) -> None:
    first = iter(trainer(folder=tmp_path))
    next(first)
    with pytest.raises(BlockingIOError, match=r"log\.jsonl: another process is training in this folder"):
        next(iter(trainer(folder=tmp_path, resume=True)))
    first.close()  # type: ignore[attr-defined]
    assert trainer(folder=tmp_path, resume=True).run().steps == 12
