"""The folder of a study: whether it may be written, and writing it whole.

    report.html  results.json  rnn.safetensors  lstm.safetensors  figures/*.svg  figures/*.png

A folder that does not exist yet is made under another name and renamed when it is complete. Into one that exists, each
file is moved whole, results.json last; files that are not of a study are left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scratchrnn.study.record import FORMAT
from scratchrnn.study.results import Results

RESULTS = "results.json"
FIGURES = "figures"


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study: a results.json that says so."""
    try:
        entry = json.loads((folder / RESULTS).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(entry, dict) and entry.get("format") == FORMAT


def check_folder(folder: Path, *, force: bool = False) -> None:
    """Refuse a folder that cannot be written, or that holds something else than a study; nothing stays behind.

    Raises
    ------
    FileExistsError
        It is a file, or it is neither empty nor a study and `force` is False.
    OSError
        It cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder to write to; got a file")
    if folder.is_dir() and any(folder.iterdir()) and not is_study(folder) and not force:
        raise FileExistsError(f"{folder}: holds files that are not of a study; choose another --out, or give --force")
    there = folder
    while not there.exists():
        there = there.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".scratchrnn-", dir=there))
    except OSError as error:
        raise type(error)(f"{folder}: cannot be written: {error.strerror}") from None


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
    staging = (folder if inside else folder.parent) / f".scratchrnn-{os.getpid()}"
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
    if not is_study(folder):
        return []
    listed = json.loads((folder / RESULTS).read_bytes()).get("files")
    names = listed if isinstance(listed, list) else []
    return [name for name in names if isinstance(name, str) and Path(name).parent == Path(FIGURES)]
