"""From the layers to the driver: a process that finds a stub of libcuda.so.1; numba-cuda and the bindings are real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.driver import build, environment, why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver"))


def run(libraries: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(libraries), capture_output=True, text=True, timeout=120)


def test_scenes(libraries: Path) -> None:
    done = run(libraries, "-m", "tests.cuda.driver.scenes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("Traceback") == 1  # of the kernel that fails on purpose, and no noise at the end
    assert done.stderr.endswith("KernelFault: on purpose\n")


def test_info_names_the_device(libraries: Path) -> None:
    done = run(libraries, "-m", "scratchrnn", "info")
    assert done.returncode == 0, done.stderr
    assert "Stub of a Hopper (compute capability 9.0); driver for CUDA 13.0" in " ".join(done.stdout.split())


def test_the_hosts_tests_for_a_gpu(libraries: Path) -> None:
    """All but one, whose loops are too long for the emulator."""
    done = run(
        libraries, "-m", "pytest", "-q", "-m", "gpu", "-p", "tests.cuda.driver.attach", "-p", "no:cacheprovider",
        str(Path(__file__).with_name("test_host_on_gpu.py")), "-k", "not test_two_streams_in_order",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "stub driver" not in done.stdout
