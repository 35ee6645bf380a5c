"""The recurrent layer in a file that torch.save wrote: a state dict, or a whole module."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from scratchrnn._validate import describe
from scratchrnn.interop.state_dict import NAME, layer_from_state_dict, select
from scratchrnn.interop.torch import from_module, require_torch, to_arrays
from scratchrnn.layers import LSTM, RNN


def layer_from_torch_file(
    path: str | os.PathLike[str],
    nonlinearity: str = "tanh",
    *,
    prefix: str | None = None,
    trust: bool = False,
    backend: str | None = None,
) -> RNN | LSTM:
    """Read the RNN or LSTM in a file written by torch.save.

    Parameters
    ----------
    path : str or path
        Holds a state dict, alone or inside a checkpoint such as {"epoch": 3, "model": {...}}; a torch.nn.RNN or LSTM;
        or with `trust` any module that contains one.
    nonlinearity : "tanh" or "relu"
        Of an RNN in a state dict; a module knows its own.
    prefix : str, optional
        Where in a larger model the layer stands, such as "encoder.rnn".
    trust : bool
        Whether code in the file may run. Without, only tensors and torch's own RNN and LSTM are read.
    backend : str, optional
        As for the layer's constructor.

    Raises
    ------
    ImportError
        torch is not installed.
    FileNotFoundError, ValueError, TypeError
        No such file, nothing that torch.save wrote, or nothing in it that fits; the message names the file.
    """
    torch = require_torch()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    found = _load(torch, path, trust)
    try:
        if isinstance(found, torch.nn.Module):
            return _from_any_module(torch, found, prefix, backend)
        if isinstance(found, Mapping):
            own = to_arrays(select(_unwrapped(found), prefix))
            return layer_from_state_dict(own, nonlinearity, backend=backend)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None
    raise TypeError(f"{path}: expected a state dict or a module; got {describe(found)}")


def _load(torch: Any, path: str | os.PathLike[str], trust: bool) -> Any:
    safe = getattr(torch.serialization, "safe_globals", None)  # torch 2.5
    known = nullcontext() if trust or safe is None else safe([torch.nn.RNN, torch.nn.LSTM])
    try:
        with known:
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        first = re.search(r"GLOBAL ([\w.]+)", str(error))
        plain = first and re.fullmatch(r"torch\.nn\.modules\.(?!container\.)\w+\.(\w+)", first[1])
        if plain:
            raise ValueError(f"{path}: expected a torch.nn.RNN or LSTM; got a torch.nn.{plain[1]}") from None
        if first:
            raise ValueError(
                f"{path}: holds more than tensors and a torch.nn.RNN or LSTM, and reading it would run code in it; "
                f"give --trust (trust=True) if you trust where it comes from, or save the state dict"
            ) from None
    except (RuntimeError, EOFError, AttributeError, ImportError, KeyError, IndexError) as error:
        if trust and isinstance(error, (AttributeError, ImportError)):
            raise ValueError(f"{path}: its classes cannot be imported here ({error}); save the state dict") from None
    raise ValueError(f"{path}: expected a file written by torch.save")


def _unwrapped(found: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The one state dict inside a checkpoint; what is given, if it is one itself or there is none."""

    def is_recurrent(value: Any) -> bool:
        return isinstance(value, Mapping) and any(NAME.fullmatch(str(name)) for name in value)

    inside = [] if is_recurrent(found) else [key for key, value in found.items() if is_recurrent(value)]
    if len(inside) > 1:
        raise ValueError(f"expected one state dict; got one under each of {', '.join(map(repr, inside))}")
    return found[inside[0]] if inside else found


def _from_any_module(torch: Any, m: Any, prefix: str | None, backend: str | None) -> RNN | LSTM:
    kinds = (torch.nn.RNN, torch.nn.LSTM)
    inside = {name: part for name, part in m.named_modules() if isinstance(part, kinds)}
    wanted = (prefix or "").rstrip(".")
    if wanted not in inside:
        names = ", ".join(repr(name) for name in inside)
        hint = f"there is one at {names}: say which" if inside else "there is none in it"
        place = f"at {prefix!r}" if prefix else f"itself, but a {type(m).__name__}"
        raise ValueError(f"prefix: no torch.nn.RNN or LSTM {place}; {hint}")
    layer: RNN | LSTM = from_module(inside[wanted], backend=backend)
    return layer
