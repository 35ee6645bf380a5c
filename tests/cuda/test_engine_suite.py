"""The engine's own tests on an emulated CUDA device: some in every run, all of them with -m slow.

By hand, and with what was compiled kept from run to run (--cache-clear forgets it):

    SCRATCHRNN_TESTS_EMULATE_CUDA=1 python -m pytest -n 2 tests/test_cells.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.layers import emulated

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in (ROOT / "tests").glob("test_*.py") if "each_backend" in path.read_text("utf-8"))
SOME = {  # files, and what of them: step by step, and the persistent engines
    "test_layers_vs_torch.py": "l2-bidirectional-batch_first-lengths-nobias",
    "test_bptt_truncated.py": "tanh-3-lengths-float32 or lstm-3-lengths-float32",
}

pytestmark = emulated


def run(name: str, chosen: str, *options: str) -> str:
    """The last line of a run of one file's tests for backends, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", *options, "-k", chosen, str(ROOT / "tests" / name)]
    environment = os.environ | {"SCRATCHRNN_TESTS_EMULATE_CUDA": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", SOME)
def test_some(name: str) -> None:
    assert re.search(r"\d+ passed", run(name, SOME[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_all(name: str) -> None:
    assert re.search(r"\d+ passed", run(name, ""))
