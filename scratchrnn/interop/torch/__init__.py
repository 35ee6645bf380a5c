"""For users of torch: modules in the place of torch.nn.LSTM and RNN, and weights from and to torch.nn.

`LSTM`, `RNN`, `LSTMCell` and `RNNCell` are subclasses of torch's and compute on the kernels here; `swap` puts them into
a model that there is, and `swap_back` takes them out. torch is imported when one of these is asked for, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scratchrnn.interop.torch.classes import CELLS, SEQUENCES, module_class
from scratchrnn.interop.torch.convert import from_module, require_torch, to_array, to_arrays, to_module
from scratchrnn.interop.torch.swapping import Swapped, swap, swap_back

if TYPE_CHECKING:
    LSTM: Any
    LSTMCell: Any
    RNN: Any
    RNNCell: Any

__all__ = [  # noqa: RUF022  the modules first
    "LSTM", "RNN", "LSTMCell", "RNNCell", "swap", "swap_back", "Swapped",
    "from_module", "to_module", "to_array", "to_arrays", "require_torch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in SEQUENCES + CELLS:
        return module_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
