"""The programs that train: what they compare is the same training, and what they report is what happened."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn import data

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
names = ["adding", "charlm", "laboratory", "per_sample", "timing", "torch_module", "truncation"]
adding, charlm, laboratory, per_sample, timing, torch_module, truncation = map(importlib.import_module, names)


def output_of(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{program}.py", *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def only_row(path: Path) -> dict[str, Any]:
    (row,) = (json.loads(line) for line in path.read_text().splitlines())
    assert row["machine"]["cores"] >= 1
    assert {"commit", "run", "versions", "threads"} <= row.keys()
    return dict(row)


# --- the adding problem


def test_adding_over_20_steps_is_learned() -> None:
    row = adding.learn("lstm", 1, steps=20, updates=400, target=0.03)
    assert row["mse"] < 0.03
    assert row["one"] == pytest.approx(data.ADDING_BASELINE, rel=0.2)
    assert row["curve"][0]["mse"] > 0.1
    assert [point["updates"] for point in row["curve"]] == list(range(25, row["updates"] + 1, 25))


RUNS = [(init, updates, seed) for init, updates in (("chrono", 1000), ("forget", 2500)) for seed in range(5)]


@pytest.mark.parametrize(
    ("init", "updates", "seed"), [RUNS[0], *(pytest.param(*run, marks=pytest.mark.slow) for run in RUNS[1:])]
)
def test_adding_over_100_steps_is_learned(init: str, updates: int, seed: int) -> None:
    assert adding.learn("lstm", seed, init=init, updates=updates, target=0.01)["mse"] < 0.01


def test_adding_starts_as_it_says() -> None:
    lstm = adding.model("lstm", 100, 6, "forget", np.random.default_rng(0)).rnn.parameters
    assert (lstm["bias_ih_l0"] + lstm["bias_hh_l0"])[6:12].tolist() == [1.0] * 6
    lstm = adding.model("lstm", 100, 6, "chrono", np.random.default_rng(0)).rnn.parameters
    remembered = 1 + np.exp((lstm["bias_ih_l0"] + lstm["bias_hh_l0"])[6:12])  # steps
    assert (remembered > 2).all()
    assert (remembered < 100).all()
    assert adding.learn("rnn", 0, steps=5, hidden=3, batch=4, updates=2, every=1)["init"] is None


def test_adding_end_to_end(tmp_path: Path) -> None:
    sizes = ["--steps", "6", "--hidden", "5", "--batch", "4", "--updates", "3"]
    shown = output_of("adding", *sizes, "--cells", "rnn", "--seeds", "7", "--out", str(tmp_path / "rows"))
    row = only_row(tmp_path / "rows.jsonl")
    assert (row["cell"], row["seed"], row["T"], row["updates"], row["threads"]) == ("rnn", 7, 6, 3, 1)
    assert f"{row['mse']:.4f}" in shown


# --- the character model


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """charlm with another text and sizes: some 20 windows in a pass, the last one shorter."""
    text = " ".join(np.random.default_rng(5).choice(["abc", "de", "f."], 140))
    monkeypatch.setattr(data, "default_text", lambda: text)
    for name, value in {"EMBEDDING": 4, "H": 6, "B": 3, "T": 7, "ROWS": 2, "AT_ONCE": 5, "MAX_NORM": 0.3}.items():
        monkeypatch.setattr(charlm, name, value)
    return charlm.Text()


def test_both_engines_of_charlm_learn_the_same(small: Any) -> None:
    ours, torchs = (charlm.LEARNERS[name](small, 3, 1) for name in ("scratchrnn", "torch"))
    first = ours.held_out()
    assert 18 < small.rows.steps / charlm.T < 22
    assert small.rows.steps % charlm.T > 0
    for number in range(50):  # into the third pass
        assert ours.step() == pytest.approx(torchs.step(), rel=1e-4), number
        if number % 8 == 0:
            assert ours.held_out() == pytest.approx(torchs.held_out(), rel=1e-4)
    assert ours.held_out() < first


def test_charlm_stops_below_its_target(small: Any) -> None:
    options = charlm.parser().parse_args(["--target", "2.5", "--every", "3", "--seconds", "60", "--threads", "1"])
    row = charlm.learn("scratchrnn", options)
    assert row["below"] == row["curve"][-1]
    assert row["best"] == row["below"]["bits"] < 2.5
    assert all(point["bits"] >= 2.5 for point in row["curve"][:-1])
    assert [point["windows"] for point in row["curve"]] == [3 * (n + 1) for n in range(len(row["curve"]))]
    assert all(point["training"] < point["seconds"] for point in row["curve"])


def test_charlm_end_to_end(tmp_path: Path) -> None:
    limits = ["--seconds", "0", "--every", "1", "--engines", "scratchrnn", "--threads", "1"]
    shown = output_of("charlm", *limits, "--out", str(tmp_path / "rows"))
    row = only_row(tmp_path / "rows.jsonl")
    assert (row["engine"], row["threads"], row["below"], len(row["curve"])) == ("scratchrnn", 1, None, 1)
    assert row["text"] == data.text_sha256(data.default_text())
    assert "not reached" in shown


# --- a module in torch


def test_torch_module_end_to_end(tmp_path: Path) -> None:
    limits = ["--threads", "1", "--problem", "2", "3", "4", "5", "2", "--cell", "rnn", "--seconds", "0"]
    shown = output_of("torch_module", *limits, "--out", str(tmp_path / "rows"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["mode"], row["engine"]) for row in rows] == [
        (mode, engine) for mode in ("layer", "model", "hessian") for engine in ("scratchrnn", "torch")
    ]
    ours, theirs = rows[:2]
    assert ours["ratio"] == theirs["ratio"] == theirs["p50"] / ours["p50"]
    assert all(row["difference"] < 1e-5 and row["layers"] == 2 for row in rows)
    assert "rnn (2,3,4,5) layers 2" in shown


def test_torch_module_does_not_time_what_disagrees() -> None:
    class Process:
        def __init__(self, figure: float) -> None:
            self.figure = figure

        def ask(self, **command: Any) -> dict[str, Any]:
            assert command["do"] == "prepare"
            return {"figures": [1.0, self.figure], "usual": 1.0, "torch": ""}

    processes: Any = {"scratchrnn": Process(1.0), "torch": Process(1.01)}
    with pytest.raises(RuntimeError, match="not timed, the engines disagree"):
        torch_module.measure(processes, torch_module.PROBLEMS[0], "layer", 0.1)


# --- min-char-rnn


def test_min_char_rnn_end_to_end(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("so much to say, and so little time. " * 9, encoding="utf-8")
    shown = output_of("min_char_rnn", "--text", str(text), "--windows", "2", "--out", str(tmp_path / "rows"))
    row = only_row(tmp_path / "rows.jsonl")
    assert row["V"] == len(set(text.read_text(encoding="utf-8")))
    loops = row["loops"]
    assert loops["scratchrnn float64"]["first"] == pytest.approx(loops["plain NumPy"]["first"], rel=1e-12)
    assert f"{loops['plain NumPy']['p50'] / loops['scratchrnn float64']['p50']:5.2f} times as fast" in shown


def test_truncation_writes_rows_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncation, "RESULTS", tmp_path)
    monkeypatch.setattr(truncation, "STEPS", 16)
    monkeypatch.setattr(truncation, "REACH", (1, 4, 16))
    monkeypatch.setattr(
        "sys.argv", ["truncation.py", "--updates", "3", "--out", "t", "--figure", str(tmp_path / "t.png")]
    )
    truncation.main()
    found = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [(row["cell"], row["updates"]) for row in found] == [("rnn", 0), ("rnn", 3), ("lstm", 0), ("lstm", 3)]
    for row in found:
        assert row["k2"] == [1, 4, 16]
        assert row["cosine"][0] < row["cosine"][1] < row["cosine"][2] == pytest.approx(1)
    assert found[0]["cosine"] != found[1]["cosine"]
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_laboratory_writes_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(laboratory, "RESULTS", tmp_path)
    for name, value in {"STEPS": 30, "BATCH": 3, "INPUT": 4, "HIDDEN": 12, "ROUNDS": 1}.items():
        monkeypatch.setattr(laboratory, name, value)
    monkeypatch.setattr("sys.argv", ["laboratory.py", "--out", "t"])
    laboratory.main()
    lstm, rnn = (json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines())
    assert (lstm["cell"], rnn["cell"], lstm["H"]) == ("lstm", "rnn", 12)
    assert lstm["seconds"].keys() - rnn["seconds"].keys() == {"split_paths", "forget_product", "cell_hidden"}
    assert all(0 < value < 60 for row in (lstm, rnn) for value in row["seconds"].values())
    assert "forward and backward" in capsys.readouterr().out


def test_per_sample_checks_and_writes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_sample, "RESULTS", tmp_path)
    monkeypatch.setattr(per_sample, "SIZES", ((3, 7, 4, 5),))
    monkeypatch.setattr(per_sample, "ROUNDS", 1)
    monkeypatch.setattr("sys.argv", ["per_sample.py", "--out", "t"])
    threads = per_sample.torch.get_num_threads()
    per_sample.main()
    per_sample.torch.set_num_threads(threads)
    row = only_row(tmp_path / "t.jsonl")
    assert (row["B"], row["T"], row["D"], row["H"]) == (3, 7, 4, 5)
    assert all(0 < seconds < 60 for seconds in row["seconds"].values())
    monkeypatch.setattr(per_sample, "with_grad_sample", lambda module, x: per_sample.one_by_one(module, 2 * x))
    with pytest.raises(SystemExit, match="grad_sample: weight_ih_l0 is wrong"):
        per_sample.main()
