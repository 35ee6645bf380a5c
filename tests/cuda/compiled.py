"""What the toolkit makes of a kernel, without a GPU: PTX by numba-cuda, then ptxas and cuobjdump."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = {"sm_80": (8, 0), "sm_90a": (9, 0, "a")}


@dataclass(frozen=True)
class Code:
    """A kernel compiled for one architecture."""

    ptx: str
    sass: str
    registers: int  # of a thread
    stack: int  # bytes of a thread
    local: int  # bytes of a thread
    shared: int  # bytes of a block, those asked for at the launch left out

    def instructions(self, pattern: str) -> list[str]:
        """Those of the SASS whose name matches."""
        return [name for name in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\S*)", self.sass)
                if re.match(pattern, name)]  # fmt: skip


def kernels() -> Iterator[Any]:
    """Every kernel of the modules that list theirs."""
    package = importlib.import_module("scratchrnn.kernels.cuda")
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        yield from getattr(module, "kernels", list)()


def why_not() -> str | None:
    """What is missing, or None."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install scratchrnn[cuda13]"
    missing = [tool for tool in ("ptxas", "cuobjdump", "nvdisasm") if _tool(tool) is None]
    return f"{' and '.join(missing)} not found: pip install -e .[cuda-check]" if missing else None


def _tool(name: str) -> str | None:
    """A program of the toolkit: from NVIDIA's packages, or else on the path."""
    packages = importlib.util.find_spec("nvidia")
    folders = [] if packages is None else list(packages.submodule_search_locations or ())
    found = [str(path) for folder in folders for path in sorted(Path(folder).glob(f"*/bin/{name}"))]
    return found[0] if found else shutil.which(name)


def code(kernel: Any, architecture: str, folder: Path) -> Code:
    """Compile a kernel for an architecture."""
    ptx = kernel.ptx(ARCHITECTURES[architecture])
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(ptx)
    _run("ptxas", f"-arch={architecture}", str(source), "-o", str(cubin))
    usage = _run("cuobjdump", "--dump-resource-usage", str(cubin))
    counted = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    sass = _run("cuobjdump", "-sass", str(cubin))
    return Code(ptx, sass, counted["REG"], counted["STACK"], counted["LOCAL"], counted["SHARED"])


def _run(name: str, *arguments: str) -> str:
    tool = _tool(name)
    if tool is None:
        raise FileNotFoundError(name)
    done = subprocess.run([tool, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")
    return done.stdout
