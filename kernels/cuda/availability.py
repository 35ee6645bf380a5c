"""Whether this backend can run here, and what is missing if not. Needs no numba.cuda, and makes no CUDA context."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass

INSTALL = "pip install 'scratchrnn[cuda13]' (a driver of CUDA 13) or 'scratchrnn[cuda12]'"
OLDEST = (8, 0)  # compute capability: Ampere, the first whose code is compiled and inspected in the tests
TOOLKIT = ("nvvm", "nvrtc", "nvJitLink", "cudart", "cublas")  # libraries, by the names of NVIDIA's finder
COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Found:
    """A device, as the driver describes it."""

    name: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """The driver, and what it drives."""

    version: tuple[int, int]  # the newest CUDA that it runs
    devices: tuple[Found, ...]
    error: str | None = None  # the driver's own word on why there is none


@functools.cache
def why_unavailable() -> str | None:
    """Why the backend cannot run here, with what would help; None if it can. Asked once in a process."""
    if not installed():
        return f"numba-cuda is not installed: {INSTALL}"
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return None  # Numba's simulator: kernels run in Python
    if os.environ.get("NUMBA_DISABLE_CUDA", "0") != "0":
        return "NUMBA_DISABLE_CUDA is set: unset it"
    return _why_no_device(driver()) or _why_no_toolkit()


def installed() -> bool:
    """Whether numba-cuda is; the numba.cuda inside Numba itself is another, and will not do."""
    return importlib.util.find_spec("numba_cuda") is not None


@functools.cache
def driver() -> Driver | None:
    """What NVIDIA's driver says of itself; None where its library cannot be loaded."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    version = number.value // 1000, number.value % 1000 // 10
    status = library.cuInit(0)
    if status:
        return Driver(version, (), _status_name(library, status))
    library.cuDeviceGetCount(ctypes.byref(number))
    return Driver(version, tuple(_describe(library, ordinal) for ordinal in range(number.value)))


def _status_name(library: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    library.cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {status}"


def _describe(library: ctypes.CDLL, ordinal: int) -> Found:
    device, number, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(128)
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetName(name, len(name), device)
    capability = []
    for attribute in COMPUTE_CAPABILITY:
        library.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(number.value)
    return Found(name.value.decode(), (capability[0], capability[1]))


def _why_no_device(found: Driver | None) -> str | None:
    if found is None:
        return "no NVIDIA driver was found (libcuda.so.1): install one, or run where there is a GPU"
    newest, needed = ".".join(map(str, found.version)), toolkit_major()
    if needed is not None and found.version[0] < needed:
        return (
            f"the NVIDIA driver runs CUDA up to {newest}, and the packages installed are for CUDA {needed}: update the "
            f"driver, or pip install 'scratchrnn[cuda{found.version[0]}]'"
        )
    if found.error is not None:
        return f"the NVIDIA driver (CUDA {newest}) gives no device: {found.error}; nvidia-smi may say more"
    if not found.devices:
        return f"the NVIDIA driver (CUDA {newest}) shows no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES"
    first = found.devices[0]
    if first.compute_capability < OLDEST:
        has, needs = (".".join(map(str, capability)) for capability in (first.compute_capability, OLDEST))
        return (
            f"{first.name} has compute capability {has}, and at least {needs} is needed; CUDA_VISIBLE_DEVICES chooses "
            "another device"
        )
    return None


def toolkit_major() -> int | None:
    """CUDA's major version that the installed packages are for."""
    try:
        return int(importlib.metadata.version("cuda-bindings").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def _why_no_toolkit() -> str | None:
    missing = [name for name in TOOLKIT if not _loads(name)]
    if not missing:
        return None
    return f"parts of the CUDA toolkit were not found: {', '.join(missing)}: {INSTALL}"


def _loads(name: str) -> bool:
    from cuda import pathfinder

    try:
        pathfinder.load_nvidia_dynamic_lib(name)
    except (RuntimeError, OSError):  # not found, or found and broken
        return False
    return True


def describe() -> dict[str, object]:
    """For `scratchrnn info`: the driver, the devices, the toolkit that is installed."""
    found = driver()
    return {
        "driver": None if found is None else ".".join(map(str, found.version)),
        "devices": [
            {"name": device.name, "compute_capability": ".".join(map(str, device.compute_capability))}
            for device in (found.devices if found else ())
        ],
        "toolkit": toolkit_version(),
    }


def toolkit_version() -> str | None:
    """Version of the CUDA toolkit installed as packages; None where it is the system's, or there is none."""
    try:
        return importlib.metadata.version("cuda-toolkit")
    except importlib.metadata.PackageNotFoundError:
        return None
