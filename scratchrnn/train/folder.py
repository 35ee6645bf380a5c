"""The folder of a run.

log.jsonl                              every update and evaluation, see scratchrnn.train.log
best.safetensors                       {"step", "loss", "parameters"} of the best evaluation, see scratchrnn.checkpoint
checkpoints/step-00000100.safetensors  the last few, from which the run can be resumed
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from scratchrnn import __version__, checkpoint
from scratchrnn._files import remove_temporaries
from scratchrnn.checkpoint import Checkpoints
from scratchrnn.train.log import BEGINNING

LOG, BEST, CHECKPOINTS = "log.jsonl", "best.safetensors", "checkpoints"


class RunFolder:
    """Where a run keeps what it must not lose.

    Parameters
    ----------
    path : path
        Made when the run begins.
    keep : int
        Checkpoints that stay.
    """

    def __init__(self, path: str | os.PathLike[str], keep: int) -> None:
        self.path = Path(path)
        self.log, self.best = self.path / LOG, self.path / BEST
        self.checkpoints = Checkpoints(self.path / CHECKPOINTS, keep)
        self._found: list[tuple[Path, int]] | None = None  # by `find`, until the run begins

    def find(self, resume: bool) -> dict[str, Any] | None:
        """The state to go on from; None if the run begins here.

        Raises
        ------
        FileExistsError
            There is a run, and it is not to be resumed; or the path is a file, or the log not that of a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path}: expected a folder; got a file")
        self._found = self._there()
        if resume:
            found = self.checkpoints.newest()
            if found is None and self._has_foreign_log():
                raise FileExistsError(
                    f"{self.log}: expected the log of a run; this is another file, which would be lost"
                )
            return None if found is None else found[1]
        if self._found:
            raise FileExistsError(
                f"{self.path}: holds a run ({self._found[-1][0].relative_to(self.path)}); resume=True goes on with it, "
                "a new one needs another folder"
            )
        return None

    def _there(self) -> list[tuple[Path, int]]:
        """The files of a run and their sizes."""
        paths = (self.log, self.best, *self.checkpoints.paths().values())
        return [(path, path.stat().st_size) for path in paths if path.exists() and path.stat().st_size]

    def check_unchanged(self) -> None:
        """Raise FileExistsError if another run has written here between `find` and the first update."""
        if self._found is not None and self._found != self._there():
            raise FileExistsError(
                f"{self.path}: another run has written here since this one looked; resume=True goes on with it"
            )
        self._found = None

    def _has_foreign_log(self) -> bool:
        if not self.log.exists():
            return False
        with self.log.open("rb") as file:
            return not BEGINNING.startswith(file.read(len(BEGINNING)))

    def begin(self, best: dict[str, Any] | None) -> None:
        """Remove what killed runs left unfinished or made beyond their last checkpoint; nobody else may write here."""
        self.checkpoints.clean()
        remove_temporaries(self.path, re.compile(re.escape(BEST)))
        self.write_best(best)

    def write_best(self, best: dict[str, Any] | None) -> None:
        """Make the file of the best weights that of this evaluation; None: there has been none yet."""
        if best is None:
            self.best.unlink(missing_ok=True)
        else:
            checkpoint.save(self.best, best)


def versions() -> dict[str, str]:
    """Of all that the bits of a run depend on."""
    return {"scratchrnn": __version__, "numpy": np.__version__, "numba": importlib.metadata.version("numba")}


def warn_of_other_versions(made_with: dict[str, str]) -> None:
    """Say that a resumed run may differ from an undisturbed one."""
    differing = [name for name, version in versions().items() if made_with.get(name) != version]
    if differing:
        was, now = (", ".join(f"{name} {them.get(name)}" for name in differing) for them in (made_with, versions()))
        warnings.warn(
            f"resume: the run was made with {was}; this is {now}, and the last bits may come out otherwise",
            RuntimeWarning,
            stacklevel=2,
        )
