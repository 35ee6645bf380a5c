"""The command line as a user has it: another process, its exit code and its two streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scratchrnn
from scratchrnn import backends
from scratchrnn.cli import main
from scratchrnn.cli.making import StudyWishes
from scratchrnn.cli.signals import asked_to_stop
from tests.test_report import FIGURES as NAMES

ROOT = Path(__file__).resolve().parents[1]
TEXT = "The cat sat on the mat, and the dog lay by the fire; rain fell. " * 60


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "scratchrnn", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}


def call(cwd: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


FIGURES = {f"figures/{n}.{k}" for n in NAMES for k in ("svg", "png")}
STUDY = {"report.html", "results.json", "rnn.safetensors", "lstm.safetensors"} | FIGURES


# --- help, version, info


def test_version() -> None:
    done = call(ROOT, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"scratchrnn {scratchrnn.__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments: list[str]) -> None:
    done = call(ROOT, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("study", "train", "sample", "check", "info", "scratchrnn study --quick"):
        assert name in done.stdout


@pytest.mark.parametrize("name", ["study", "train", "sample", "check", "info"])
def test_help_of_a_command_teaches_by_example(name: str) -> None:
    done = call(ROOT, name, "--help")
    assert done.returncode == 0
    assert f"$ scratchrnn {name}" in done.stdout
    assert "--json" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom scratchrnn.cli import main\ntry: main(['study', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'matplotlib', 'numba', 'scipy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_info() -> None:
    done = call(ROOT, "info")
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        scratchrnn.__version__,
        "cpu",
        "blas",
        "OMP_NUM_THREADS=1",
        "numba (cpu, default): usable",
        "numpy (cpu): usable",
    ):
        assert expected in done.stdout


def test_info_as_json() -> None:
    facts = json.loads(call(ROOT, "info", "--json").stdout)
    assert facts["scratchrnn"] == scratchrnn.__version__
    assert facts["blas"]["threads"] in {1, None}
    assert 1 <= facts["cpu"]["usable_cores"] <= facts["cpu"]["cores"]
    found = {entry["name"]: entry for entry in facts["backends"]}
    assert found["numpy"]["usable"] is True
    assert found["numpy"]["why_not"] is None


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    line = f"{' '.join(command('info'))} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (141, "")


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (">&-", "stdout is closed"),
        pytest.param(">/dev/full", "cannot be written: No space left on device", marks=FULL),
    ],
)
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path, to: str, expected: str) -> None:
    line = f"{' '.join(command('info'))} {to}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (2, f"error: output: {expected}\n")


# --- bad usage and bad input: one line, code 2, nothing written


def refused(cwd: Path, *arguments: str) -> str:
    before = tree(cwd)
    done = call(cwd, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert tree(cwd) == before
    assert not (cwd / "scratchrnn-study").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["stdy"], "No such command 'stdy'"),
        (["study", "--quik"], "No such option: --quik"),
        (["study", "--hidden", "many"], "Invalid value for '--hidden'"),
        (["study", "--hidden", "0"], "hidden_size: expected an integer of at least 1; got 0"),
        (["study", "--steps", "-3"], "steps: expected an integer of at least 1; got -3"),
        (["study", "--seed", "-1"], "seed: expected an integer of at least 0; got -1"),
        (["study", "--cell", "gru"], "cell: expected 'rnn', 'lstm' or 'both'; got 'gru'"),
        (["study", "--backend", "abacus"], "backend: unknown name 'abacus'; known: "),
        (["study", "--text", "missing.txt"], "missing.txt: no such file"),
        (["study", "--text", "."], "expected a text file; got a folder"),
        (["info", "more"], "unexpected extra argument"),
    ],
)
def test_bad_usage(tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert expected in refused(tmp_path, *arguments)


@pytest.mark.parametrize(
    "command", [["study"], ["train"], ["sample", "run"], ["check"]], ids=lambda command: command[0]
)
def test_a_backend_that_cannot_run_here(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = replace(backends.REGISTRY["cuda"], why_unavailable=lambda: "no NVIDIA driver was found")
    monkeypatch.setitem(backends.REGISTRY, "cuda", elsewhere)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--backend", "cuda"])
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", "error: backend 'cuda' cannot run here: no NVIDIA driver was found\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "t.txt: expected text; the file is empty"),
        (b"abc\xff", "t.txt: expected UTF-8 text; got byte 0xff at position 3"),
        (b"a" * 99999, "t.txt: expected at least two distinct characters; got only 'a'"),
        (b"short", "text: expected at least 2,2"),
    ],
)
def test_bad_text(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "t.txt").write_bytes(data)
    assert expected in refused(tmp_path, "study", "--quick", "--text", "t.txt")


def test_bad_folder(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    assert "holds files that are not of a study" in refused(tmp_path, "study", "--text", "t.txt", "--out", "full")
    assert "expected a folder to write to; got a file" in refused(tmp_path, "study", "--out", "t.txt")
    assert "t.txt/inside: " in refused(tmp_path, "study", "--out", "t.txt/inside")
    if sys.platform == "linux":  # a folder that root cannot write to either
        assert "/proc/study: cannot be written" in refused(tmp_path, "study", "--out", "/proc/study")


# --- the main job


def test_study_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("study", "--quick", "--steps", "40", "--out", str(out))
    done = call(tmp_path, *arguments, "--json", timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["report"] == str(out / "report.html")
    assert tree(tmp_path) == {f"out/{name}" for name in STUDY}
    record = json.loads((out / "results.json").read_bytes())
    assert set(record["files"]) == STUDY
    assert record["stopped"] is None
    for cell in ("rnn", "lstm"):
        # after 40 steps both know more than how frequent each character is
        assert found["models"][cell]["bits"] < found["unigram_bits"] - 1
        assert found["models"][cell]["bits"] == record["models"][cell]["training"]["validation"][-1][1]
        assert found["models"][cell]["horizon_on_text"] >= 1
    assert "train for 40 steps" in done.stderr
    assert "step   40" in done.stderr

    # a smaller one over the same folder: only if it must be; for people
    (out / "notes.txt").write_text("mine")
    smaller = ("study", "--quick", "--steps", "2", "--out", "out")
    done = call(tmp_path, *smaller)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: out: holds a complete study of 40 steps, and this one has 2; ")
    assert done.stderr.count("\n") == 1
    assert json.loads((out / "results.json").read_bytes()) == record
    done = call(tmp_path, *smaller, "--force", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "out/report.html" in done.stdout
    assert "bits per character" in done.stdout
    assert tree(out) == STUDY | {"notes.txt"}
    assert json.loads((out / "results.json").read_bytes())["steps_done"] == 2


def interrupt(cwd: Path, out: str, times: int, wait_for: str, number: int = signal.SIGINT) -> tuple[int, str]:
    """Start a long study, press Ctrl-C once it prints `wait_for`; its exit code and both streams."""
    process = subprocess.Popen(
        command("study", "--quick", "--steps", "100000", "--text", "t.txt", "--out", out),
        cwd=cwd, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    while wait_for not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(1.0)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout + stderr


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_a_whole_folder(tmp_path: Path, times: int) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    code, said = interrupt(tmp_path, "out", times, "train for 100000 steps")
    assert code == 130
    assert "Traceback" not in said
    assert tree(tmp_path) == {"t.txt"} | {f"out/{name}" for name in STUDY}
    record = json.loads((tmp_path / "out" / "results.json").read_bytes())
    assert record["stopped"] == "interrupted"
    assert 0 < record["steps_done"] < 100000
    assert (record["models"]["lstm"]["after"] is not None) == (times == 1)
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "This study did not run to its end: interrupted." in report
    assert report.rstrip().endswith("</html>")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_end_writes_what_was_reached_beside_a_complete_study(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    (tmp_path / "out").mkdir()
    complete = {"format": "scratchrnn-study", "stopped": None, "steps_done": 100000}
    (tmp_path / "out" / "results.json").write_text(json.dumps(complete))
    number = getattr(signal, name)
    code, said = interrupt(tmp_path, "out", 1, "train for 100000 steps", number)
    assert code == 128 + number
    assert "Traceback" not in said
    assert "out holds a complete study of 100000 steps and stays as it is; writing to out-stopped" in said
    assert tree(tmp_path) == {"t.txt", "out/results.json"} | {f"out-stopped/{name}" for name in STUDY}
    record = json.loads((tmp_path / "out-stopped" / "results.json").read_bytes())
    for model in record["models"].values():
        assert model["training"]["validation"][-1][0] == record["steps_done"] > 0


def test_the_third_wish_and_any_further_one_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []
    monkeypatch.setattr("os.write", lambda stream, data: said.append(data))
    with asked_to_stop(StudyWishes()) as wishes:
        wishes.doing = "train"
        wishes.on_signal(signal.SIGINT, None)
        wishes.on_signal(signal.SIGINT, None)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                wishes.on_signal(signal.SIGINT, None)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert (wishes(), wishes.exit_code) == (4, 130)
    assert said == [
        b"\nstopping and measuring what was reached; once more to skip that\n",
        b"\nstopping; writing what was reached\n",
    ]


def test_ctrl_c_while_the_report_is_written_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []
    monkeypatch.setattr("os.write", lambda stream, data: said.append(data))
    wishes = StudyWishes()
    wishes.doing = "write the report"
    wishes.on_signal(signal.SIGINT, None)
    assert said == [b"\nthe report is being written; twice more to give it up\n"]


def test_a_folder_lost_while_training_loses_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scratchrnn.study import folder

    (tmp_path / "t.txt").write_text(TEXT)
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    write = folder.write_folder

    def full(out: Path, files: Any) -> None:
        if out == Path("out"):
            raise OSError(28, "No space left on device", "out/.scratchrnn/report.html")
        write(out, files)

    monkeypatch.setattr(folder, "write_folder", full)
    with pytest.raises(SystemExit) as stopped:
        main(["study", "--quick", "--steps", "1", "--text", "t.txt", "--out", "out"])
    assert stopped.value.code == 2
    (rescue,) = (tmp_path / "tmp").iterdir()
    assert tree(rescue) == STUDY
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"error: out: cannot be written: No space left on device; the study is in {rescue}"


def test_a_path_that_may_not_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(path: Path, *arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_dir", denied)
    for option, expected in (("--out", "cannot be written"), ("--text", "cannot be read")):
        with pytest.raises(SystemExit) as stopped:
            main(["study", option, "secret"])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: secret: {expected}")
        assert error.endswith(": Permission denied\n")
        assert "Errno" not in error
