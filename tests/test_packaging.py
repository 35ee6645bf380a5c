"""House rules that break unseen: what the wheel holds, who imports whom, one version, docstrings."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest

import scratchrnn

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {
    "scratchrnn": "scratchrnn",
    "kernels": "scratchrnn.kernels",
}  # folder -> the package it is imported as
CACHES = ["__pycache__", "*.nbi", "*.nbc"]

# A module imports from its own level and from those above it in this table, never from one below.
LEVELS = [
    {"_files", "_fma", "memory", "_mt19937", "_torch_normal", "_typing", "_validate", "init", "rng"},
    {"backends"},
    {"layers", "nonfinite", "trace"},
    {"bptt", "checkpoint", "data", "interop", "losses", "models", "optim", "regularizers", "toy", "train"},
    {"check", "dynamics", "gradflow", "testing"},
    {"__main__", "cli", "plots", "report", "study"},
]
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
MAX_LINES = 450  # about 400: one idea per file


def shipped_files() -> dict[str, Path]:
    """Every file of the two folders, by its place in the wheel."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and not any(part.match(cache) for part in [path, path.parent] for cache in CACHES):
                place = Path(*package.split("."), path.relative_to(ROOT / folder))
                found[place.as_posix()] = path
    return found


def modules() -> dict[str, Path]:
    """Every Python file of the two folders, by the name it is imported under."""
    places = {place: path for place, path in shipped_files().items() if path.suffix == ".py"}
    return {
        place.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for place, path in places.items()
    }


MODULES = modules()
KERNELS = {name: path for name, path in MODULES.items() if f"{name}.".startswith("scratchrnn.kernels.")}
OURS = {name: path for name, path in MODULES.items() if name not in KERNELS}


class Import(NamedTuple):
    module: str  # absolute
    name: str  # what is taken from it; "" in `import module`
    relative: bool  # written with dots

    @property
    def target(self) -> str:
        """The module meant: `from scratchrnn import data` means scratchrnn.data."""
        submodule = f"{self.module}.{self.name}"
        return submodule if submodule in MODULES else self.module


def imports(module: str, path: Path) -> Iterator[Import]:
    """Everything that a file imports, at the top, inside functions, and for type checking alike."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", relative=False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(origin, alias.name, relative=node.level > 0) for alias in node.names)


def within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


# --- what is shipped


def test_package_list_is_complete() -> None:
    with_python = {
        module if path.name == "__init__.py" else module.rpartition(".")[0] for module, path in MODULES.items()
    }
    assert sorted(with_python) == PYPROJECT["tool"]["setuptools"]["packages"]


def test_every_folder_with_python_is_a_package() -> None:
    assert {p.parent for p in MODULES.values() if not (p.parent / "__init__.py").is_file()} == set()


def wheel_differences(wheel: Path) -> list[str]:
    """How the files in a wheel differ from those of the checkout."""
    source = shipped_files()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    return [
        *(f"missing: {name}" for name in sorted(source.keys() - packed.keys())),
        *(f"foreign: {name}" for name in sorted(packed.keys() - source.keys())),
        *(f"changed: {name}" for name in packed.keys() & source.keys() if packed[name] != source[name].read_bytes()),
    ]


BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(hook: str, source: Path, into: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, hook, str(into)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


def test_sdist_and_the_wheel_from_it_hold_every_file(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns(*CACHES))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, checkout)
    sdist = build("build_sdist", checkout, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    wheel = build("build_wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path)
    assert wheel.name.startswith(f"scratchrnn-{scratchrnn.__version__}-")
    assert wheel_differences(wheel) == []


def test_typed_marker_is_there() -> None:
    assert (ROOT / "scratchrnn" / "py.typed").is_file()


def test_one_version() -> None:
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "scratchrnn.__version__"}}
    assert f"## [{scratchrnn.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# --- who imports whom


def test_kernels_are_a_leaf() -> None:
    wrong = []
    for module, path in KERNELS.items():
        for item in imports(module, path):
            outside = not item.relative and item.module.split(".")[0] in {
                "numpy",
                "numba",
                "llvmlite",
                "cuda",  # NVIDIA's own bindings
                *sys.stdlib_module_names,
            }
            inside = item.relative and within(item.target, "scratchrnn.kernels")
            if not (outside or inside):
                wrong.append(f"{module} imports {item.target}")
    assert "scratchrnn.kernels.numpy.lstm" in KERNELS
    assert wrong == []


def test_the_definition_stands_alone() -> None:
    wrong = [
        f"{module} imports {item.target}"
        for module, path in KERNELS.items()
        if within(module, "scratchrnn.kernels.numpy")
        for item in imports(module, path)
        if item.module.split(".")[0] == "numba"
        or (
            item.relative
            and not within(item.target, "scratchrnn.kernels.numpy")
            and item.target not in {"scratchrnn.kernels.blocks", "scratchrnn.kernels.memory"}
        )
    ]
    assert wrong == []


def test_only_backends_imports_kernels() -> None:
    importers = {
        module
        for module, path in OURS.items()
        for item in imports(module, path)
        if within(item.target, "scratchrnn.kernels") or within(item.target, "kernels")
    }
    by_name = {
        module
        for module, path in OURS.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ".kernels." in node.value
        if not node.value[0].isspace() and len(node.value.split()) == 1
    }
    assert importers | by_name <= {"scratchrnn.backends"}


def level(module: str) -> int:
    part = module.split(".")[1]
    assert part in LEVEL_OF, f"{module}: give scratchrnn.{part} a place in LEVELS"
    return LEVEL_OF[part]


@pytest.mark.parametrize("module", sorted(OURS.keys() - {"scratchrnn"}))
def test_arrows_point_down(module: str) -> None:
    own = level(module)
    for item in imports(module, OURS[module]):
        if item.target == "scratchrnn":
            top = own == len(LEVELS) - 1
            assert top or item.name == "__version__", f"{module} imports the whole package for {item.name!r}"
        elif within(item.target, "scratchrnn") and not within(item.target, "scratchrnn.kernels"):
            assert level(item.target) <= own, f"{module} imports upward: {item.target}"


# --- how it reads


@pytest.mark.parametrize("folder", ["scratchrnn", "kernels", "benchmarks", "tests"])
def test_files_are_short(folder: str) -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {path.relative_to(ROOT).as_posix(): n for path, n in lines.items() if n > MAX_LINES} == {}


def test_public_names_have_docstrings() -> None:
    public = {name: getattr(scratchrnn, name) for name in scratchrnn.__all__}
    things = {name: thing for name, thing in public.items() if callable(thing) or inspect.ismodule(thing)}
    assert {"RNN", "LSTM"} <= things.keys()
    assert [name for name, thing in things.items() if not (thing.__doc__ or "").strip()] == []


@pytest.mark.parametrize("module", sorted(KERNELS))
def test_doctests_of_kernels(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


# --- the tests' own footing


def test_unwritten_memory_is_nan() -> None:
    assert np.isnan(np.empty((2, 3), np.float32)).all()
    assert np.isnan(np.empty_like(np.ones(3))).all()
    assert np.empty(3, np.int64).dtype == np.int64


def test_compiled_code_may_allocate() -> None:
    @numba.njit
    def total(n: int) -> float:
        a = np.empty((n, n), np.float32)
        b = np.empty_like(a)
        a[:], b[:] = 1, 2
        return (a + b).sum()

    assert total(3) == 27.0


def test_rng_is_fixed_per_test(rng: np.random.Generator) -> None:
    assert rng.integers(2**31) == 163608882
