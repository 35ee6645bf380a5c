"""What models made of several layers share: names by part, codes at their edge, configurations of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_indices, describe
from scratchrnn.layers import LSTM, RNN
from scratchrnn.layers.wrapper import Wrapper

LAYERS: dict[str, type[RNN] | type[LSTM]] = {"RNN": RNN, "LSTM": LSTM}


def by_parts(parts: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Arrays of each part under "part.name", in order; the arrays themselves, not copies."""
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def check_codes(name: str, value: Any, count: int) -> IntArray:
    """Return `value` if it is an array (time, batch) of integers, each in 0..count-1."""
    codes = check_indices(name, value, count)
    if codes.ndim != 2:
        raise ValueError(f"{name}: expected shape (time, batch); got {codes.shape}")
    if codes.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one time step; got shape {codes.shape}")
    return codes


def config_of(layer: RNN | LSTM | Wrapper) -> dict[str, Any]:
    """What `layer_of` builds a layer of the same kind and size from; of a wrapper, as of its file, the layer inside."""
    inner = layer.layer if isinstance(layer, Wrapper) else layer
    return {"layer": type(inner).__name__, "config": inner.config()}


def layer_of(name: str, entry: Any) -> RNN | LSTM:
    """The layer that an entry of a model's configuration describes."""
    if not (isinstance(entry, Mapping) and entry.get("layer") in LAYERS and isinstance(entry.get("config"), Mapping)):
        raise ValueError(f"{name}: expected the configuration of an RNN or LSTM; got {describe(entry)}")
    return LAYERS[entry["layer"]](**entry["config"])
