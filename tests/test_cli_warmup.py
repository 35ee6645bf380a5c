"""`scratchrnn warmup`: after it, no process compiles; and what `scratchrnn info` says of threads and kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scratchrnn import backends

ROOT = Path(__file__).resolve().parents[1]
PASSES = ["inference", "trace", "backward", "tangents"]

# every way through a cell, in shapes that warmup does not use; prints how many functions were compiled for it
USE = """
import sys
from numba.core import event
import numpy as np
import scratchrnn as srnn
from scratchrnn.bptt import tangent, tangent_backward
from scratchrnn.kernels.cpu import plan, threads
from scratchrnn.kernels.cpu.machine import UNIT

cell, dtype = sys.argv[1:]
common = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}]
if cell == "rnn":
    layers = [srnn.RNN(7, 50, nonlinearity=n, dtype=dtype, **more) for more in common for n in ("tanh", "relu")]
else:
    layers = [srnn.LSTM(7, 50, proj_size=p, dtype=dtype, **more) for more in common for p in (0, 4)]
hidden = UNIT.lanes(np.dtype(dtype).itemsize) + 1  # shared by two threads, one of them has a single unit
one_left = (srnn.RNN if cell == "rnn" else srnn.LSTM)(7, hidden, dtype=dtype)
for weight in one_left.parameters.values():
    weight.setflags(write=False)
x = np.ones((6, 3, 7), dtype)
fixed = np.ones((6, 3, 7), dtype)
fixed.setflags(write=False)
fixed_lengths = np.array([2, 6, 1])
fixed_lengths.setflags(write=False)
linear = srnn.Linear(7, 9, dtype=dtype)
small = srnn.RNNCell(7, 9, dtype=dtype) if cell == "rnn" else srnn.LSTMCell(7, 9, dtype=dtype)
kinds, together = set(), threads.run_together

def by_units(*arguments):
    done = together(*arguments)
    kinds.add(("units", done))
    return done

def use(layer, x, lengths=None):
    layer(x, lengths=lengths)
    for kind in ("full", "minimal"):
        trace = layer.forward(x, lengths=lengths, trace=kind)
        for part in trace.layers.values():
            part.a, part.gates if cell == "lstm" else None
        for clip in (None, 0.5, np.float32(1), 2):
            layer.backward(trace, np.ones_like(trace.output), clip=clip)
    trace = layer.forward(x, lengths=lengths)
    grads = layer.backward(trace, np.ones_like(trace.output))
    tangent_backward(layer, trace, grads, tangent(layer, trace, x))
    state = trace.state
    layer(x[..., ::-1], state)
    layer.backward(layer.forward(x, state), None, state)

threads.run_together = by_units
with event.install_recorder("numba:compile") as recorder:
    for layer in layers:
        use(layer, x, np.array([2, 6, 1]) if not layer.batch_first else None)
        use(layer, fixed, fixed_lengths if not layer.batch_first else None)
        use(layer, np.moveaxis(np.ones((7, 3, 6), dtype), 0, 2).swapaxes(0, 1))
        use(layer, x[:, 0])
    small(x[0])
    small.forward(fixed[0])
    for rows in (x, fixed, x[..., ::-1], x[:1, 0]):
        linear(rows)
        linear.backward(linear.forward(rows), np.broadcast_to(np.ones(9, dtype), (*rows.shape[:-1], 9)))
    for count in (1, 3):
        srnn.set_num_threads(count)
        use(layers[0], np.ones((200, 40, 7), dtype))
        plan.LEAST_WORK = plan.LEAST_STEP = 1
        use(layers[0], x[:, :1])
        use(one_left, x[:, :1])
assert kinds == {("units", True)}, kinds
print(len(recorder.buffer))
"""

# runs what the command runs; prints the kernels that it left aside
LEFT = """
import importlib, pkgutil
import numpy as np
from scratchrnn.kernels import cpu
from scratchrnn.kernels.cpu.jit import Kernel

warmup = importlib.import_module("scratchrnn.cli.warmup")  # the name belongs to the command
names = [f"scratchrnn.kernels.cpu.{module.name}" for module in pkgutil.iter_modules(cpu.__path__)]
kernels = {k for name in names for k in vars(importlib.import_module(name)).values() if isinstance(k, Kernel)}
assert len(kernels) > 5
for dtype in (np.float32, np.float64):
    for cell in ("rnn", "lstm"):
        for _, run in warmup._passes(cell, dtype):
            run()
    print(*(f"{k.__name__} for {dtype.__name__}" for k in kernels if np.dtype(dtype) not in k._dtypes))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SCRATCHRNN_")}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"} | more


def call(cwd: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "scratchrnn", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=300)


def compiled_later(cache: Path, cell: str, dtype: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", USE, cell, dtype], env=environment(SCRATCHRNN_CACHE_DIR=str(cache)),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def warm_up_and_use(tmp_path: Path, cell: str, dtype: str) -> None:
    cache = tmp_path / "cache"
    arguments = ("warmup", "--cell", cell, "--dtype", dtype)
    done = call(tmp_path, *arguments, SCRATCHRNN_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [[cell, dtype, name] for name in PASSES]
    assert all(line.endswith("compiled") for line in lines)
    assert all(" s  " in line for line in lines)
    (folder,) = cache.iterdir()
    assert last.endswith(f"kept in {folder}")
    assert files(cache)

    before = files(cache)
    assert compiled_later(cache, cell, dtype) == 0
    done = call(tmp_path, *arguments, "--json", SCRATCHRNN_CACHE_DIR=str(cache))
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["folder"] == str(folder)
    assert [group["compiled"] for group in found["groups"]] == [0] * len(PASSES)
    assert found["seconds"] == pytest.approx(sum(group["seconds"] for group in found["groups"]))
    assert files(cache) == before


def test_after_it_nothing_is_compiled(tmp_path: Path) -> None:
    warm_up_and_use(tmp_path, "rnn", "float32")


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "dtype"), [("rnn", "float64"), ("lstm", "float32"), ("lstm", "float64")])
def test_after_it_nothing_is_compiled_either(tmp_path: Path, cell: str, dtype: str) -> None:
    warm_up_and_use(tmp_path, cell, dtype)


def test_no_kernel_is_left_aside() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT], env=environment(), capture_output=True, text=True, timeout=300
    )  # in the cache of the other tests
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_everything_is_the_default(tmp_path: Path) -> None:
    done = call(tmp_path, "warmup", "--json")  # in the cache of the other tests
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    groups = [(group["cell"], group["dtype"], group["pass"]) for group in found["groups"]]
    assert groups == [(c, d, name) for c in ("rnn", "lstm") for d in ("float32", "float64") for name in PASSES]
    assert all(group["seconds"] > 0 for group in found["groups"])


def test_help_teaches_by_example(tmp_path: Path) -> None:
    done = call(tmp_path, "warmup", "--help")
    assert done.returncode == 0
    for expected in ("$ scratchrnn warmup", "--json", "float32", "float64", "rnn", "lstm", "SCRATCHRNN_CACHE_DIR"):
        assert expected in done.stdout
    assert "warmup" in call(tmp_path, "--help").stdout


def refused(cwd: Path, *arguments: str, **more: str) -> str:
    done = call(cwd, *arguments, **more)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("arguments", [("--dtype", "float16"), ("--cell", "gru"), ("more",)])
def test_bad_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert arguments[-1] in refused(tmp_path, "warmup", *arguments)


def test_a_folder_that_cannot_be_written_is_an_error_here(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("mine")
    said = refused(tmp_path, "warmup", SCRATCHRNN_CACHE_DIR=str(blocked))
    assert f"{blocked}" in said
    assert "kernels cannot be kept there" in said


@pytest.mark.parametrize("command", ["warmup", "info", "study"])
def test_a_bad_number_of_threads_is_one_line(tmp_path: Path, command: str) -> None:
    said = refused(tmp_path, command, SCRATCHRNN_NUM_THREADS="many")
    assert said == "error: SCRATCHRNN_NUM_THREADS: expected an integer of at least 1; got 'many'\n"
    assert list(tmp_path.iterdir()) == []


def test_info_says_threads_and_cache(tmp_path: Path) -> None:
    more = {"SCRATCHRNN_NUM_THREADS": "3", "SCRATCHRNN_CACHE_DIR": str(tmp_path / "cache")}
    facts = json.loads(call(tmp_path, "info", "--json", **more).stdout)
    assert facts["threads"] == 3
    folder = tmp_path / "cache" / backends.kernel_cache_folder().name
    assert facts["kernel_cache"] == {"folder": str(folder), "kernels": 0, "why_not": None}
    assert more.items() <= facts["environment"].items()
    assert list(tmp_path.iterdir()) == [], "looking must not make the folder"
    folder.mkdir(parents=True)
    (folder / "rnn.nbc").touch()
    said = call(tmp_path, "info", **more).stdout
    assert "3 for backend numba" in said
    assert f"{folder}, 1 compiled" in said
