"""The modules for torch's users as classes, made when torch is there."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

from scratchrnn.interop.torch.cells import CellOnKernels
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.modules import OnKernels

SEQUENCES = ("LSTM", "RNN")
CELLS = ("LSTMCell", "RNNCell")
PACKAGE = __name__.rpartition(".")[0]  # pickles name a class by where users find it


@cache
def module_class(name: str) -> Any:
    """The module of one of these names."""
    base = getattr(require_torch().nn, name)
    doc = f"torch.nn.{name}, computed on the kernels of scratchrnn: same constructor, parameters and calls."
    own: Any = CellOnKernels if name in CELLS else OnKernels

    @wraps(base.__init__)  # with torch's signature, which `skip_init` and readers look at
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        own.__init__(self, *args, **kwargs)

    return type(name, (own, base), {"__module__": PACKAGE, "__qualname__": name, "__doc__": doc, "__init__": init})
