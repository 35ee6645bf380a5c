"""`scratchrnn train --resume`: a run that was stopped anywhere goes on to the same numbers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scratchrnn.cli import main
from scratchrnn.models import CharModel
from tests.runs import RUN, SMALL, TEXT, command, environment, log, refused, train, trained, tree


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds t.txt."""
    (tmp_path / "t.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*arguments: str, wait_for: str) -> subprocess.Popen[str]:
    """A run in another process, once it prints that."""
    process = subprocess.Popen(
        command("train", *arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while wait_for not in said:
        line = process.stderr.readline()
        if not line:
            pytest.fail(f"ended with {process.wait()}: {said}")
        said += line
    return process


LONG = (
    "t.txt", *SMALL, "--dropout", "0.1", "--weight-drop", "0.1", "--learned-state", "--steps", "1500",
    "--evaluate-every", "100", "--checkpoint-every", "70",
)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_to_stop_is_answered_with_a_checkpoint(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(*LONG, "--out", "a run", wait_for="step   250/1500")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "finishing this update and writing a checkpoint; once more to give up at once\n" in stderr
    assert stderr.splitlines()[-1] == "stopped; to go on: scratchrnn train --out 'a run' --resume"
    assert "Traceback" not in stderr
    steps = int(re.findall(r"; (\d+) of 1500 steps", stdout)[0])
    assert 250 <= steps < 1500
    assert f"checkpoints/step-{steps:08d}.safetensors" in tree("a run")

    assert trained(capsys, "--out", "a run", "--resume")["steps"] == 1500
    trained(capsys, *LONG, "--out", "undisturbed")
    for name in ("model.safetensors", "config.toml"):
        assert Path("a run", name).read_bytes() == Path("undisturbed", name).read_bytes()
    assert log("a run") == log("undisturbed")


def test_twice_gives_up_at_once_and_leaves_whole_files(capsys: pytest.CaptureFixture[str]) -> None:
    process = start(*LONG, "--out", "run", wait_for="step   250/1500")
    process.send_signal(signal.SIGSTOP)  # so that both come together
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in stderr
    CharModel.load("run/model.safetensors")  # from the evaluation after step 200
    assert trained(capsys, "--resume", "--out", "run")["steps"] == 1500
    trained(capsys, *LONG, "--out", "undisturbed")
    assert Path("run/model.safetensors").read_bytes() == Path("undisturbed/model.safetensors").read_bytes()


def test_a_killed_run_goes_on_even_from_before_its_first_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("t.txt", *SMALL, "--steps", "1500", "--out", "run", "--checkpoint-every", "1500")
    process = start(*arguments, "--evaluate-every", "1500", wait_for="step   125/1500")
    process.kill()
    process.communicate(timeout=60)
    assert tree("run") == {"config.toml", "log.jsonl"}
    assert "run: holds no model.safetensors" in sampled_error(capsys)
    found = trained(capsys, "--out", "run", "--resume")
    assert found["steps"] == 1500
    assert len([line for line in log("run") if line["kind"] == "update"]) == 1500


def test_what_a_kill_left_half_written_goes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/.config.toml.0123abcd.tmp").write_text("[tex")  # killed while it began
    trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "8", "--checkpoint-every", "3")
    assert {name for name in tree("run") if "/" not in name} == RUN
    Path("run/checkpoints/step-00000008.safetensors").unlink()
    Path("run/.model.safetensors.89abcdef.tmp").write_bytes(b"half")
    trained(capsys, "--out", "run", "--resume")
    assert {name for name in tree("run") if "/" not in name} == RUN


def sampled_error(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["sample", "run"])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_finished_run_has_nothing_left_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    first = trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "5")
    before = {name: Path("run", name).read_bytes() for name in tree("run")}
    assert trained(capsys, "--out", "run", "--resume", "t.txt", *SMALL, "--steps", "5") == first
    assert {name: Path("run", name).read_bytes() for name in tree("run")} == before


def test_the_text_may_have_moved(capsys: pytest.CaptureFixture[str]) -> None:
    first = trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "3")
    Path("t.txt").rename("moved.txt")
    assert "t.txt: no such file" in refused(capsys, "--out", "run", "--resume")
    assert trained(capsys, "moved.txt", "--out", "run", "--resume") == first


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys, "t.txt", "--out", "run", *SMALL, "--steps", "9", "--checkpoint-every", "4")
    newest = Path("run/checkpoints/step-00000009.safetensors")
    whole = Path("run/model.safetensors").read_bytes()
    newest.write_bytes(newest.read_bytes()[:-100])
    code, _, err = train(capsys, "--out", "run", "--resume")
    assert code == 0
    assert re.match(r"warning: run/checkpoints/step-00000009\.safetensors: .*; going back to step 8\n", err)
    assert Path("run/model.safetensors").read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="one process at a time is held by a lock of POSIX")
def test_two_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    process = start(*LONG, "--out", "run", wait_for="step   125/1500")
    try:
        assert "another process is training in this folder" in refused_while_running(capsys)
    finally:
        process.kill()
        process.communicate(timeout=60)


def refused_while_running(capsys: pytest.CaptureFixture[str]) -> str:
    code, out, err = train(capsys, "--out", "run", "--resume")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    return err
