"""The stub driver's two libraries, and how a child process finds them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from tests.cuda import emulator

HERE = Path(__file__).parent
PARTS = ("device.c", "memory.c", "streams.c", "kernels.c")
STRICT = (
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
)


def why_unavailable() -> str | None:
    """What is missing, or None."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install scratchrnn[cuda-check]"
    if not _header():
        return "cuda.h was not found: pip install nvidia-cuda-runtime"
    return emulator.why_unavailable() or (None if shutil.which("gcc") else "gcc builds the stub of the driver")


def _header() -> Path | None:
    packages = importlib.util.find_spec("nvidia")
    folders = [] if packages is None else list(packages.submodule_search_locations or ())
    found = [path for folder in folders for path in sorted(Path(folder).glob("cu*/include/cuda.h"))]
    return found[0] if found else None


def build(folder: Path) -> Path:
    """Compile both libraries into a folder; return it."""
    header, driver = _header(), folder / "libcuda.so.1"
    assert header is not None
    shared = ["gcc", *STRICT, "-fPIC", "-shared", "-fvisibility=hidden", f"-I{header.parent}"]
    sources = [str(HERE / part) for part in PARTS]
    subprocess.run(
        [*shared, "-Wl,-soname,libcuda.so.1", *sources, "-o", str(driver), "-ldl", "-lpthread", "-lm"], check=True
    )
    subprocess.run([*shared, str(HERE / "cublas.c"), "-o", str(folder / "libcublas.so"), str(driver)], check=True)
    (folder / "libcuda.so").symlink_to(driver.name)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """For a process that shall find the libraries of this folder."""
    root = str(HERE.parents[2])
    return os.environ | {
        "LD_LIBRARY_PATH": str(folder), "STUB_DRIVER": str(folder), "PYTHONPATH": root, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
