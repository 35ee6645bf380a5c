"""Several studies that differ in one setting, and what is compared between them.

results.json of a sweep
format, version       "scratchrnn-sweep", 1
created               UTC, ISO 8601
stopped               null, or why the sweep ended early
parameter, values     the setting, and its values in the order given
text, seconds         name of the text; wall time, all together
studies               one for each value that was reached: value, folder, what `record.summary` says, and as out and
                      report where the command wrote it
files                 of the sweep itself; each study's folder has its own results.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scratchrnn._validate import describe
from scratchrnn.study.record import SWEEP_FORMAT, plain
from scratchrnn.study.settings import Settings

VERSION = 1
# what may be varied: the name on the command line, and that in Settings
PARAMETERS = {
    "hidden": "hidden_size", "embedding": "embedding_size", "steps": "steps", "window": "window", "batch": "batch",
    "seed": "seed", "learning-rate": "learning_rate",
}  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """Which setting takes which values.

    Attributes
    ----------
    parameter : str
        One of `PARAMETERS`.
    values : tuple of int or float
        At least two, all different.
    """

    parameter: str
    values: tuple[int | float, ...]

    @classmethod
    def parse(cls, text: str) -> Sweep:
        """Read "hidden=32,64,128".

        Raises
        ------
        ValueError
            Another form, an unknown setting, or values that are no numbers or fewer than two different ones.

        Examples
        --------
        >>> Sweep.parse("hidden=32,64,128")
        Sweep(parameter='hidden', values=(32, 64, 128))
        """
        if not isinstance(text, str):
            raise TypeError(f"sweep: expected a string; got {describe(text)}")
        parameter, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values:
            raise ValueError(f"sweep: expected a setting and its values, as in hidden=32,64,128; got {text!r}")
        if parameter not in PARAMETERS:
            raise ValueError(f"sweep: expected one of {', '.join(PARAMETERS)}; got {parameter!r}")
        number = float if parameter == "learning-rate" else int
        try:
            found = tuple(number(value) for value in values.split(","))
        except ValueError:
            raise ValueError(f"sweep: expected numbers after {parameter}=, between commas; got {values!r}") from None
        if len(found) < 2 or len(set(found)) < len(found):
            raise ValueError(f"sweep: expected at least two values of {parameter}, all different; got {values!r}")
        return cls(parameter, found)

    def settings(self, base: Settings) -> list[Settings]:
        """The settings of each study."""
        return [replace(base, **{PARAMETERS[self.parameter]: value}) for value in self.values]  # type: ignore[arg-type]

    def folder(self, value: float) -> str:
        """Name of the folder of one study."""
        return f"{self.parameter}-{value}"


@dataclass
class Comparison:
    """A sweep, whole or as far as it came.

    Attributes
    ----------
    sweep : Sweep
    studies : dict of value to summary
        As `record.summary` gives it, of each study that was reached; with `out`, the folder that it was written to.
    text_name : str
    cells : tuple of str
    seconds : float
    stopped : str or None
    """

    sweep: Sweep
    text_name: str
    cells: tuple[str, ...]
    studies: dict[int | float, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str | None = None

    def values_of(self, cell: str, key: str) -> list[Any]:
        """One headline number of a model, by study; None where it was not reached."""
        return [found["models"][cell][key] for found in self.studies.values()]

    def folder(self, value: float) -> str:
        """Name of a study's folder: another than the sweep's where a complete study was in the way of a stopped one."""
        return Path(self.studies[value].get("out", self.sweep.folder(value))).name


def sweep_json(comparison: Comparison, files: Iterable[str]) -> bytes:
    """The text of the sweep's results.json."""
    sweep = comparison.sweep
    record = {
        "format": SWEEP_FORMAT,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "stopped": comparison.stopped,
        "parameter": sweep.parameter,
        "values": sweep.values,
        "text": comparison.text_name,
        "seconds": comparison.seconds,
        "studies": [
            {"value": value, "folder": comparison.folder(value), **found} for value, found in comparison.studies.items()
        ],
        "files": sorted(files),
    }
    return (json.dumps(plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
