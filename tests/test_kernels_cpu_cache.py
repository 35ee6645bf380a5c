"""Compiling: on first use and not before, kept on disk, never stale, and never in the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.kernels.cpu import jit

ROOT = Path(__file__).resolve().parents[1]

PROLOGUE = """
import json, sys, time
from numba.core import event
began = time.perf_counter()
import numpy as np
import scratchrnn as srnn

x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 2, 3)
layer = srnn.RNN(3, 4, backend="numba", rng=np.random.default_rng(0))

def compute():
    with event.install_recorder("numba:compile") as recorder:
        output = layer(x)[0]
    return {
        "output": output.tolist(), "compiled": len(recorder.buffer), "seconds": time.perf_counter() - began,
        "weights": {name: array.tolist() for name, array in layer.parameters.items()}, "x": x.tolist(),
    }
"""
COMPUTE = PROLOGUE + "print(json.dumps(compute()))"

# the smallest kernel, which compiles in a second
PACK = """
import json
from numba.core import event
import numpy as np
import scratchrnn as srnn
from scratchrnn.kernels.cpu import affine, jit

def pack(dtype):
    weight = np.arange(1, 7, dtype=dtype).reshape(2, 3)
    with event.install_recorder("numba:compile") as recorder:
        packed, (kernel, arguments) = affine.transposed(weight, 1, 2)  # its last two columns
        kernel(*arguments)
    assert packed[packed != 0].tolist() == [2, 3, 5, 6], packed
    return len(recorder.buffer)
"""


def environment(cache: Path | None, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", jit.VARIABLE)}
    return kept | ({} if cache is None else {jit.VARIABLE: str(cache)}) | more


def call(program: str, cache: Path | None, root: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment(cache, **more), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def compute(cache: Path | None, root: Path = ROOT, **more: str) -> dict[str, Any]:
    """What a new process finds."""
    found: dict[str, Any] = json.loads(call(COMPUTE, cache, root, **more).stdout)
    return found


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def recurrence(found: dict[str, Any], nonlinearity: Callable[[Any], Any]) -> np.ndarray:
    """The layer of PROLOGUE, written again."""
    w = {name: np.array(value) for name, value in found["weights"].items()}
    h, out = np.zeros((2, 4)), []
    for x_t in np.array(found["x"]):
        a = x_t @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        h = nonlinearity(a)
        out.append(h)
    return np.array(out)


def assert_computes(found: dict[str, Any], nonlinearity: Callable[[Any], Any] = np.tanh) -> None:
    assert np.abs(np.array(found["output"]) - recurrence(found, nonlinearity)).max() < 1e-6


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one process has filled."""
    cache = tmp_path_factory.mktemp("cache") / "made" / "as needed"
    found = compute(cache)
    assert found["compiled"] > 0
    assert_computes(found)
    assert files(cache)
    return cache


# --- when


def test_importing_the_package_does_not_import_numba() -> None:
    program = "import scratchrnn, sys; scratchrnn.set_num_threads(2); print('numba' in sys.modules)"
    assert call(program, None).stdout == "False\n"


def test_importing_a_kernel_compiles_nothing(tmp_path: Path) -> None:
    program = PROLOGUE + (
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    import scratchrnn.kernels.cpu.lstm, scratchrnn.kernels.cpu.rnn\n"
        "    srnn.use_backend('numba').__enter__()\n"
        "print(len(recorder.buffer))"
    )
    assert call(program, tmp_path / "cache").stdout == "0\n"
    assert not (tmp_path / "cache").exists()


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one kernel, compiled on first use for each dtype and not again."""
    cache = tmp_path_factory.mktemp("cache")
    program = PACK + "print(json.dumps([pack(d) for d in (np.float32, np.float32, np.float64, np.float64)]))"
    first, again, wide, wide_again = json.loads(call(program, cache).stdout)
    assert first > 0
    assert wide > 0
    assert (again, wide_again) == (0, 0)
    return cache


def test_compiles_on_first_use_and_once(packed_once: Path) -> None:
    assert files(packed_once)


# --- where


def test_the_folder_is_the_one_named_or_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jit.VARIABLE, str(tmp_path / "named"))
    named = jit.cache_folder()
    assert named.parent == tmp_path / "named"
    assert numba.__version__ in named.name
    assert jit.source_hash() in named.name
    assert backends.kernel_cache_folder() == named
    monkeypatch.setenv(jit.VARIABLE, "")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
        assert jit.cache_folder() == tmp_path / "users" / "scratchrnn" / named.name
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert jit.cache_folder() == tmp_path / "home" / ".cache" / "scratchrnn" / named.name


def test_everything_is_written_into_one_folder(filled: Path) -> None:
    (folder,) = filled.iterdir()
    assert folder.name == jit.cache_folder().name
    assert {path.suffix for path in folder.iterdir()} <= {".nbi", ".nbc"}


# --- again


def test_a_second_process_loads_what_the_first_compiled(filled: Path) -> None:
    before = files(filled)
    seconds = []
    for _ in range(3):  # the machine may be busy once
        found = compute(filled)
        assert found["compiled"] == 0
        assert_computes(found)
        seconds.append(found["seconds"])
        if seconds[-1] < 1.5:
            break
    assert min(seconds) < 1.5, "from the import to the first result"
    assert files(filled) == before


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, to be edited."""
    for name in ("scratchrnn", "kernels"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


OTHER_TANH = """

from numba import njit as _njit


@_njit
def tanh(x):
    return x / 4
"""


def test_an_edited_helper_never_runs_stale(copy: Path, filled: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(filled, cache)
    before = compute(cache, copy)
    assert before["compiled"] == 0, "the copy has the same sources: it must find what the original compiled"
    assert_computes(before)

    helper = copy / "kernels" / "cpu" / "activations.py"
    assert "\ndef tanh(" in helper.read_text(encoding="utf-8")
    helper.write_text(helper.read_text(encoding="utf-8") + OTHER_TANH, encoding="utf-8")
    stat = (ROOT / "kernels" / "cpu" / "activations.py").stat()
    os.utime(helper, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as old as it was: a date is no proof
    after = compute(cache, copy)
    assert after["compiled"] > 0
    assert_computes(after, lambda a: a / 4)

    helper.write_text((ROOT / "kernels" / "cpu" / "activations.py").read_text(encoding="utf-8"), encoding="utf-8")
    back = compute(cache, copy)
    assert back["compiled"] == 0
    assert back["output"] == before["output"]


def test_any_source_changes_the_folder(copy: Path) -> None:
    folder = copy / "kernels" / "cpu"
    sources = sorted(folder.glob("*.py"))
    assert {"gemm.py", "activations.py", "simd.py", "lstm_loops.py"} <= {path.name for path in sources}
    seen = {jit.source_hash(folder)}
    assert seen == {jit.source_hash()}
    for path in sources:
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(jit.source_hash(folder))
    sources[0].rename(folder / "renamed.py")
    seen.add(jit.source_hash(folder))
    assert len(seen) == len(sources) + 2


def test_what_is_compiled_in_from_outside_changes_the_folder(copy: Path) -> None:
    """Numbers of `kernels/blocks.py` are constants of the compiled code."""
    folder = copy / "kernels" / "cpu"
    blocks = folder.parent / "blocks.py"
    before = jit.source_hash(folder)
    blocks.write_text(blocks.read_text(encoding="utf-8").replace("SUM_ROWS = 128", "SUM_ROWS = 64"), encoding="utf-8")
    assert jit.source_hash(folder) != before


def test_two_processes_may_fill_one_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = PACK + "print(json.dumps([pack(np.float32), pack(np.float64)]))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, env=environment(cache), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    with both[0], both[1]:
        found = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert max(found) > [0, 0]
    assert json.loads(call(program, cache).stdout) == [0, 0]


SLOW_TO_SAVE = """
import os, sys, time
from pathlib import Path
suffix, flags = sys.argv[1], Path(sys.argv[2])
replace = os.replace

def slowly(source, target):
    if str(target).endswith(suffix):
        (flags / f"at {suffix}").touch()
        patience = time.monotonic() + 60
        while not (flags / f"past {suffix}").exists() and time.monotonic() < patience:
            time.sleep(0.01)
    replace(source, target)

os.replace = slowly
"""


def test_two_dtypes_saved_at_once_are_kept_apart(tmp_path: Path) -> None:
    """Two processes save one kernel, each for a dtype of its own, in the worst order that Numba's files allow."""
    cache = tmp_path / "cache"

    def saving(dtype: str, suffix: str) -> subprocess.Popen[bytes]:
        """A process that compiles, and waits before it puts a file of this kind in its place."""
        program = PACK + SLOW_TO_SAVE + f"pack(np.{dtype})"
        arguments = [sys.executable, "-c", program, suffix, str(tmp_path)]
        process = subprocess.Popen(arguments, cwd=ROOT, env=environment(cache))
        while not (tmp_path / f"at {suffix}").exists() and process.poll() is None:
            time.sleep(0.01)
        return process

    with saving("float32", ".nbi") as index, saving("float64", ".nbc") as data:
        for process, suffix in ((index, ".nbi"), (data, ".nbc")):
            (tmp_path / f"past {suffix}").touch()
            assert process.wait(60) == 0
    call(PACK + "pack(np.float32), pack(np.float64)", cache)  # checks the values


# --- what goes wrong


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    cache = tmp_path / "a file"
    cache.write_text("mine")
    done = call(COMPUTE, cache)  # two kernels: one packs, one runs
    assert_computes(json.loads(done.stdout))
    said = [line for line in done.stderr.splitlines() if "cannot be written" in line]
    assert len(said) == 1
    assert said[0].startswith(f"scratchrnn: the kernel cache {cache}")
    assert jit.VARIABLE in said[0]
    assert cache.read_text() == "mine"


@pytest.mark.parametrize("kept", [0, 100], ids=["empty", "cut short"])
def test_a_damaged_cache_is_compiled_anew(tmp_path: Path, packed_once: Path, kept: int) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(packed_once, cache)
    for path in cache.glob("*/*.nbc"):
        path.write_bytes(path.read_bytes()[:kept])  # as after a power cut
    program = PACK + "print(pack(np.float32))"
    assert int(call(program, cache).stdout) > 0
    assert int(call(program, cache).stdout) == 0, "the damage is not repaired"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to play a full disk with")
def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    full = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    )
    done = call(PACK + full + "print([pack(np.float32) > 0, pack(np.float64) > 0])", tmp_path / "cache")
    assert done.stdout == "[True, True]\n"
    assert done.stderr.count("cannot be written") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="homes are found in another way there")
def test_a_user_without_a_home_can_compute(tmp_path: Path) -> None:
    homeless = (
        "import os, pwd\n"
        "os.environ.pop('HOME', None), os.environ.pop('XDG_CACHE_HOME', None)\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"  # as in a container with --user 12345
    )
    assert call(PACK + homeless + "print(pack(np.float32) > 0)", None).stdout == "True\n"


def test_a_long_compile_says_so(tmp_path: Path, filled: Path) -> None:
    said = call(PACK + "jit.NOTICE_AFTER = 0\npack(np.float32)", tmp_path / "cache").stderr.splitlines()
    assert len(said) == 2
    assert said[0].startswith("scratchrnn: compiling affine.pack_transposed for float32")
    assert said[1].startswith("scratchrnn: compiled in ")
    quiet = call(COMPUTE, filled)
    assert quiet.stderr == ""


def test_the_line_comes_while_it_compiles(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jit, "NOTICE_AFTER", 0.05)
    said, patience = "", time.monotonic() + 30
    with jit.Notice("something long"):
        while not said and time.monotonic() < patience:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert said.startswith("scratchrnn: compiling something long")
    assert re.fullmatch(r"scratchrnn: compiled in \d+\.\d s\n", capsys.readouterr().err)
    monkeypatch.setattr(jit, "NOTICE_AFTER", 0.5)
    with jit.Notice("something short"):
        pass
    time.sleep(0.7)
    assert capsys.readouterr().err == ""
