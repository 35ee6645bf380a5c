"""`scratchrnn train` as a user has it: what it writes, what it takes, what it refuses."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn import checkpoint, data
from scratchrnn.checkpoint import Checkpoints
from scratchrnn.cli import main
from scratchrnn.models import CharModel
from scratchrnn.train import NATS_PER_BIT
from scratchrnn.train.config import SETTINGS, Config
from scratchrnn.train.config_file import read_settings
from tests.runs import RUN, SMALL, TEXT, bits_of, command, environment, log, refused, train, trained, tree


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds t.txt."""
    (tmp_path / "t.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- a run


def test_a_run_from_text_to_sample(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("t.txt", "--out", "run", *SMALL, "--steps", "90", "--learning-rate", "0.03", "--evaluate-every", "20")
    code, out, err = train(capsys, *arguments, "--checkpoint-every", "25", "--keep", "2")
    assert code == 0, err
    assert tree("run") == RUN | {"checkpoints/step-00000075.safetensors", "checkpoints/step-00000090.safetensors"}
    assert re.fullmatch(
        r"held out: \d\.\d{3} bits per character, after step 90; 90 of 90 steps in \d+ s\nrun/model.safetensors\n", out
    )
    lines = err.splitlines()
    assert len(lines) == 13
    assert re.fullmatch(r"step     7/90   \d\.\d{3} bits   [\d,]+ characters/s", lines[0])
    assert re.fullmatch(r"step    90/90   \d\.\d{3} bits, held out \d\.\d{3}   [\d,]+ characters/s", lines[-1])

    evaluations = [line for line in log("run") if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [20, 40, 60, 80, 90]
    unigram = data.unigram_entropy(data.Vocabulary(TEXT).encode(TEXT)) / NATS_PER_BIT
    assert bits_of("run/model.safetensors") == pytest.approx(evaluations[-1]["bits"], rel=1e-6)
    assert evaluations[-1]["bits"] < unigram - 1, "it knows more than how frequent each character is"
    with pytest.raises(SystemExit):
        main(["sample", "run", "--prompt", "The cat", "--length", "30", "--temperature", "0", "--backend", "numpy"])
    assert len(capsys.readouterr().out) == 30


def test_json_says_what_was_reached(capsys: pytest.CaptureFixture[str]) -> None:
    found = trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "30", "--evaluate-every", "10")
    assert found.pop("seconds") > 0
    assert found.pop("held_out_bits") == pytest.approx(bits_of("run/model.safetensors"), rel=1e-6)
    assert found == {
        "out": "run", "model": "run/model.safetensors", "best_step": 30, "steps": 30, "of_steps": 30, "stopped": None,
    }  # fmt: skip


def test_the_kept_model_is_the_one_that_did_best(capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate so large that the last weights are not the best."""
    arguments = ("t.txt", "--out", "run", *SMALL, "--learning-rate", "3", "--clip", "inf", "--evaluate-every", "5")
    found = trained(capsys, *arguments, "--steps", "60", "--patience", "3")
    evaluations = {line["step"]: line["bits"] for line in log("run") if line["kind"] == "evaluation"}
    best = min(evaluations, key=lambda step: evaluations[step])
    assert (found["best_step"], found["steps"], found["stopped"]) == (best, best + 15, "patience")
    assert bits_of("run/model.safetensors") == pytest.approx(evaluations[best], rel=1e-5)
    loaded = checkpoint.load("run/best.safetensors")["parameters"]
    for name, array in CharModel.load("run/model.safetensors").parameters.items():
        assert np.array_equal(loaded[name], array)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_config_of_a_run_repeats_it(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--cell",
        "lstm",
        "--layers",
        "2",
        "--k2",
        "25",
        "--accumulate",
        "2",
        "--clip",
        "0.5",
        "--step-clip",
        "1",
    )
    options += ("--dropout", "0.2", "--weight-drop", "0.3", "--ar", "2", "--tar", "1", "--learned-state")
    options += ("--optimizer", "rmsprop", "--momentum", "0.5", "--schedule", "cosine", "--warmup", "5", "--seed", "7")
    trained(capsys, "t.txt", "--out", "run", *SMALL, *options, "--epochs", "1", "--backend", backend)
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    trained(capsys, "--config", "../run/config.toml", "--out", "again")
    os.chdir("..")
    for name in ("model.safetensors", "best.safetensors", "config.toml"):
        if name != "best.safetensors":  # JSON in it has no order of its own
            assert Path("run", name).read_bytes() == Path("elsewhere/again", name).read_bytes()
    assert log("run") == log("elsewhere/again")
    trained(capsys, "--config", "run/config.toml", "--out", "other", "--seed", "8")
    assert Path("run/model.safetensors").read_bytes() != Path("other/model.safetensors").read_bytes()


def test_the_config_holds_everything_as_resolved(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "1", "--k1", "12")
    config = Config(**read_settings("run/config.toml"))
    assert config == Config(
        file=str(here / "t.txt"), sha256=data.text_sha256(TEXT), hidden=8, embedding=4, batch=4, k1=12, k2=12,
        backend="numpy", steps=1,
    )  # fmt: skip
    text = Path("run/config.toml").read_text()
    assert all(f"{name} = " in text or f"# {name}: " in text for name in SETTINGS)


def test_the_default_text(capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys, "--out", "run", *SMALL, "--steps", "1")
    assert read_settings("run/config.toml").get("file") is None
    vocabulary = CharModel.load("run/model.safetensors").vocabulary
    assert vocabulary.characters == data.Vocabulary(data.default_text()).characters
    trained(capsys, "--config", "run/config.toml", "--out", "again")


# --- settings from a file


def test_options_go_before_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.toml").write_text(
        '[text]\nfile = "t.txt"\n[model]\nhidden = 6\nembedding = 3\n[training]\nbatch = 4\nk1 = 10\nepochs = 50\n'
        '[run]\nbackend = "numpy"\n'
    )
    trained(capsys, "--config", "small.toml", "--hidden", "5", "--steps", "2", "--out", "run")
    config = Config(**read_settings("run/config.toml"))
    assert (config.hidden, config.embedding, config.k1, config.steps, config.epochs) == (5, 3, 10, 2, None)
    Path("u.txt").write_text(TEXT.upper())
    trained(capsys, "u.txt", "--config", "run/config.toml", "--epochs", "0.1", "--out", "upper")
    config = Config(**read_settings("upper/config.toml"))
    assert (config.hidden, config.steps, config.epochs) == (5, None, 0.1)
    assert config.sha256 == data.text_sha256(TEXT.upper())


def test_every_setting_has_an_option_but_those_of_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        command("train", "--help"), env=environment() | {"COLUMNS": "160"}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name, setting in SETTINGS.items():
        assert (re.search(rf"--{name.replace('_', '-')}\b", done.stdout) is not None) == setting.option
    for expected in ("$ scratchrnn train book.txt", "--resume", "--config", "--json", "[default: scratchrnn-run]"):
        assert expected in done.stdout


# --- refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt"], "missing.txt: no such file"),
        (["."], ".: expected a text file; got a folder"),
        (["t.txt", "u.txt"], "Got unexpected extra argument"),
        (["t.txt", "--hidden", "0"], "hidden: expected an integer of at least 1; got 0"),
        (["t.txt", "--hidden", "many"], "Invalid value for '--hidden'"),
        (["t.txt", "--hiden", "3"], "No such option: --hiden"),
        (["t.txt", "--cell", "gru"], "cell: expected one of rnn, lstm; got 'gru'"),
        (["t.txt", "--backend", "abacus"], "backend: unknown name 'abacus'; known: "),
        (["t.txt", "--steps", "3", "--epochs", "2"], "steps, epochs: expected one of them; got steps=3 and epochs=2"),
        (["t.txt", "--optimizer", "lion"], "optimizer: expected one of adam, adamw, sgd, rmsprop, adagrad; got 'lion'"),
        (["t.txt", "--batch", "4000"], "text: expected at least 4446 characters for 4000 rows; got 3840"),
        (["t.txt", "--config", "missing.toml"], "missing.toml: no such file"),
        (["t.txt", "--config", "t.txt"], "t.txt: not TOML: Expected '=' after a key"),
        (["--resume"], "scratchrnn-run: holds no run to go on with, no config.toml; to begin one leave out --resume"),
        (["t.txt", "--out", "t.txt"], "t.txt: expected a folder to write to; got a file"),
        (["t.txt", "--out", "t.txt/in"], "t.txt/in: cannot be written: Not a directory"),
        (["t.txt", "--out", "mine"], "mine: holds files that are not of a run; choose another --out"),
    ],
)
def test_refuses(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("mine")
    assert refused(capsys, *arguments).startswith(message)
    assert not Path("scratchrnn-run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that root cannot write to either")
def test_refuses_a_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/proc/run: cannot be written: " in refused(capsys, "t.txt", *SMALL, "--out", "/proc/run")


def test_a_run_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys, "t.txt", "--out", "a run", *SMALL, "--steps", "1")
    assert refused(capsys, "t.txt", "--out", "a run", *SMALL, "--steps", "2") == (
        "a run: holds a run; scratchrnn train --out 'a run' --resume goes on with it, a new one needs another --out\n"
    )


def test_a_resumed_run_keeps_its_settings_and_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "2")
    Path("other.toml").write_text("[model]\nhidden = 8\nlayers = 3\n")
    for options, message in (
        (("--hidden", "9"), "hidden: the run in run was made with 8, and keeps its settings; got 9"),
        (("--steps", "1"), "steps: expected at least the 2 that the run has made; got 1"),
        (("--steps", "3", "--epochs", "3"), "steps, epochs: expected one of them; got steps=3 and epochs=3"),
        (("--clip", "inf"), "clip: the run in run was made with 1.0, and keeps its settings; got inf"),
        (("--config", "other.toml"), "layers: the run in run was made with 1, and keeps its settings; got 3"),
    ):
        assert refused(capsys, "--out", "run", "--resume", *options) == f"{message}\n"
    Path("u.txt").write_text(TEXT.upper())
    assert refused(capsys, "u.txt", "--out", "run", "--resume") == (
        "u.txt: this is not the text that the run in run was made with\n"
    )
    Path("t.txt").write_text(TEXT + "more")
    assert "t.txt: this is not the text that the run in run was made with" in refused(
        capsys, "--out", "run", "--resume"
    )
    message = refused(capsys, "--out", "again", "--config", "run/config.toml")
    assert re.match(r"\S+t\.txt: expected the text that run/config.toml names, with sha256 \w{64}; got one", message)
    assert not Path("again").exists()


@pytest.mark.parametrize("length", [("--steps", "5"), ("--epochs", "0.4")])
def test_a_run_that_is_made_longer(length: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The weights are those of a run that was longer from the beginning; config.toml says the new length."""
    trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "2")
    trained(capsys, "t.txt", "--out", "long", *SMALL, *length)
    trained(capsys, "--out", "run", "--resume", *length)
    newest, wanted = (Checkpoints(Path(run, "checkpoints")).newest() for run in ("run", "long"))
    assert newest is not None
    assert wanted is not None
    assert newest[0] == wanted[0] > 2
    for name, array in wanted[1]["parameters"].items():
        assert newest[1]["parameters"][name].tobytes() == array.tobytes()
    assert Path("run/config.toml").read_text() == Path("long/config.toml").read_text()
    falling = ("--schedule", "linear")  # its end depends on the length
    trained(capsys, "t.txt", "--out", "falling", *SMALL, *falling, "--steps", "2")
    before = Path("falling/config.toml").read_bytes()
    assert refused(capsys, "--out", "falling", "--resume", *length).startswith(
        "resume: the run was made with schedule='linear(2, to=0.1)'; got schedule='linear("
    )
    assert Path("falling/config.toml").read_bytes() == before


def test_a_config_that_was_spoilt(capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "2")
    config = Path("run/config.toml")
    config.write_text(config.read_text().replace("hidden = 8", "hidden = 9"))
    message = refused(capsys, "--out", "run", "--resume")
    assert message.startswith("resume: the run was made with layer='LSTM(input_size=4, hidden_size=8")
    config.write_text(
        config.read_text()
        .replace("hidden = 9", "hidden = 8")
        .replace("ar = 0.0  # Weight of the squared", "ar = 2.0  # ")
    )
    assert refused(capsys, "--out", "run", "--resume").startswith(
        "resume: the run was made with regularization=None; got regularization='_Activities(ar=2.0, tar=0.0)'"
    )
    config.write_text(config.read_text().replace("hidden = 8", "hidden = nine"))
    assert refused(capsys, "--out", "run", "--resume").startswith("run/config.toml: not TOML: Invalid value (at line 7")


# --- what goes wrong on the way


def test_divergence_names_where_and_the_checkpoint_kept(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("t.txt", "--out", "run", *SMALL, "--optimizer", "sgd", "--learning-rate", "3e38", "--clip", "inf")
    code, out, err = train(capsys, *arguments, "--checkpoint-every", "1", "--steps", "50")
    assert (code, out) == (1, "")
    error = err.splitlines()[-1]
    assert re.match(r"error: .* step \d+; first: .*", error), error
    kept = re.findall(r"the last checkpoint is (\S+)$", error)
    assert all(np.isfinite(array).all() for array in checkpoint.load(kept[0])["parameters"].values())


def test_divergence_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("t.txt", "--out", "run", *SMALL, "--optimizer", "sgd", "--learning-rate", "1e300", "--clip", "inf")
    code, _, err = train(capsys, *arguments)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert err.endswith("; there was no checkpoint yet\n")


@pytest.mark.parametrize("name", ["checkpoints", "model"])
def test_a_full_disk_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if name in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")  # as a write has it: without a name
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    code, out, err = train(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "8", "--checkpoint-every", "4")
    assert (code, out) == (2, "")
    assert re.search(rf"^error: \S*run/{name}\S*: cannot be written: No space left on device$", err, re.MULTILINE)
    monkeypatch.undo()


def test_a_bar_on_a_terminal_and_the_result_alone_on_stdout() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    arguments = ("t.txt", *SMALL, "--out", "run", "--steps", "300", "--evaluate-every", "100")
    with subprocess.Popen(
        command("train", *arguments), env=environment() | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how a terminal's end is told
            pass
        assert process.stdout is not None
        out = process.stdout.read().decode()
    assert process.returncode == 0
    assert "300/300" in shown.decode()
    assert "held out" in shown.decode()
    assert "step " not in shown.decode()
    assert len(out.splitlines()) == 2
    os.close(ours)
