"""Killed at any moment, a run resumes from a whole checkpoint and ends with the bits of one undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn import checkpoint
from tests.killed import train
from tests.points import lines

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
ROOT = Path(__file__).parents[1]


def start(folder: Path, steps: int, *more: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "tests.killed", str(folder), str(steps), *map(str, more)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)


def finish(folder: Path, steps: int) -> None:
    child = start(folder, steps)
    child.communicate(timeout=300)
    assert child.returncode == 0


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_time(one) for key, one in value.items() if key not in ("seconds", "items_per_second")}
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    return value


def newest(folder: Path) -> tuple[int, dict[str, Any]]:
    found = checkpoint.Checkpoints(folder / "checkpoints").newest()
    assert found is not None
    return found


def assert_little_is_lost(folder: Path) -> None:
    """A checkpoint every 2 updates: the one before the last update that was logged is there, and whole."""
    log = folder / "log.jsonl"
    updates = (
        [line for line in log.read_bytes().splitlines(keepends=True) if b'"update"' in line] if log.exists() else []
    )
    done = max([json.loads(line)["step"] for line in updates if line.endswith(b"\n")], default=0)
    if done > 2:
        assert newest(folder)[0] >= (done - 1) // 2 * 2


def assert_same_run(got: Path, want: Path) -> None:
    """The last checkpoint (weights, optimizer, stream state, generators), the best weights and the log."""
    one, other = (newest(folder)[1] | {"log_size": None} for folder in (got, want))  # the digits of seconds differ
    assert without_time(one) == without_time(other)
    assert without_time(checkpoint.load(got / "best.safetensors")) == without_time(
        checkpoint.load(want / "best.safetensors")
    )
    assert [without_time(line) for line in lines(got)] == [without_time(line) for line in lines(want)]
    assert not list(got.rglob("*.tmp"))


def kill_at_random(folder: Path, steps: int, kills: int, seed: int) -> None:
    """Start, kill, start again; most kills while the run trains and writes, some while it starts."""
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        child = start(folder, steps)
        if rng.random() < 0.9:
            assert child.stdout is not None
            child.stdout.readline()  # it has begun to train
            time.sleep(rng.uniform(0.0, 0.1))
        else:
            time.sleep(rng.uniform(0.0, 0.4))
        child.kill()
        child.communicate()
        assert_little_is_lost(folder)
        assert child.returncode == -signal.SIGKILL, "the run had ended before: give it more steps"


@pytest.mark.parametrize(("kills", "steps"), [(5, 150), pytest.param(50, 1200, marks=pytest.mark.slow)])
def test_killed_at_random_moments(kills: int, steps: int, tmp_path: Path) -> None:
    kill_at_random(tmp_path / "killed", steps, kills, seed=kills)
    finish(tmp_path / "killed", steps)
    finish(tmp_path / "whole", steps)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize(("first", "every"), [(2, 3), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_killed_between_any_two_calls_that_touch_files(first: int, every: int, tmp_path: Path) -> None:
    """One run for each of them, killed once; 5 updates with 3 checkpoints, of which the third removes the first."""
    steps = 5
    train(tmp_path / "whole", steps)
    for call in range(first, 1000, every):
        child = start(tmp_path / str(call), steps, call)
        child.communicate(timeout=300)
        assert_little_is_lost(tmp_path / str(call))
        train(tmp_path / str(call), steps)
        assert_same_run(tmp_path / str(call), tmp_path / "whole")
        if child.returncode == 0:  # it makes no more calls
            break
        assert child.returncode == -signal.SIGKILL
    assert call > 25
