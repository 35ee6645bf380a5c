"""torch.nn modules to layers of this package and back: same configuration, same weights, same dtype.

torch is imported inside the functions, never with this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.layers import LSTM, RNN, Embedding, Linear, LSTMCell, RNNCell
from scratchrnn.layers.module import Module
from scratchrnn.rng import Rng

# per class name, the same here and in torch.nn: the arguments that both constructors take
ARGUMENTS: dict[type[Module], tuple[str, ...]] = {
    RNN: (
        "input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional",
    ),
    LSTM: (
        "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size",
    ),
    RNNCell: ("input_size", "hidden_size", "bias", "nonlinearity"),
    LSTMCell: ("input_size", "hidden_size", "bias"),
    Linear: ("in_features", "out_features", "bias"),
    Embedding: ("num_embeddings", "embedding_dim", "padding_idx"),
}  # fmt: skip
NAMES = ", ".join(kind.__name__ for kind in ARGUMENTS)
TAKES_BACKEND = (RNN, LSTM, RNNCell, LSTMCell, Linear)


def require_torch() -> Any:
    """Return the module torch.

    Raises
    ------
    ImportError
        It is not installed; the message says what to install.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"torch cannot be imported ({error}): pip install torch==2.13.0, or another from 2.3 on"
        ) from None
    return torch


def to_array(name: str, tensor: Any) -> FloatArray:
    """Copy a torch tensor on the CPU, float32 or float64, into a NumPy array.

    Raises
    ------
    TypeError
        Not a tensor, of another dtype, or on another device.
    """
    torch = require_torch()
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a torch tensor; got {describe(tensor)}")
    if tensor.device.type != "cpu":
        raise TypeError(f"{name}: expected a tensor on the CPU; got one on {tensor.device} (use .cpu())")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: expected dtype float32 or float64; got {str(tensor.dtype).removeprefix('torch.')}")
    array: FloatArray = tensor.detach().numpy().copy()
    return array


def to_arrays(tensors: Mapping[str, Any]) -> dict[str, FloatArray]:
    """Copy a state dict of torch tensors into NumPy arrays, by name."""
    return {name: to_array(name, tensor) for name, tensor in tensors.items()}


def from_module(m: Any, *, backend: str | None = None, rng: Rng | None = None) -> Any:
    """Build the layer of this package that computes what a torch module computes.

    Parameters
    ----------
    m : torch.nn.RNN, LSTM, RNNCell, LSTMCell, Linear or Embedding
        On the CPU, float32 or float64; its weights are copied.
    backend : str, optional
        As for the layer's constructor; ignored for Embedding, which has none.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        The layer's generator for dropout masks.

    Returns
    -------
    The layer of the same name, with the same arguments, weights and dtype.

    Raises
    ------
    ImportError
        torch is not installed.
    TypeError
        Another kind of module, a device other than the CPU, or another dtype.
    ValueError
        An option that the layer here has not, or parameters that are not those of the plain module.

    Notes
    -----
    Where torch differs: whether dropout acts is a mode of the module there, and an argument of `forward` here.

    Examples
    --------
    >>> import torch
    >>> from_module(torch.nn.LSTM(3, 4, num_layers=2))
    LSTM(input_size=3, hidden_size=4, num_layers=2, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
    proj_size=0, dtype=float32)
    """
    torch = require_torch()
    kind = next((kind for kind in ARGUMENTS if isinstance(m, getattr(torch.nn, kind.__name__))), None)
    if kind is None:
        raise TypeError(f"m: expected one of torch.nn's {NAMES}; got {type(m).__module__}.{type(m).__qualname__}")
    if kind is Embedding:
        _refuse_embedding_options(m)
    weights = to_arrays(dict(m.named_parameters()))
    dtypes = {array.dtype for array in weights.values()}
    if len(dtypes) > 1:
        raise TypeError(f"m: expected one dtype; got {' and '.join(sorted(d.name for d in dtypes))}")
    arguments = {name: getattr(m, name) for name in ARGUMENTS[kind]}
    if kind is Linear:
        arguments["bias"] = m.bias is not None
    extra: dict[str, Any] = {"backend": backend} if kind in TAKES_BACKEND else {}
    layer = kind(**arguments, **extra, rng=rng, dtype=dtypes.pop())  # type: ignore[call-arg]
    layer.load_state_dict(weights)
    return layer


def _refuse_embedding_options(m: Any) -> None:
    for name, plain in (("max_norm", None), ("scale_grad_by_freq", False), ("sparse", False)):
        if getattr(m, name) != plain:
            raise ValueError(f"m: Embedding has no {name} here; got {name}={getattr(m, name)!r}")


def to_module(layer: Module) -> Any:
    """Build the torch module that computes what a layer of this package computes.

    Parameters
    ----------
    layer : RNN, LSTM, RNNCell, LSTMCell, Linear or Embedding

    Returns
    -------
    The torch.nn module of the same name, with the same arguments and dtype and a copy of the weights. torch's global
    generator is left as it was.

    Raises
    ------
    ImportError
        torch is not installed.
    TypeError
        Another kind of layer.
    """
    torch = require_torch()
    kind = type(layer)
    if kind not in ARGUMENTS:
        raise TypeError(f"layer: expected one of {NAMES}; got {kind.__module__}.{kind.__qualname__}")
    config = layer.config()
    arguments = {name: config[name] for name in ARGUMENTS[kind]}
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are overwritten below
        m = getattr(torch.nn, kind.__name__)(**arguments, dtype=getattr(torch, layer.dtype.name))
    with torch.no_grad():
        for name, parameter in m.named_parameters():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(layer.parameters[name])))
    return m
