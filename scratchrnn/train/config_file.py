"""The file of a run's settings: TOML, one table for each kind of setting, read strictly and written in full.

    [model]
    cell = "lstm"  # rnn or lstm.
    hidden = 256  # Hidden units of each layer.
    ...

What a file leaves out has its default. What is absent in a whole configuration is written as a comment.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scratchrnn._validate import describe
from scratchrnn.train.config import SETTINGS, TABLES, Config, check_setting


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings that a file gives, each checked by itself; `Config` takes them.

    A relative `file` is looked for from the folder of the file that names it.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        There is no such file, it is a folder, or it may not be read.
    ValueError
        It is not TOML (the message says where), or it has an unknown table or key; the message names the known ones.
    TypeError, ValueError
        A value is of another type than the setting, or out of its bounds.
    """
    path = Path(path)
    tables = _parse(path)
    settings: dict[str, Any] = {}
    for table, entries in tables.items():
        _check_table(path, table, entries)
        for name, value in entries.items():
            _check_name(path, table, name)
            try:
                settings[name] = check_setting(name, value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{path}: [{table}] {error}") from None
    if settings.get("file"):
        settings["file"] = str(path.parent / settings["file"])
    return settings


def _parse(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a TOML file; got a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise type(error)(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8; got byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None


def _check_table(path: Path, table: str, entries: Any) -> None:
    if table in SETTINGS and table not in TABLES:
        raise ValueError(f"{path}: {table}: expected within [{SETTINGS[table].table}]")
    if table not in TABLES:
        raise ValueError(f"{path}: [{table}]: no such table{_near(table, TABLES)}; known: {', '.join(TABLES)}")
    if not isinstance(entries, dict):
        raise TypeError(f"{path}: {table}: expected a table, [{table}]; got {describe(entries)}")


def _check_name(path: Path, table: str, name: str) -> None:
    known = [key for key, setting in SETTINGS.items() if setting.table == table]
    if name in SETTINGS and name not in known:
        raise ValueError(f"{path}: [{table}] {name}: expected within [{SETTINGS[name].table}]")
    if name not in SETTINGS:
        raise ValueError(
            f"{path}: [{table}] {name}: no such setting{_near(name, SETTINGS)}; known in [{table}]: {', '.join(known)}"
        )


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {found[0]}?" if found else ""


def to_toml(config: Config) -> str:
    """All settings of a run as the text of a file that `read_settings` reads back as they are.

    Examples
    --------
    >>> print(to_toml(Config(steps=100, clip=float("inf"))).splitlines()[6])
    hidden = 256  # Hidden units of each layer.
    """
    lines = []
    for table in TABLES:
        lines += [f"[{table}]", *(_line(config, name) for name in SETTINGS if SETTINGS[name].table == table), ""]
    return "\n".join(lines)


def _line(config: Config, name: str) -> str:
    value = getattr(config, name)
    if value is None:
        return f"# {name}: {SETTINGS[name].meaning}"
    return f"{name} = {_literal(value)}  # {SETTINGS[name].meaning}"


def _literal(value: bool | int | float | str) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # JSON's strings are TOML's, the character DEL excepted
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
