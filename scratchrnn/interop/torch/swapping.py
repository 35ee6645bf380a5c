"""Exchange the recurrent modules inside a model of torch's for those here, in place, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scratchrnn._validate import check_bool, describe
from scratchrnn.interop.torch.cells import CellOnKernels
from scratchrnn.interop.torch.classes import CELLS, PACKAGE, SEQUENCES, module_class
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.modules import OnKernels, why_not

RECURRENT = ("LSTM", "RNN", "GRU", "LSTMCell", "RNNCell", "GRUCell")


@dataclass(frozen=True)
class Swapped:
    """What `swap` or `swap_back` did.

    Attributes
    ----------
    replaced : dict of str to str
        Kind of each module that was exchanged, by its name in the model; "" is the model itself.
    left : dict of str to str
        Why each other recurrent module was left as it was.
    source : str
        The package whose modules were exchanged: "torch.nn", of `swap_back` this one.
    """

    replaced: dict[str, str]
    left: dict[str, str]
    source: str = "torch.nn"

    def __str__(self) -> str:
        lines = [f"{name or '(the model)'}: {self.source}.{kind} replaced" for name, kind in self.replaced.items()]
        lines += [f"{name or '(the model)'}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent module"


def swap(model: Any, *, cells: bool = False) -> Swapped:
    """Exchange every torch.nn.LSTM and torch.nn.RNN in a model for the module of the same name here, in place.

    Only the module's class changes. It stays the same object with the same Parameters, hooks, names and mode, so an
    optimizer made before, a second reference, and a state dict remain valid.

    Parameters
    ----------
    model : torch.nn.Module
    cells : bool
        Whether LSTMCell and RNNCell are exchanged too. A cell takes one step a call, and at that torch's is quicker:
        what ours has for it is the trace.

    Returns
    -------
    Swapped
        What was replaced, what was left, and why; `print` it. A module that stands in two places is named once.

    Raises
    ------
    TypeError
        Not a torch.nn.Module.

    Examples
    --------
    >>> import torch
    >>> print(swap(torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 4), "decoder": torch.nn.GRU(3, 4)})))
    encoder: torch.nn.LSTM replaced
    decoder: left, torch.nn.GRU, which has no module here
    """
    torch = require_torch()
    names = SEQUENCES + CELLS if check_bool("cells", cells) else SEQUENCES
    replaced: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, module in _modules_of(model):
        kind = next((kind for kind in names if type(module) is getattr(torch.nn, kind)), None)
        reason = _why_left(module) if kind is None else why_not(module)
        if reason is not None:
            left[name] = reason
        elif kind is not None:
            module.__class__ = module_class(kind)
            replaced[name] = kind
    return Swapped(replaced, left)


def swap_back(model: Any) -> Swapped:
    """Give every module of `scratchrnn.interop.torch` in a model torch's own class again, in place.

    What reads a model's code instead of running it needs this first: `torch.onnx.export`, `torch.jit`, `torch.export`.
    It takes modules that were exchanged by `swap` and those that were made here, and needs no record of either. As with
    `swap`, each stays the same object with the same Parameters, hooks and mode.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    Swapped
        What was given back; left are subclasses of the modules here.

    Raises
    ------
    TypeError
        Not a torch.nn.Module.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 4)})
    >>> _ = swap(model)
    >>> print(swap_back(model))
    encoder: scratchrnn.interop.torch.LSTM replaced
    >>> type(model["encoder"]) is torch.nn.LSTM
    True
    """
    torch = require_torch()
    replaced: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, module in _modules_of(model):
        of = next((kind for kind in SEQUENCES + CELLS if isinstance(module, module_class(kind))), None)
        if of is not None and type(module) is module_class(of):
            module.__class__ = getattr(torch.nn, of)
            replaced[name] = of
        elif of is not None:
            kind = type(module)
            left[name] = f"{kind.__module__}.{kind.__qualname__}, a subclass of {PACKAGE}.{of}"
    return Swapped(replaced, left, PACKAGE)


def _modules_of(model: Any) -> list[tuple[str, Any]]:
    """Every module of a model by its name, once each."""
    if not isinstance(model, require_torch().nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module; got {describe(model)}")
    return list(model.named_modules())


def _why_left(module: Any) -> str | None:
    """Why a module of another class is left; None where nobody would expect it to be exchanged."""
    torch = require_torch()
    if isinstance(module, (OnKernels, CellOnKernels)):
        return "already of scratchrnn"
    kind = type(module)
    where = f"{kind.__module__}.{kind.__qualname__}"
    name = getattr(module, "original_name", kind.__name__)  # of TorchScript's wrappers
    if kind.__module__ == torch.nn.LSTM.__module__ and name in RECURRENT:
        if kind in (getattr(torch.nn, cell) for cell in CELLS):
            return f"torch.nn.{name}, a step a call, at which torch's is quicker; swap(model, cells=True) takes it"
        return f"torch.nn.{name}, which has no module here"
    for of in RECURRENT:
        if isinstance(module, getattr(torch.nn, of)):
            return f"{where}, a subclass of torch.nn.{of}"
    return f"{where}, another {name} than torch.nn's" if name in RECURRENT else None
