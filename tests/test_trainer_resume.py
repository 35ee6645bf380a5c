"""A run that was stopped and resumed makes the numbers of one that was not, bit for bit, wherever it was stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends, checkpoint
from scratchrnn.data import ContiguousRows, adding_problem
from scratchrnn.losses import mse_loss
from scratchrnn.models import CharModel, LastStep
from scratchrnn.optim import SGD, Adagrad, Adam, RMSprop
from scratchrnn.train import LanguageModel, Sampled, Trainer, schedules
from tests.points import Points, lines

CHARACTERS = "abcdef"
STEPS = 23


def penalty(output: np.ndarray, reset: np.ndarray) -> tuple[float, np.ndarray]:
    return 0.01 * float((output**2).sum()), 0.02 * output


def language(cell: str, k1: int, k2: int, **arguments: Any) -> LanguageModel:
    """11 steps in 2 rows, so that an epoch ends within the run at several places in a window; documents on top."""
    draws = np.random.default_rng(5)
    model = CharModel(
        CHARACTERS, cell, 5, 3, 2, learned_state=arguments.pop("learned", False), dtype=np.float64,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    model.rnn.dropout = 0.3  # between its layers, from the model's own generator
    rows = ContiguousRows(draws.integers(0, 6, 2 * 17 + 1), batch=2, documents=[0, 6, 9, 25])
    held_out = draws.integers(0, 6, 40)
    if arguments.pop("wrapped", False):
        model.rnn = srnn.Zoneout(model.rnn, 0.2, 0.1, rng=np.random.default_rng(8))
    return LanguageModel(model, rows, k1=k1, k2=k2, held_out=held_out, rng=np.random.default_rng(1), **arguments)


def new(kind: str) -> tuple[Any, Any, dict[str, Any]]:
    """A fresh objective and optimizer, as a new process would make them."""
    if kind == "points":
        points = Points()
        points.held_out = [3.0, 2.0, 2.5, 2.6, 1.0, 1.5, 1.2, 1.1]  # gains at the first, second and fifth look
        return points, Adam(points.parameters, lr=0.05), {"patience": 3, "evaluate_every": 2}
    if kind == "adding":
        rng = np.random.default_rng(2)
        model = LastStep(srnn.LSTM(2, 4, dtype=np.float64, rng=rng), 1, rng=rng)
        held_out = adding_problem(6, 5, np.random.default_rng(3), dtype=np.float64)
        task = Sampled(
            model, lambda rng: adding_problem(6, 3, rng, dtype=np.float64), mse_loss, rng=rng, held_out=held_out
        )
        return task, RMSprop(model.parameters, lr=0.01, momentum=0.5), {"evaluate_every": 5}
    if kind == "overlapping":
        task = language("lstm", 4, 9, dropout=0.2, h_detach=0.4, regularization=penalty)
        return task, Adam(task.parameters, lr=0.02, amsgrad=True), {"schedule": schedules.cosine(STEPS)}
    if kind == "learned":
        task = language("lstm", 5, 5, learned=True, wrapped=True)
        return task, Adagrad(task.parameters, lr=0.1), {"accumulate": 3, "evaluate_every": 4}
    task = language("rnn", 5, 3, clip=0.01)  # some steps are only read
    return task, SGD(task.parameters, lr=0.3, momentum=0.9), {"accumulate": 2, "schedule": schedules.linear(STEPS)}


KINDS = ["points", "adding", "overlapping", "learned", "short"]


def run(kind: str, folder: Path, **arguments: Any) -> Trainer:
    objective, optimizer, settings = new(kind)
    common = {"steps": STEPS, "checkpoint_every": 1, "keep": 100, "progress": False}
    made = Trainer(objective, optimizer, folder=folder, **(common | settings | arguments))
    made.run()
    return made


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "items_per_second")} for line in lines(folder)]


def outcome(run: Trainer) -> dict[str, Any]:
    """Everything that a run leaves in memory but for seconds."""
    return {
        "parameters": run.objective.parameters,
        "optimizer": run.optimizer.state_dict(),
        "objective": run.objective.state_dict(),
        "best": run.best,
        "result": [run.result.steps, run.result.stopped, run.result.best_step, run.result.best_loss],
    }


def assert_same(got: Any, want: Any, where: str = "") -> None:
    if isinstance(want, dict):
        assert list(got) == list(want), where
        for key in want:
            assert_same(got[key], want[key], f"{where}.{key}")
    elif isinstance(want, np.ndarray):
        assert (got.dtype, got.tobytes()) == (want.dtype, want.tobytes()), where
    else:
        assert got == want, where


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Trainer]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, run(request.param, folder)


def stop_at(whole: Path, step: int, folder: Path) -> None:
    """Make `folder` what `whole` was just after its checkpoint of that step, and a little work later."""
    shutil.copytree(whole, folder)
    for number, path in checkpoint.Checkpoints(folder / "checkpoints").paths().items():
        if number > step:
            path.unlink()


def test_resumed_at_every_checkpoint(undisturbed: tuple[str, Path, Trainer], tmp_path: Path) -> None:
    kind, whole, want = undisturbed
    numbers = list(checkpoint.Checkpoints(whole / "checkpoints").paths())
    assert numbers == list(range(1, want.done + 1))
    for step in numbers:
        folder = tmp_path / str(step)
        stop_at(whole, step, folder)
        # log and best weights are those of the end of the run, and the log's last line is torn
        (folder / "log.jsonl").write_bytes((whole / "log.jsonl").read_bytes() + b'{"kind": "upda')
        resumed = run(kind, folder, resume=True, checkpoint_every=1000)
        assert_same(outcome(resumed), outcome(want), f"{kind} at {step}")
        assert timeless(folder) == timeless(whole)
        assert (folder / "best.safetensors").exists() == (want.best is not None)
        if want.best is not None:
            assert_same(checkpoint.load(folder / "best.safetensors"), want.best)


def test_the_runs_go_through_what_they_should(undisturbed: tuple[str, Path, Trainer]) -> None:
    kind, whole, want = undisturbed
    records = timeless(whole)
    if kind == "points":
        assert want.result.stopped == "patience"
        gains = [r["step"] for r in records if r["kind"] == "evaluation" and r["best"]]
        assert gains == [2, 4, 10]
    elif kind != "adding":
        positions = [
            checkpoint.load(path)["objective"]["position"]
            for path in checkpoint.Checkpoints(whole / "checkpoints").paths().values()
        ]
        assert len(set(positions)) > 2
        assert max(r.get("epoch", 0) for r in records) > 3


def test_resumed_again_and_again(tmp_path: Path) -> None:
    want = run("overlapping", tmp_path / "whole")
    for step in range(1, STEPS + 1):
        got = run("overlapping", tmp_path / "parts", resume=True, callbacks=[lambda run, step: run.stop()])
        assert got.done == step
    assert_same(outcome(got) | {"result": None}, outcome(want) | {"result": None})
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_resume_before_the_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    want = run("points", tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "log.jsonl").write_bytes((tmp_path / "whole" / "log.jsonl").read_bytes()[:300])
    got = run("points", tmp_path / "parts", resume=True)
    assert_same(outcome(got), outcome(want))
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")
    assert run("points", tmp_path / "none yet", resume=True).result.steps == want.result.steps


def test_best_weights_of_a_later_step_do_not_outlive_a_resume(tmp_path: Path) -> None:
    for kind, step, best in (("points", 7, 4), ("adding", 3, None)):  # at the end it was step 10, and some step
        whole, parts = tmp_path / kind, tmp_path / f"{kind} {step}"
        run(kind, whole)
        stop_at(whole, step, parts)
        assert (parts / "best.safetensors").exists()
        run(kind, parts, resume=True, callbacks=[lambda run, step: run.stop()])
        path = parts / "best.safetensors"
        assert (checkpoint.load(path)["step"] if path.exists() else None) == best


def test_a_damaged_newest_checkpoint_costs_only_time(tmp_path: Path) -> None:
    want = run("points", tmp_path / "whole")
    stop_at(tmp_path / "whole", 9, tmp_path / "parts")
    newest = tmp_path / "parts" / "checkpoints" / "step-00000009.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=r"step-00000009\.safetensors: .*; going back to step 8"):
        got = run("points", tmp_path / "parts", resume=True)
    assert_same(outcome(got), outcome(want))
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_a_finished_run_resumed_does_nothing_more(tmp_path: Path) -> None:
    want = run("adding", tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    got = run("adding", tmp_path, resume=True)
    assert_same(outcome(got), outcome(want))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_more_steps_than_it_had(tmp_path: Path) -> None:
    want = run("short", tmp_path / "whole")
    for steps in (7, 15, STEPS):
        got = run("short", tmp_path / "parts", resume=True, steps=steps)
    assert_same(outcome(got), outcome(want))
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"^steps: expected at least the 23 that the run has made; got 22$"):
        run("short", tmp_path / "parts", resume=True, steps=22)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_norm": 0.5}, "max_norm=1.0; got max_norm=0.5"),
        ({"accumulate": 2}, "accumulate=1; got accumulate=2"),
        ({"patience": 4, "evaluate_every": 3}, "evaluate_every=2, patience=3; got evaluate_every=3, patience=4"),
        ({"schedule": schedules.linear(23)}, r"schedule='constant\(\)'; got schedule='linear\(23, to=0\.0\)'"),
    ],
)
def test_other_settings_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    run("points", tmp_path, steps=2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=f"^resume: the run was made with {message}$"):
        run("points", tmp_path, resume=True, **arguments)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_another_optimizer_or_problem_is_refused(tmp_path: Path) -> None:
    run("points", tmp_path / "p", steps=2)
    points = Points()
    for optimizer, message in (
        (SGD(points.parameters, lr=0.05), "optimizer='Adam', .*; got optimizer='SGD', "),
        (Adam(points.parameters, lr=0.1), r"optimizer\.lr=0\.05; got optimizer\.lr=0\.1$"),
        (Adam(points.parameters, lr=0.05, betas=(0.9, 0.99)), r"optimizer\.beta2=0\.999; got optimizer\.beta2=0\.99$"),
    ):
        with pytest.raises(ValueError, match=f"^resume: the run was made with {message}"):
            Trainer(points, optimizer, steps=9, folder=tmp_path / "p", resume=True, patience=3, evaluate_every=2)
    run("overlapping", tmp_path / "l", steps=2)
    for changes, message in (
        ({"k1": 5, "k2": 9}, "k1=4; got k1=5"),
        ({"k1": 4, "k2": 9, "dropout": 0.5}, r"dropout=0\.2; got dropout=0\.5"),
        ({"k1": 4, "k2": 9, "h_detach": 0.0}, r"h_detach=0\.4; got h_detach=None"),
        (
            {"k1": 4, "k2": 9, "dropout": 0.2, "regularization": None},
            "regularization='penalty'; got regularization=None",
        ),
    ):
        task = language("lstm", **({"dropout": 0.2, "h_detach": 0.4, "regularization": penalty} | changes))
        with pytest.raises(ValueError, match=f"^resume: the run was made with {message}$"):
            Trainer(
                task, Adam(task.parameters, lr=0.02, amsgrad=True), steps=9, folder=tmp_path / "l", resume=True,
                schedule=schedules.cosine(STEPS),
            )  # fmt: skip


def test_another_backend_or_held_out_text_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    def start(backend: str | None, held_out: np.ndarray | ContiguousRows, **arguments: Any) -> None:
        model = CharModel("ab", "rnn", 4, 3, backend=backend, rng=np.random.default_rng(0))
        task = LanguageModel(model, ContiguousRows(codes, batch=2), k1=5, held_out=held_out)
        Trainer(task, SGD(model.parameters, lr=0.1), folder=tmp_path, progress=False, **arguments).run()

    codes = rng.integers(0, 2, 41)
    start("numpy", codes[:20], steps=2)
    with backends.use_backend("numpy"):
        start(None, codes[:20], steps=3, resume=True)
    with pytest.raises(ValueError, match=r"^resume: the run was made with backend='numpy'; got backend='numba'$"):
        start("numba", codes[:20], steps=4, resume=True)
    for other in (codes[:21], ContiguousRows(codes[:20], batch=2)):
        with pytest.raises(ValueError, match=r"^resume: the run was made with held_out='[0-9a-f]{64}'; got held_out="):
            start("numpy", other, steps=4, resume=True)


def test_other_versions_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("points", tmp_path, steps=2)
    monkeypatch.setattr(np, "__version__", "9.9")
    with pytest.warns(RuntimeWarning, match=r"^resume: the run was made with numpy \d.*; this is numpy 9\.9, and the"):
        assert run("points", tmp_path, resume=True).done > 2


def test_another_text_or_model_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    def start(codes: np.ndarray, hidden: int, **arguments: Any) -> None:
        model = CharModel("ab", "rnn", hidden, 3, rng=np.random.default_rng(0))
        task = LanguageModel(model, ContiguousRows(codes, batch=2), k1=5)
        Trainer(task, SGD(model.parameters, lr=0.1), folder=tmp_path, progress=False, **arguments).run()

    codes = rng.integers(0, 2, 41)
    start(codes, 4, steps=2)
    start(codes.copy(), 4, steps=3, resume=True)
    codes[7] ^= 1
    with pytest.raises(
        ValueError, match=r"^resume: the run was made with rows='[0-9a-f]{64}'; got rows='[0-9a-f]{64}'$"
    ):
        start(codes, 4, steps=4, resume=True)
    codes[7] ^= 1
    with pytest.raises(
        ValueError,
        match=r"^resume: the run was made with layer=.RNN\(.*hidden_size=4, .*; got layer=.RNN\(.*hidden_size=5, ",
    ):
        start(codes, 5, steps=4, resume=True)


def test_a_log_that_was_shortened(tmp_path: Path) -> None:
    run("points", tmp_path, steps=5)
    data = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(data[:-1])
    with pytest.raises(
        ValueError, match=rf"log\.jsonl: expected at least the {len(data)} bytes .*; got {len(data) - 1}"
    ):
        run("points", tmp_path, resume=True)


def test_settings_of_a_run_are_in_its_checkpoints(tmp_path: Path) -> None:
    run("overlapping", tmp_path, steps=1)
    state = checkpoint.load(tmp_path / "checkpoints" / "step-00000001.safetensors")
    assert json.loads(json.dumps(state["settings"]))["schedule"] == "cosine(23, to=0.0)"
    assert state["objective"]["settings"]["k2"] == 9
    assert sorted(state["objective"]["generators"]) == ["dropout", "model.rnn.rng"]
