"""Exchange the recurrent modules inside a model of torch's for those here, in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scratchrnn._validate import describe
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.modules import OnKernels, module_class, why_not

NAMES = ("LSTM", "RNN")
RECURRENT = ("LSTM", "RNN", "GRU", "LSTMCell", "RNNCell", "GRUCell")


@dataclass(frozen=True)
class Swapped:
    """What `swap` did.

    Attributes
    ----------
    replaced : dict of str to str
        Kind of each module that was exchanged, by its name in the model; "" is the model itself.
    left : dict of str to str
        Why each other recurrent module was left as it was.
    """

    replaced: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{name or '(the model)'}: torch.nn.{kind} replaced" for name, kind in self.replaced.items()]
        lines += [f"{name or '(the model)'}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent module"


def swap(model: Any) -> Swapped:
    """Exchange every torch.nn.LSTM and torch.nn.RNN in a model for the module of the same name here, in place.

    Only the module's class changes. It stays the same object with the same Parameters, hooks, names and mode, so an
    optimizer made before, a second reference, and a state dict remain valid.

    Parameters
    ----------
    model : torch.nn.Module

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
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module; got {describe(model)}")
    replaced: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        kind = next((kind for kind in NAMES if type(module) is getattr(torch.nn, kind)), None)
        reason = _why_left(module) if kind is None else why_not(module)
        if reason is not None:
            left[name] = reason
        elif kind is not None:
            module.__class__ = module_class(kind)
            replaced[name] = kind
    return Swapped(replaced, left)


def _why_left(module: Any) -> str | None:
    """Why a module of another class is left; None where nobody would expect it to be exchanged."""
    torch = require_torch()
    if isinstance(module, OnKernels):
        return "already of scratchrnn"
    kind = type(module)
    where = f"{kind.__module__}.{kind.__qualname__}"
    name = getattr(module, "original_name", kind.__name__)  # of TorchScript's wrappers
    if kind.__module__ == torch.nn.LSTM.__module__ and name in RECURRENT:
        return f"torch.nn.{name}, which has no module here"
    for of in RECURRENT:
        if isinstance(module, getattr(torch.nn, of)):
            return f"{where}, a subclass of torch.nn.{of}"
    return f"{where}, another {name} than torch.nn's" if name in RECURRENT else None
