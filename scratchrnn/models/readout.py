"""A recurrent layer and a linear one that reads it: what LastStep and EveryStep share."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from scratchrnn._validate import describe
from scratchrnn.layers import LSTM, RNN, Linear
from scratchrnn.layers.module import Module
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.models.parts import by_parts, config_of, layer_of
from scratchrnn.rng import Rng


class Readout(Module):
    """The two layers, `rnn` and `decoder`, and their parameters by name; see LastStep and EveryStep."""

    def __init__(self, layer: RNN | LSTM | Wrapper, out_features: int, *, rng: Rng | None = None) -> None:
        if not isinstance(layer, RNN | LSTM | Wrapper):
            raise TypeError(f"layer: expected an RNN or LSTM; got {describe(layer)}")
        object.__setattr__(self, "dtype", layer.dtype)
        self.rnn = layer
        size = layer.num_directions * layer.output_size
        self.decoder = Linear(size, out_features, dtype=layer.dtype, backend=layer.backend, rng=rng)
        parts: dict[str, Module] = {"rnn": self.rnn, "decoder": self.decoder}
        object.__setattr__(self, "parameters", by_parts({name: part.parameters for name, part in parts.items()}))

    def config(self) -> dict[str, Any]:
        """The layer's kind and configuration, and O."""
        return {"layer": config_of(self.rnn), "out_features": self.decoder.out_features}

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> Self:
        return cls(**(config | {"layer": layer_of("layer", config.get("layer"))}))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rnn!r}, out_features={self.decoder.out_features})"


def check_batched(x: Any) -> None:
    """Raise unless `x` has three axes."""
    if np.ndim(x) != 3:
        raise ValueError(f"x: expected three axes, time, batch and input; got shape {np.shape(x)}")
