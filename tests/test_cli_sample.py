"""`scratchrnn sample` as a user has it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn.cli import main
from scratchrnn.models import CharModel

ROOT = Path(__file__).resolve().parents[1]
CHARACTERS = "\n abcdeé"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """A folder `run` with a model, in the current folder."""
    (tmp_path / "run").mkdir()
    CharModel(CHARACTERS, "lstm", 5, 3, rng=rng).save(tmp_path / "run" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["sample", *arguments, "--backend", "numpy"])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "scratchrnn", "sample", *arguments, "--backend", "numpy"]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"} | more


def test_writes_what_the_model_draws_and_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = CharModel.load(run / "model.safetensors")
    want = model.sample("ab", 40, rng=np.random.default_rng(3), temperature=0.5, top_k=4)
    options = ("--prompt", "ab", "--length", "40", "--seed", "3", "--temperature", "0.5", "--top-k", "4")
    assert call(capsys, "run", *options) == (0, want, "")
    assert call(capsys, "run/model.safetensors", *options) == (0, want, "")
    code, out, err = call(capsys, "run", *options, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "model": "run/model.safetensors", "prompt": "ab", "temperature": 0.5, "top_k": 4, "seed": 3, "text": want,
    }  # fmt: skip


def test_without_options(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (call(capsys, "run")[1] for _ in range(2))
    assert len(first) == len(second) == 500
    assert set(first) <= set(CHARACTERS)
    assert first != second, "another text each time"
    facts = json.loads(call(capsys, "run", "--json")[1])
    assert call(capsys, "run", "--seed", str(facts["seed"]))[1] == facts["text"], "the seed is told"
    assert call(capsys, "run", "--length", "0") == (0, "", "")
    greedy = {call(capsys, "run", "--temperature", "0", "--length", "20")[1] for _ in range(2)}
    assert len(greedy) == 1


def test_writes_utf8_byte_for_byte(run: Path) -> None:
    done = subprocess.run(
        command("run", "--seed", "1"), cwd=run.parent, env=environment(), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.decode()) == 500
    assert "é" in done.stdout.decode()


def test_an_output_without_the_character_is_one_line(run: Path) -> None:
    done = subprocess.run(
        command("run", "--seed", "1"), cwd=run.parent, env=environment(PYTHONIOENCODING="ascii"), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: output: ascii has no '\\xe9'; set PYTHONIOENCODING=utf-8\n"


def test_comes_as_it_is_drawn_and_stops_at_a_closed_pipe(run: Path) -> None:
    with subprocess.Popen(
        command("run", "--length", "1000000000"), cwd=run.parent, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(300)) == 300
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_the_line_ends_and_ctrl_c_is_no_traceback(run: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("run", "--length", "1000000000"), cwd=run.parent, env=environment(), stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert os.read(ours, 1)
        process.send_signal(signal.SIGINT)
        last = b""
        try:
            while part := os.read(ours, 4096):
                last = part
        except OSError:  # how a terminal's end is told
            pass
        assert process.stderr is not None
        assert process.stderr.read() == b"error: interrupted\n"
    assert process.returncode == 130
    assert last.endswith(b"\r\n")
    os.close(ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such file"),
        (
            ["."],
            ".: holds no model.safetensors, which a run has from its first evaluation on; it holds other.safetenso",
        ),
        (
            ["run", "--prompt", "aÄb"],
            "prompt: character 'Ä' (U+00C4) at position 1 is not among the 8 of the vocabular",
        ),
        (["run", "--top-k", "9"], "top_k: expected at most the 8 characters of the vocabulary; got 9"),
        (["run", "--top-k", "0"], "top_k: expected an integer of at least 1; got 0"),
        (["run", "--temperature", "-1"], "temperature: expected a finite number of at least 0; got -1.0"),
        (["run", "--temperature", "nan"], "temperature: expected a finite number of at least 0; got nan"),
        (["run", "--length", "-1"], "length: expected an integer of at least 0; got -1"),
        (["run", "--seed", "-1"], "seed: expected an integer of at least 0; got -1"),
        (["run", "--length", "x"], "Invalid value for '--length'"),
        (["other.safetensors"], "other.safetensors: expected a safetensors file of float32 or float64 tensors"),
        ([], "Missing argument 'RUN_OR_FILE'"),
    ],
)
def test_refuses(run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    Path("other.safetensors").write_bytes(b"no such thing")
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_refuses_a_backend(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sample", "run", "--backend", "abacus"])
    assert capsys.readouterr().err.startswith("error: backend: unknown name 'abacus'; known: ")


def test_a_model_of_nan_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = CharModel.load(run / "model.safetensors")
    model.parameters["decoder.bias"][0] = np.nan
    model.save("nan.safetensors")
    code, _, err = call(capsys, "nan.safetensors")
    assert (code, err) == (2, "error: logits: expected numbers; got NaN, as of a model whose training diverged\n")


def test_help_teaches_by_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scratchrnn", "sample", "--help"], env=environment(), capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    for expected in ("$ scratchrnn sample scratchrnn-run", "--prompt", "--temperature", "--top-k", "--seed", "--json"):
        assert expected in done.stdout
