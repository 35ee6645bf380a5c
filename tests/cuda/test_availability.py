"""Why the backend cannot run, in words: each thing that can be missing, and the same sentence wherever it is asked."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.kernels.cuda import availability
from scratchrnn.kernels.cuda.availability import Driver, Found

ROOT = Path(__file__).parents[2]
H100 = Found("NVIDIA H100", (9, 0))
OLD = Found("Tesla T4", (7, 5))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine on which the backend runs, but for what the test takes away."""

    def having(
        driver: Driver | None = Driver((13, 0), (H100,)),  # noqa: B008
        installed: bool = True,
        toolkit: int | None = 13,
        missing: tuple[str, ...] = (),
    ) -> str | None:
        for variable in ("NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_CUDA"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(availability, "installed", lambda: installed)
        monkeypatch.setattr(availability, "driver", lambda: driver)
        monkeypatch.setattr(availability, "toolkit_major", lambda: toolkit)
        monkeypatch.setattr(availability, "_loads", lambda name: name not in missing)
        return availability.why_unavailable.__wrapped__()

    return having


def test_nothing_missing(machine: Any) -> None:
    assert machine() is None
    assert machine(toolkit=None) is None
    assert machine(driver=Driver((13, 0), (Found("NVIDIA A100", (8, 0)),))) is None
    assert machine(driver=Driver((13, 1), (H100, OLD))) is None  # the first device counts
    assert machine(driver=Driver((13, 0), (H100,)), toolkit=12) is None  # a newer driver runs older code


INSTALL = "pip install 'scratchrnn[cuda13]' (a driver of CUDA 13) or 'scratchrnn[cuda12]'"
SAID: list[tuple[dict[str, Any], str]] = [
    ({"installed": False, "driver": None}, f"numba-cuda is not installed: {INSTALL}"),
    ({"driver": None}, "no NVIDIA driver was found (libcuda.so.1): install one, or run where there is a GPU"),
    (
        {"driver": Driver((12, 4), (H100,))},
        (
            "the NVIDIA driver runs CUDA up to 12.4, and the packages installed are for CUDA 13: update the driver, or "
            "pip install 'scratchrnn[cuda12]'"
        ),
    ),
    (
        {"driver": Driver((13, 0), (), "CUDA_ERROR_NO_DEVICE")},
        "the NVIDIA driver (CUDA 13.0) gives no device: CUDA_ERROR_NO_DEVICE; nvidia-smi may say more",
    ),
    (
        {"driver": Driver((13, 0), ())},
        "the NVIDIA driver (CUDA 13.0) shows no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES",
    ),
    (
        {"driver": Driver((13, 0), (OLD, H100))},
        "Tesla T4 has compute capability 7.5, and at least 8.0 is needed; CUDA_VISIBLE_DEVICES chooses another device",
    ),
    (
        {"missing": ("nvJitLink", "cublas")},
        f"parts of the CUDA toolkit were not found: nvJitLink, cublas: {INSTALL}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("without", "said"), SAID)
def test_each_thing_that_can_be_missing(machine: Any, without: dict[str, Any], said: str) -> None:
    assert machine(**without) == said


def test_environment(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(driver=None) is not None
    monkeypatch.setenv("NUMBA_DISABLE_CUDA", "1")
    assert availability.why_unavailable.__wrapped__() == "NUMBA_DISABLE_CUDA is set: unset it"
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert availability.why_unavailable.__wrapped__() is None
    monkeypatch.setattr(availability, "installed", lambda: False)
    assert "not installed" in availability.why_unavailable.__wrapped__()


class Library:
    """libcuda, as far as it is asked."""

    def __init__(self, devices: tuple[Found, ...], status: int = 0) -> None:
        self.devices, self.status = devices, status

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13010
        return 0

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.status

    def cuGetErrorName(self, status: int, name: Any) -> int:
        name._obj.value = b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" if status == 803 else None
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.devices)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, room: int, device: Any) -> int:
        name.value = self.devices[device.value].name.encode()[: room - 1]
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self.devices[device.value].compute_capability[{75: 0, 76: 1}[attribute]]
        return 0


def test_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(library: Library) -> Driver | None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        return availability.driver.__wrapped__()

    assert ask(Library((H100, OLD))) == Driver((13, 1), (H100, OLD))
    assert ask(Library(())) == Driver((13, 1), ())
    assert ask(Library((), 803)) == Driver((13, 1), (), "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")
    assert ask(Library((), 9999)) == Driver((13, 1), (), "error 9999")


def test_the_same_reason_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = backends.REGISTRY["cuda"].why_unavailable()
    if reason is None:
        monkeypatch.setattr(availability, "why_unavailable", lambda: "no such luck")
        reason = "no such luck"
    with pytest.raises(backends.BackendUnavailableError) as raised:
        srnn.LSTM(3, 6, backend="cuda")(np.zeros((7, 5, 3), np.float32))
    assert str(raised.value) == f"backend 'cuda' cannot run here: {reason}"
    assert "cuda" not in backends.available()


def info(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "scratchrnn", "info", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_info_says_it_too() -> None:
    facts = json.loads(info("--json"))
    entry = next(entry for entry in facts["backends"] if entry["name"] == "cuda")
    assert entry["why_not"] == backends.REGISTRY["cuda"].why_unavailable()
    assert facts["cuda"] == json.loads(json.dumps(backends.cuda_facts()))
    said = " ".join(info().split())
    assert (entry["why_not"] or "cuda (cuda): usable").replace(" ", "") in said.replace(" ", "")


def test_asking_loads_no_numba_cuda() -> None:
    program = """
import sys
from scratchrnn import backends
backends.REGISTRY["cuda"].why_unavailable(), backends.cuda_facts(), backends.available()
assert "scratchrnn.kernels.cuda.availability" in sys.modules
sys.exit("numba.cuda" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120).returncode == 0
