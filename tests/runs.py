"""Runs of `scratchrnn train` in the current folder, for the tests of that command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from scratchrnn.cli import main
from scratchrnn.models import CharModel
from scratchrnn.train import NATS_PER_BIT, evaluate

ROOT = Path(__file__).resolve().parents[1]
TEXT = "The cat sat on the mat, and the dog lay by the fire; rain fell.\n" * 60  # 3840 characters
SMALL = ("--hidden", "8", "--embedding", "4", "--batch", "4", "--k1", "10", "--backend", "numpy")
RUN = {"config.toml", "log.jsonl", "best.safetensors", "model.safetensors"}


def tree(folder: str | Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def bits_of(path: str) -> float:
    """What a model reaches on the last tenth of TEXT."""
    model = CharModel.load(path)
    return evaluate(model, model.vocabulary.encode(TEXT[-384:])) / NATS_PER_BIT


def log(out: str) -> list[dict[str, Any]]:
    """Without the figures that no two runs share."""
    times = {"seconds", "items_per_second"}
    lines = Path(out, "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in times} for line in lines]


def train(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def trained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = train(capsys, *arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = {name: Path(name).read_bytes() for name in tree(".")}
    code, out, err = train(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert {name: Path(name).read_bytes() for name in tree(".")} == before
    return err.removeprefix("error: ")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "scratchrnn", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}
