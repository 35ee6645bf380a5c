"""The folder of a study: whether it may be written, and writing it whole.

    report.html  results.json  rnn.safetensors  lstm.safetensors  figures/*.svg  figures/*.png

A folder that does not exist yet is made under another name and renamed when it is complete. Into one that exists, each
file is moved whole, results.json last; files that are not of a study are left alone. A complete study is not replaced
by a smaller or unfinished one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scratchrnn.study.record import FORMAT, SWEEP_FORMAT
from scratchrnn.study.results import Results

RESULTS = "results.json"
FIGURES = "figures"


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study: a results.json that says so."""
    return _record(folder).get("format") == FORMAT


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep: a results.json that says so."""
    return _record(folder).get("format") == SWEEP_FORMAT


def _record(folder: Path) -> dict[str, Any]:
    """What results.json says; empty if there is none of a study or a sweep."""
    try:
        entry = json.loads((folder / RESULTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return entry if isinstance(entry, dict) and entry.get("format") in (FORMAT, SWEEP_FORMAT) else {}


def complete_steps(folder: Path) -> int:
    """Training steps of the complete study in a folder; 0 if there is none."""
    record = _record(folder)
    steps = record.get("steps_done")
    return steps if isinstance(steps, int) and record.get("stopped") is None else 0


def check_folder(
    folder: Path, *, steps: int | None = None, force: bool = False, holds: Callable[[Path], bool] = is_study
) -> None:
    """Refuse a folder that cannot be written, or that holds what should be kept; nothing stays behind.

    What a killed process left of its writing is removed.

    Parameters
    ----------
    folder : Path
    steps : int, optional
        Training steps of the study to be written.
    force : bool
        Whether other files, and a complete study of more steps, are no reason to refuse.
    holds : callable
        What the folder may hold already: `is_study` or `is_sweep`.

    Raises
    ------
    FileExistsError
        It is a file; or `force` is False and it holds other files than a study's, or a complete study of more steps.
    OSError
        It cannot be made or written to.
    """
    try:
        _remove_stale(folder)
        _refuse_what_is_there(folder, steps, force, holds)
        _try_to_write(folder)
    except OSError as error:
        if error.errno is None:  # a message of our own
            raise
        raise type(error)(f"{folder}: cannot be written: {error.strerror}") from None


def _refuse_what_is_there(folder: Path, steps: int | None, force: bool, holds: Callable[[Path], bool]) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder to write to; got a file")
    if folder.is_dir() and any(folder.iterdir()) and not holds(folder) and not force:
        kind = "study" if holds is is_study else "sweep"
        raise FileExistsError(f"{folder}: holds files that are not of a {kind}; choose another --out, or give --force")
    there = complete_steps(folder)
    if steps is not None and there > steps and not force:
        raise FileExistsError(
            f"{folder}: holds a complete study of {there} steps, and this one has {steps}; choose another --out, "
            f"or give --force to replace it"
        )


def _try_to_write(folder: Path) -> None:
    there = folder
    while not there.exists():
        there = there.parent
    for place in (there, folder / FIGURES):
        if place == there or place.exists():
            os.rmdir(tempfile.mkdtemp(prefix=".scratchrnn-", dir=place))


def _staging(pid: int | str) -> str:
    """Named after process and machine, so that what a dead process left can be told from another's work."""
    return f".scratchrnn-{pid}@{platform.node()}"


def _remove_stale(folder: Path) -> None:
    for parent in (folder, folder.parent):
        for path in parent.glob(_staging("*")) if parent.is_dir() else ():
            found = re.match(r"\.scratchrnn-(\d+)@", path.name)
            if found and path.is_dir() and not path.is_symlink() and not _is_alive(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    """Whether another process of that number runs; where that cannot be asked, yes."""
    if pid == os.getpid():
        return False  # an earlier one's: this one has not begun to write
    try:
        if os.name == "posix":  # elsewhere signal 0 is no question
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def sibling(folder: Path) -> Path:
    """A folder beside this one that does not exist yet, for a study that ended early."""
    whole = folder.resolve()
    names = (f"{whole.name}-stopped{number}" for number in ("", *(f"-{n}" for n in range(2, 10_000))))
    return next(path for name in names if not (path := folder.parent / name).exists())


def weights(results: Results) -> dict[str, bytes]:
    """Both models as safetensors files, by name."""
    with tempfile.TemporaryDirectory() as there:
        for cell, one in results.models.items():
            one.model.save(Path(there) / f"{cell}.safetensors")
        return {path.name: path.read_bytes() for path in sorted(Path(there).iterdir())}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a study, `results.json` among them, by their paths within the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    inside = folder.is_dir()
    staging = (folder if inside else folder.parent) / _staging(os.getpid())
    staging.mkdir()
    try:
        for name, data in files.items():
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if not inside:
            staging.rename(folder)
            return
        outdated = [name for name in _figures_of(folder) if name not in files]
        (folder / FIGURES).mkdir(exist_ok=True)
        for name in sorted(files, key=lambda name: name == RESULTS):
            (staging / name).replace(folder / name)
        for name in outdated:
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _figures_of(folder: Path) -> list[str]:
    """Names of the figures that the study in this folder wrote, and no other file's."""
    listed = _record(folder).get("files")
    names = listed if isinstance(listed, list) else []
    return [name for name in names if isinstance(name, str) and Path(name).parent == Path(FIGURES)]
