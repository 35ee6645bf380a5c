"""What `import scratchrnn` must not load, and that nothing of it needs torch or onnx; each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

HEAVY = ["torch", "onnx", "matplotlib", "numba.cuda", "typer", "rich", "scratchrnn.cli"]
FOREIGN = ["kernels"]  # as a top-level name it would be a second copy


def run(program: str, stdin: str = "") -> str:
    """What `program` prints last, run by a fresh interpreter at the root of the checkout."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return set(json.loads(run("import scratchrnn, sys, json; print(json.dumps(sorted(sys.modules)))")))


@pytest.mark.parametrize("name", HEAVY + FOREIGN)
def test_import_scratchrnn_does_not_load(loaded: set[str], name: str) -> None:
    assert "scratchrnn" in loaded
    assert name not in loaded


def module_names() -> list[str]:
    """All modules of the two packages, by the names that they are imported under."""
    files = [*ROOT.glob("scratchrnn/**/*.py"), *ROOT.glob("kernels/**/*.py")]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in files if path.name != "__main__.py"]
    names = {".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts}
    return sorted(f"scratchrnn.{name}" if name.split(".")[0] == "kernels" else name for name in names)


WITHOUT_TORCH = """
import importlib, sys
for name in ("torch", "onnx"):
    sys.modules[name] = None  # now importing it raises ImportError, as where it is not installed
for name in sys.stdin.read().split():
    importlib.import_module(name)
    print(name)
"""


def test_every_module_imports_without_torch_and_onnx() -> None:
    names = module_names()
    assert {"scratchrnn", "scratchrnn.backends", "scratchrnn.kernels.numpy.lstm"} <= set(names)
    assert run(WITHOUT_TORCH, stdin="\n".join(names)) == names[-1]
