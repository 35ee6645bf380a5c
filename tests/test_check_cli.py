"""`scratchrnn check` as a user runs it: tables, exit codes, files, one line for each error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import cli
from tests.mutants import Mutant

WIDTH = 80


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(5, 4)
        self.head = torch.nn.Linear(4, 2)


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command; exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))

    def run(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["check", *map(str, arguments)])
        printed = capsys.readouterr()
        # the first run after a kernel has changed says that it compiles
        err = "".join(line for line in printed.err.splitlines(True) if not line.startswith("scratchrnn: compil"))
        return int(stopped.value.code or 0), printed.out, err

    return run


def test_the_grid_passes_and_fits_a_terminal(check: Any) -> None:
    code, out, err = check()
    assert (code, err) == (0, "")
    assert "All 96 checks pass" in out
    for kind in ("RNN tanh", "RNN relu", "LSTM", "LSTM projected"):
        assert f"\n{kind}\n" in out
    assert max(map(len, out.splitlines())) <= WIDTH


def test_a_narrow_terminal_cuts_no_number(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, wide, _ = check()
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = check()
    assert code == 0
    assert "…" not in out
    assert "nearest" not in out
    rows = [line.split()[:4] for line in wide.splitlines() if line.startswith("dweight_hh ")]
    assert [line.split() for line in out.splitlines() if line.startswith("dweight_hh ")] == rows


def test_ctrl_c(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("scratchrnn.check.grid._compare", interrupted)
    assert check() == (130, "", "error: interrupted\n")


def test_a_reader_that_has_enough_is_no_failed_check(tmp_path: Path) -> None:
    line = f"{sys.executable} -m scratchrnn check --dtype float64 | true; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_mismatch_is_exit_code_1_with_the_place(check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Mutant("lstm", "lstm", "step_backward", "df * f * (1 - f)", "-df * f * (1 - f)").plant(monkeypatch)
    torch.save(torch.nn.LSTM(5, 4).state_dict(), tmp_path / "m.pt")
    code, out, _ = check("--module", tmp_path / "m.pt")
    assert code == 1
    assert "4 of 4 checks fail" in out
    assert "m.pt, 1 layer, equal lengths, float64" in out
    assert any(line.startswith("da_l0 ") and " f[" in line for line in out.splitlines())
    assert "3 more checks fail" in out
    assert max(map(len, out.splitlines())) <= WIDTH
    code, out, _ = check("--module", tmp_path / "m.pt", "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False


def test_json_holds_every_quantity(check: Any) -> None:
    code, out, _ = check("--json", "--dtype", "float64", "--seed", 3)
    facts = json.loads(out)
    assert code == 0
    assert facts["ok"] is True
    assert facts["seed"] == 3
    assert facts["torch"] == torch.__version__
    assert len(facts["checks"]) == 48
    assert {one["dtype"] for one in facts["checks"]} == {"float64"}
    row = next(row for row in facts["checks"][-1]["rows"] if row["quantity"] == "dc_l2_reverse")
    assert row["ours"] <= row["allowed"] == 1e-12
    assert len(row["index"]) == 3


def rnn_module() -> torch.nn.Module:
    return torch.nn.RNN(5, 4, nonlinearity="relu", batch_first=True, dtype=torch.float64)


@pytest.mark.parametrize(
    ("saved", "options", "layer"),
    [
        (lambda: torch.nn.LSTM(5, 4, 2, bidirectional=True, proj_size=2), [], "num_layers=2, bias=True"),
        (lambda: torch.nn.LSTM(5, 4, 2, bidirectional=True, proj_size=2), [], "bidirectional=True, proj_size=2"),
        (lambda: torch.nn.LSTM(5, 4, bias=False).state_dict(), [], "LSTM(input_size=5, hidden_size=4"),
        (lambda: torch.nn.LSTM(5, 4, bias=False).state_dict(), [], "bias=False"),
        (rnn_module, [], "batch_first=True"),
        (rnn_module, [], "nonlinearity='relu', dtype=float64"),
        (lambda: torch.nn.RNN(5, 4).state_dict(), ["--nonlinearity", "relu"], "nonlinearity='relu', dtype=float32"),
        (lambda: Model().state_dict(), ["--prefix", "rnn"], "LSTM(input_size=5, hidden_size=4"),
        (lambda: {"epoch": 3, "model": Model().state_dict()}, ["--prefix", "rnn"], "LSTM(input_size=5, hidden_size=4"),
        (Model, ["--prefix", "rnn", "--trust"], "LSTM(input_size=5, hidden_size=4"),
    ],
)
def test_a_torch_file(saved: Any, options: list[str], layer: str, check: Any, tmp_path: Path) -> None:
    torch.save(saved(), tmp_path / "m.pt")
    code, out, err = check("--module", tmp_path / "m.pt", *options)
    assert (code, err) == (0, "")
    assert layer in " ".join(out.split())
    assert "checks pass" in out
    assert max(map(len, out.splitlines())) <= WIDTH


def test_a_safetensors_file_and_everything_printed(check: Any, tmp_path: Path) -> None:
    srnn.RNN(5, 4, nonlinearity="relu").save(tmp_path / "m.safetensors")
    code, out, err = check("--safetensors", tmp_path / "m.safetensors", "--verbose")
    assert (code, err) == (0, "")
    assert "nonlinearity='relu'" in " ".join(out.split())
    assert "All 4 checks pass" in out
    for name in ("h_l0", "da_l0", "dweight_hh_l0", "output'"):
        assert sum(line.startswith(f"{name} ") for line in out.splitlines()) >= 4
    assert max(map(len, out.splitlines())) <= WIDTH


class Marker:
    """Unpickling it writes a file: what a hostile .pt could do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_does_not_run(check: Any, tmp_path: Path) -> None:
    torch.save({"weight_ih_l0": Marker(tmp_path / "ran")}, tmp_path / "m.pt")
    code, _, err = check("--module", tmp_path / "m.pt")
    assert code == 2
    assert "give --trust" in err
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    torch.save(Model(), tmp_path / "model.pt")
    torch.save(Model().state_dict(), tmp_path / "state.pt")
    torch.save({"epoch": 3, **torch.nn.RNN(5, 4).state_dict()}, tmp_path / "checkpoint.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(torch.nn.GRU(5, 4), tmp_path / "whole_gru.pt")
    torch.save({"a": torch.nn.RNN(5, 4).state_dict(), "b": Model().state_dict()}, tmp_path / "two.pt")
    broken = torch.nn.LSTM(5, 4)
    broken.weight_hh_l0.data[3, 2] = torch.inf
    torch.save(broken, tmp_path / "broken.pt")
    torch.save(torch.nn.GRU(5, 4).state_dict(), tmp_path / "gru.pt")
    torch.save(torch.nn.LSTM(5, 4).half().state_dict(), tmp_path / "half.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "garbage.pt").write_bytes(b"not a file of torch\n" * 9)
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "garbage.safetensors").write_bytes(b"no")
    srnn.Linear(5, 4).save(tmp_path / "linear.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--module", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--module", "."], ": no such file"),
        (["--module", "empty.pt"], "empty.pt: expected a file written by torch.save"),
        (["--module", "garbage.pt"], "garbage.pt: expected a file written by torch.save"),
        (["--module", "garbage.pt", "--trust"], "garbage.pt: expected a file written by torch.save"),
        (["--module", "cut.pt"], "cut.pt: expected a file written by torch.save"),
        (["--module", "list.pt"], "list.pt: expected a state dict or a module; got list [1, 2]"),
        (["--module", "model.pt"], "give --trust"),
        (["--module", "model.pt", "--trust"], "LSTM itself, but a Model; there is one at 'rnn': say which"),
        (["--module", "model.pt", "--trust", "--prefix", "head"], "LSTM at 'head'; there is one at 'rnn'"),
        (["--module", "state.pt"], "there are some under the prefix 'rnn.': say which"),
        (["--module", "state.pt", "--prefix", "head"], "no tensor under 'head'"),
        (["--module", "checkpoint.pt"], "epoch: expected a torch tensor; got int 3"),
        (["--module", "whole_gru.pt"], "whole_gru.pt: expected a torch.nn.RNN or LSTM; got a torch.nn.GRU"),
        (["--module", "two.pt"], "two.pt: expected one state dict; got one under each of 'a', 'b'"),
        (["--module", "broken.pt"], "broken.pt: weight_hh_l0: expected finite numbers, to compare; got inf at (3, 2)"),
        (["--module", "gru.pt"], "a GRU, which is not supported"),
        (["--module", "half.pt"], "weight_ih_l0: expected dtype float32 or float64; got float16"),
        (["--safetensors", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--safetensors", "garbage.safetensors"], "garbage.safetensors: expected a safetensors file"),
        (["--safetensors", "linear.safetensors"], "no tensor without a prefix has a name such as weight_ih_l0"),
        (["--module", "state.pt", "--safetensors", "linear.safetensors"], "expected one of them"),
        (["--safetensors", "linear.safetensors", "--trust"], "--trust: a safetensors file holds no code"),
        (["--prefix", "rnn"], "--prefix: expected together with --module or --safetensors"),
        (["--nonlinearity", "gelu", "--module", "state.pt"], "nonlinearity: expected 'tanh' or 'relu'; got 'gelu'"),
        (["--dtype", "float16"], "dtype: expected float32 or float64; got float16"),
        (["--backend", "abacus"], "backend: unknown name 'abacus'; known: "),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, check: Any, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    code, out, err = check(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_without_torch(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = check()
    assert (code, out) == (2, "")
    assert "pip install torch==2.13.0" in err
    assert err.count("\n") == 1


def test_a_backend_of_choice(check: Any) -> None:
    code, out, _ = check("--backend", "numpy", "--dtype", "float64", "--json")
    assert code == 0
    assert {one["backend"] for one in json.loads(out)["checks"]} == {"numpy"}


def test_seeds_draw_other_numbers() -> None:
    from scratchrnn.check.grid import check_layer

    layer = srnn.RNN(5, 4, dtype=np.float64, rng=np.random.default_rng(0))
    first, again, other = ([one.report for one in check_layer("RNN", layer, seed=seed)] for seed in (0, 0, 1))
    assert first == again
    assert first != other
