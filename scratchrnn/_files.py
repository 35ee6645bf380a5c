"""Writing files whole: a killed run leaves the old file or the new one, never half of either."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, flush it to disk, then rename it to `path`.

    A symbolic link stays, and what it points to is replaced; a file that was there keeps its permissions. An OSError
    carries `path` as its filename, which the system leaves out where a disk is full.
    """
    try:
        _write(path, data)
    except OSError as error:
        if error.errno is not None:  # else a message of our own
            error.filename, error.filename2 = str(path), None
        raise


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    as_is = getattr(os, "O_BINARY", 0)  # Windows would write line ends of its own
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | as_is, 0o666)  # the system applies the umask
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, target.stat().st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, so that a file renamed in it survives a loss of power."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and the system sees to it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporaries(folder: Path, name: re.Pattern[str]) -> None:
    """Remove what killed calls of `write_atomically` left in `folder` of files whose whole name matches.

    Only where no other process writes such files: what it is about to rename would be gone.
    """
    for path in folder.iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if found and name.fullmatch(found["name"]):
            path.unlink(missing_ok=True)
