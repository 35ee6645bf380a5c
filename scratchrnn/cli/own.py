"""`scratchrnn check --function`: a user's own functions against the definition."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from scratchrnn.cli.terminal import FAILED, InputError, user_input


def check_own(spec: str, cell: str, dtype: str | None, seed: int, as_json: bool, pointless: Sequence[str]) -> None:
    """Run the check and print it; exit code 1 if something is wrong."""
    from scratchrnn import __version__
    from scratchrnn.check import reference

    if pointless:
        raise InputError(f"{pointless[0]}: expected without --function, which brings its own code")
    # what the user's code prints must not stand in the JSON
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        forward, backward = load(spec)
        with user_input():
            report = reference(forward, backward, cell=cell, dtypes=None if dtype is None else (dtype,), seed=seed)
    if as_json:
        facts = {"ok": report.ok, "scratchrnn": __version__, "function": spec, "seed": seed, **report.to_dict()}
        typer.echo(json.dumps(facts, indent=2, allow_nan=False))
    else:
        typer.echo(f"{spec}\n{report}")
    if not report.ok:
        raise typer.Exit(FAILED)


def load(spec: str) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """The functions that FILE.py:forward,backward or module:forward,backward names."""
    place, _, listed = spec.rpartition(":")
    names = listed.split(",")
    if not place or not all(name.isidentifier() for name in names) or len(names) > 2:
        raise InputError(f"--function: expected FILE.py:forward, FILE.py:forward,backward or module:...; got {spec!r}")
    module = _module(place)
    functions = []
    for name in names:
        if not callable(getattr(module, name, None)):
            there = ", ".join(k for k, v in vars(module).items() if callable(v) and k[0] != "_") or "none"
            raise InputError(f"--function: {place} has no function {name!r}; there is {there}")
        functions.append(getattr(module, name))
    return functions[0], functions[1] if len(functions) > 1 else None


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        with _importing(place, Path.cwd()):
            return importlib.import_module(place)
    if not path.is_file():
        raise InputError(f"{place}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{place}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    with _importing(place, path.resolve().parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importing(place: str, folder: Path) -> Iterator[None]:
    """With `folder` first on the path, as for a program there; what the user's code raises becomes one line."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(f"{place}: importing it raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder))
