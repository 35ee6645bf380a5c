"""`scratchrnn info`: what this machine can do, and what stands in the way."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path
from typing import Annotated, Any

import typer

PACKAGES = ("numpy", "numba", "scipy", "matplotlib", "safetensors", "torch", "numba-cuda", "cuda-bindings")
VARIABLES = (
    "SCRATCHRNN_NUM_THREADS", "SCRATCHRNN_CACHE_DIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print versions, CPU, GPU, threads, the folder of compiled kernels, each backend and the reason if it cannot run.

    Examples:

        $ scratchrnn info
        $ scratchrnn info --json | jq .backends
        $ SCRATCHRNN_NUM_THREADS=2 scratchrnn info
    """
    facts = collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)


def collect() -> dict[str, Any]:
    """Everything that `info` prints."""
    import numpy as np

    from scratchrnn import __version__, backends

    build = np.show_config(mode="dicts") or {}
    blas = build.get("Build Dependencies", {}).get("blas", {})
    simd = build.get("SIMD Extensions", {})
    reasons = {backend.name: backend.why_unavailable() for backend in backends.known()}
    return {
        "scratchrnn": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": {
            "name": _cpu_name(),
            "cores": os.cpu_count(),
            "usable_cores": _usable_cores(),
            "features": [*simd.get("baseline", []), *simd.get("found", [])],
        },
        "blas": {"name": blas.get("name"), "version": blas.get("version"), "threads": blas_threads()},
        "threads": backends.get_num_threads(),
        "kernel_cache": _kernel_cache(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "cuda": backends.cuda_facts(),
        "backends": [
            {
                "name": backend.name,
                "devices": list(backend.devices),
                "summary": backend.summary,
                "usable": reasons[backend.name] is None,
                "why_not": reasons[backend.name],
                "default": backend.name == backends.DEFAULT,
            }
            for backend in backends.known()
        ],
    }


def _kernel_cache() -> dict[str, Any]:
    from scratchrnn import backends

    try:
        folder = backends.kernel_cache_folder()
    except OSError as error:
        return {"folder": None, "kernels": 0, "why_not": str(error)}
    return {"folder": str(folder), "kernels": sum(1 for _ in folder.glob("*.nbc")), "why_not": None}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_threads() -> int | None:
    """Threads that NumPy's OpenBLAS uses now; None where it is another library or cannot be asked."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return None
    for path in sorted(set(re.findall(r"(/\S*openblas\S*)$", maps, re.MULTILINE))):
        library = ctypes.CDLL(path)
        for name in ("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads"):
            if hasattr(library, name):
                return int(getattr(library, name)())
    return None


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    cpu, blas = facts["cpu"], facts["blas"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("scratchrnn", facts["scratchrnn"])
    table.add_row("python", f"{facts['python']} on {facts['platform']}")
    table.add_row(
        "packages", ", ".join(f"{n} {v}" if v else f"{n} not installed" for n, v in facts["packages"].items())
    )
    table.add_row("cpu", f"{cpu['name']}, {cpu['usable_cores']} of {cpu['cores']} cores usable")
    table.add_row("simd", " ".join(cpu["features"]) or "not known")
    table.add_row("threads", f"{facts['threads']} for backend numba")
    cache = facts["kernel_cache"]
    table.add_row(
        "kernel cache",
        f"{cache['folder']}, {cache['kernels']} compiled" if cache["folder"] else f"none: {cache['why_not']}",
    )
    threads = "threads not known" if blas["threads"] is None else f"{blas['threads']} threads"
    table.add_row("blas", f"{blas['name']} {blas['version']}, {threads}")
    variables = ", ".join(f"{name}={value}" for name, value in facts["environment"].items())
    table.add_row("environment", variables or f"none of {', '.join(VARIABLES)} is set")
    table.add_row("cuda", _cuda_line(facts["cuda"]))
    for n, backend in enumerate(facts["backends"]):
        state = "[green]usable[/]" if backend["usable"] else f"[red]not usable[/]: {escape(backend['why_not'])}"
        default = ", default" if backend["default"] else ""
        devices = ", ".join(backend["devices"])
        table.add_row(
            "backends" if n == 0 else "", f"{backend['name']} ({devices}{default}): {state}. {backend['summary']}"
        )
    Console(highlight=False, soft_wrap=False).print(table)


def _cuda_line(cuda: dict[str, Any]) -> str:
    devices = [f"{device['name']} (compute capability {device['compute_capability']})" for device in cuda["devices"]]
    driver = f"driver for CUDA {cuda['driver']}" if cuda["driver"] else "no driver"
    toolkit = f"toolkit {cuda['toolkit']}" if cuda["toolkit"] else "no toolkit among the packages"
    return f"{', '.join(devices) or 'no device'}; {driver}; {toolkit}"
