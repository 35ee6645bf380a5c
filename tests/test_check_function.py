"""`scratchrnn check --function`: a user's own functions from a file or module."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratchrnn import cli

PROGRAM = """
import numpy as np
print("hello from the user's code")

def forward(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh):
    output = []
    for x_t in x:
        i, f, g, o = np.split(x_t @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        output.append(h)
    return np.stack(output), h, c

def backward(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, d_output, d_h_n, d_c_n):
    return {"dx": np.zeros_like(x), "dweight_hh": np.zeros_like(weight_hh)}

def no_bias(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    return forward_rnn(x, h, weight_ih, weight_hh, bias_ih, 0)

def forward_rnn(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    output = []
    for x_t in x:
        h = np.tanh(x_t @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
        output.append(h)
    return np.stack(output)

three = 3
"""


@pytest.fixture
def check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command beside my_lstm.py; exit code, stdout, stderr."""
    (tmp_path / "my_lstm.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.delitem(sys.modules, "my_lstm", raising=False)
        before = list(sys.path)
        with pytest.raises(SystemExit) as stopped:
            cli.main(["check", *arguments])
        assert sys.path == before
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


def test_command_passes_and_fails(check: Any) -> None:
    code, out, _ = check("--function", "my_lstm.py:forward")
    assert code == 0
    assert "all right" in out
    assert "Not checked: backward: no function given" in out
    code, out, err = check("--function", "my_lstm:forward,backward", "--dtype", "float64")
    assert (code, err) == (1, "")
    assert "Mistake: backward: zeros returned" in out
    code, out, _ = check("--function", "my_lstm.py:no_bias", "--cell", "rnn_tanh", "--dtype", "float64")
    assert code == 1
    assert "Mistake: forward: missing bias_hh" in out


def test_command_for_machines(check: Any) -> None:
    code, out, err = check("--function", "my_lstm.py:forward,backward", "--json", "--dtype", "float64", "--seed", "3")
    facts = json.loads(out)
    assert (code, facts["ok"], facts["seed"], facts["cell"]) == (1, False, 3, "lstm")
    assert [m["name"] for m in facts["mistakes"]] == ["zeros returned"]
    assert "hello" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--function", "nowhere.py:forward"], "nowhere.py: no such file"),
        (["--function", "no_module:forward"], "no_module: importing it raised ModuleNotFoundError"),
        (["--function", "broken.py:forward"], "importing it raised ModuleNotFoundError: No module named 'nothing_of_"),
        (["--function", "my_lstm.py"], "--function: expected FILE.py:forward"),
        (["--function", "my_lstm.py:a,b,c"], "--function: expected FILE.py:forward"),
        (["--function", "my_lstm.py:fwd"], "has no function 'fwd'; there is forward, backward, no_bias, forward_rnn"),
        (["--function", "my_lstm.py:three"], "has no function 'three'"),
        (["--function", "my_lstm.py:forward", "--cell", "gru"], "cell: expected one of 'lstm'"),
        (["--function", "my_lstm.py:forward", "--dtype", "float16"], "dtypes: expected float32 or float64"),
        (["--function", "my_lstm.py:forward", "--backend", "numpy"], "--backend: expected without --function"),
        (["--cell", "lstm"], "--cell: expected together with --function"),
    ],
)
def test_command_with_bad_input(arguments: list[str], message: str, check: Any) -> None:
    code, _, err = check(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
