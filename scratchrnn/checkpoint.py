"""Checkpoints: everything that moves in a run, in one safetensors file. Loading one executes no code.

    arrays              by dotted name, bit for bit:      optimizer.exp_avg.rnn.weight_ih_l0
    everything else     as JSON in the file's metadata:   {"step": 100, "optimizer": {"exp_avg.rnn.…": {"$array": "…"}}}

A state is a tree: dicts with names as keys; lists; at the leaves arrays, None, bool, int of any size, float and str. It
comes back as it was: integers exactly (the 128 bits of a PCG64 generator too), floats to the bit, infinity and NaN as
{"$float": "inf"} since JSON has none. What would come back as something else (a tuple, a NumPy scalar) is refused.

metadata["scratchrnn-checkpoint"] holds {"version", "state", "sha256"}; the digest covers the state and all arrays, so
that a damaged file is told from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn._files import remove_temporaries, write_atomically
from scratchrnn._validate import check_int, check_positive_int, describe
from scratchrnn.layers.module import Module, read_safetensors
from scratchrnn.rng import Rng, TorchGenerator, check_rng

__all__ = [
    "Checkpoints",
    "generator_state",
    "generator_states",
    "generators",
    "load",
    "save",
    "set_generator_state",
    "set_generator_states",
]

FORMAT = "scratchrnn-checkpoint"  # key of the safetensors metadata
VERSION = 1
ARRAY, FLOAT = "$array", "$float"
KINDS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")

Array = NDArray[Any]


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state, whole or not at all.

    Parameters
    ----------
    path : path
        A file that is there is replaced, in one step.
    state : dict
        A tree as the module describes. Arrays of bool, integers, float32 or float64.

    Raises
    ------
    TypeError, ValueError
        A key or a leaf that would not come back as it was; the message says where in the tree it stands.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     save(path, {"step": 7, "rng": generator_state(rng), "weights": {"w": np.arange(3.0)}})
    ...     state = load(path)
    >>> state["step"], state["weights"]["w"], state["rng"] == generator_state(rng)
    (7, array([0., 1., 2.]), True)
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, Array] = {}
    text = json.dumps(_encode(_check_tree(state), (), arrays), allow_nan=False)
    entry = {"version": VERSION, "sha256": _digest(text, arrays), "state": text}
    write_atomically(path, to_bytes(arrays, {FORMAT: json.dumps(entry)}))


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a state that `save` wrote.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no checkpoint, of a later version, or damaged.
    """
    arrays, metadata = read_safetensors(path)
    if FORMAT not in metadata:
        raise ValueError(f"{path}: expected a checkpoint; this safetensors file has no {FORMAT} metadata")
    try:
        entry = json.loads(metadata[FORMAT])
        version, text, digest = entry["version"], str(entry["state"]), entry["sha256"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path}: damaged: its metadata is not that of a checkpoint") from None
    if version != VERSION:
        raise ValueError(f"{path}: expected a checkpoint of version {VERSION}; got version {version}")
    if digest != _digest(text, arrays):
        raise ValueError(f"{path}: damaged: its content does not have the digest that was written with it")
    state: dict[str, Any] = _decode(json.loads(text), arrays)
    return state


def _check_tree(state: Any) -> dict[str, Any]:
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dict; got {describe(state)}")
    return dict(state)


def _encode(value: Any, path: tuple[str, ...], arrays: dict[str, Array]) -> Any:
    """The JSON of a subtree; its arrays go into `arrays`."""
    where = ".".join(path) or "state"
    if isinstance(value, np.ndarray):
        if value.dtype.name not in KINDS or not value.dtype.isnative:
            raise TypeError(f"{where}: expected an array of {', '.join(KINDS)}; got dtype {value.dtype}")
        if where in arrays:
            raise ValueError(f"{where}: two arrays of the state have this dotted name")
        arrays[where] = np.array(value, order="C", subok=False)
        return {ARRAY: where}
    if type(value) is dict:
        for key in value:
            if type(key) is not str or key.startswith("$"):
                raise TypeError(f"{where}: expected names that do not begin with $ as keys; got {describe(key)}")
        return {key: _encode(one, (*path, key), arrays) for key, one in value.items()}
    if type(value) is list:
        return [_encode(one, (*path, str(n)), arrays) for n, one in enumerate(value)]
    if type(value) is float and not math.isfinite(value):
        return {FLOAT: repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{where}: expected an array, dict, list, None, bool, int, float or str; got {describe(value)}")


def _decode(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return [_decode(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    if ARRAY in value:
        return arrays[value[ARRAY]]
    if FLOAT in value:
        return float(value[FLOAT])
    return {key: _decode(one, arrays) for key, one in value.items()}


def _digest(text: str, arrays: Mapping[str, Array]) -> str:
    """SHA-256 of everything in a checkpoint, as hexadecimal digits."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# Generators


def generator_state(rng: Rng) -> dict[str, Any]:
    """Where a generator stands, as a tree that `save` takes.

    Parameters
    ----------
    rng : numpy.random.Generator or TorchGenerator
    """
    if isinstance(check_rng("rng", rng), TorchGenerator):
        return {"bit_generator": "torch", "state": dict(rng.get_state())}  # type: ignore[union-attr]
    state: dict[str, Any] = dict(rng.bit_generator.state)  # type: ignore[union-attr]
    return state


def set_generator_state(rng: Rng, state: Mapping[str, Any]) -> None:
    """Make `rng` go on from where another of its kind stood.

    Raises
    ------
    ValueError, TypeError
        The state is of another kind of generator, or of none.
    """
    own, given = generator_state(rng)["bit_generator"], state.get("bit_generator")
    if own != given:
        raise ValueError(f"state: expected one of a {own} generator; got one of {given!r}")
    if isinstance(rng, TorchGenerator):
        rng.set_state(state["state"])
    else:
        rng.bit_generator.state = state


def generator_states(named: Mapping[str, Rng]) -> dict[str, Any]:
    """Where several generators stand, by name."""
    return {name: generator_state(rng) for name, rng in named.items()}


def set_generator_states(named: Mapping[str, Rng], states: Mapping[str, Any]) -> None:
    """Make each go on from its own state; ValueError where the names differ."""
    if sorted(named) != sorted(states):
        raise ValueError(f"generators: expected the states of {sorted(named)}; got those of {sorted(states)}")
    for name, rng in named.items():
        set_generator_state(rng, states[name])


def generators(module: Module) -> dict[str, Rng]:
    """Every generator that a layer or model holds, in itself or in its parts, by dotted name; shared ones once."""
    found: dict[str, Rng] = {}
    for path, part in _parts(module, ""):
        for name, value in vars(part).items():
            if isinstance(value, (np.random.Generator, TorchGenerator)) and all(value is not g for g in found.values()):
                found[path + name] = value
    return found


def _parts(module: Module, path: str) -> Iterator[tuple[str, Module]]:
    yield path, module
    for name, value in vars(module).items():
        if isinstance(value, Module):
            yield from _parts(value, f"{path}{name}.")


# The last few of a run


class Checkpoints:
    """The checkpoints of one run: the last few, in a folder of their own.

    Parameters
    ----------
    folder : path
        Made at the first `save`.
    keep : int
        How many stay. An older one goes when a newer one is whole.

    Notes
    -----
    Files are called step-00000100.safetensors. What a killed `save` left under a temporary name is never taken for a
    checkpoint; `clean` removes it.
    """

    _name = re.compile(r"step-(\d{8,})\.safetensors")

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3) -> None:
        self.folder = Path(folder)
        self.keep = check_positive_int("keep", keep)

    def paths(self) -> dict[int, Path]:
        """All checkpoints by their step, in order; whether they are whole is not looked at."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        found = {int(match[1]): path for path in there if (match := self._name.fullmatch(path.name))}
        return dict(sorted(found.items()))

    def clean(self) -> None:
        """Remove what killed runs left unfinished; no other process may be writing here."""
        if self.folder.is_dir():
            remove_temporaries(self.folder, self._name)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are older than the last `keep`.

        Those of later steps are removed too: they are of a course that this run has left.
        """
        check_int("step", step, least=0)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.safetensors"
        save(path, state)
        paths = self.paths()
        kept = [number for number in paths if number <= step][-self.keep :]
        for number, old in paths.items():
            if number not in kept:
                old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest checkpoint that is whole; None if there is no checkpoint at all.

        Raises
        ------
        ValueError
            There are checkpoints, and every one is damaged.

        Warns
        -----
        RuntimeWarning
            The newest is damaged, and an older one is taken.
        """
        paths = self.paths()
        damaged: list[str] = []
        for step, path in reversed(paths.items()):
            try:
                state = load(path)
            except ValueError as error:
                damaged.append(str(error))
                continue
            if damaged:
                warnings.warn(f"{'; '.join(damaged)}; going back to step {step}", RuntimeWarning, stacklevel=2)
            return step, state
        if damaged:
            raise ValueError(f"{self.folder}: no checkpoint is whole: {'; '.join(damaged)}")
        return None
