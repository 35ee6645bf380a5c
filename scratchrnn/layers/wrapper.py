"""Wrapper: a recurrent layer whose arithmetic is changed in training, with the layer's own three calls."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import describe
from scratchrnn.layers.module import Module
from scratchrnn.layers.stack import Recurrent
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State, Trace


class Wrapper(Module):
    """What WeightDrop and Zoneout share: all that is not changed is the layer's.

    The parameters are the layer's own live arrays, and every public attribute that the wrapper lacks is read from the
    layer and written to it. A wrapper has no weights, so `save` writes the layer's file: load it as such, and wrap it.

    Parameters
    ----------
    layer : RNN or LSTM
        Wrappers do not nest.
    rng : numpy.random.Generator, optional
        Draws all masks of a forward pass, those between layers too. The layer's own when absent.

    Raises
    ------
    TypeError
        Not an RNN or LSTM.
    """

    layer: Recurrent
    rng: Rng

    def __init__(self, layer: Recurrent, rng: Rng | None) -> None:
        if isinstance(layer, Wrapper):
            raise TypeError(f"layer: expected an RNN or LSTM, since wrappers do not nest; got {layer!r}")
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN or LSTM; got {describe(layer)}")
        generator = layer.rng if rng is None else check_rng("rng", rng)
        self.__dict__.update(layer=layer, parameters=layer.parameters, rng=generator)

    @abstractmethod
    def __call__(self, x: FloatArray, state: State | None = None, lengths: Any = None) -> tuple[FloatArray, State]:
        """Inference: (output, state), as the layer returns them."""

    @abstractmethod
    def forward(
        self,
        x: FloatArray,
        state: State | None = None,
        lengths: Any = None,
        training: bool = True,
        rng: Rng | None = None,
    ) -> Trace:
        """Run the layer and keep everything, arguments as in its own `forward`; the trace is the wrapper's own kind."""

    @abstractmethod
    def backward(
        self,
        trace: Any,
        d_output: FloatArray | None = None,
        d_state: State | None = None,
        *,
        clip: float | None = None,
        cut: BoolArray | None = None,
        detach_h: BoolArray | None = None,
        per_sample: bool = False,
    ) -> Gradients:
        """Backpropagate through what `forward` did, arguments as in the layer's own `backward`."""

    def __getattr__(self, name: str) -> Any:
        # reached only for names that are no ordinary attribute
        if name.startswith("_") or "layer" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or not hasattr(self.layer, name):
            super().__setattr__(name, value)
        else:
            setattr(self.layer, name, value)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({self.layer!r}, {arguments})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer's file: `layer.save`."""
        self.layer.save(path)

    def _state_shapes(self, batch: int, batched: bool) -> tuple[tuple[int, ...], ...]:
        return self.layer._state_shapes(batch, batched)

    def _enter_state(self, name: str, value: Any, batch: int, batched: bool) -> tuple[FloatArray | None, ...]:
        return self.layer._enter_state(name, value, batch, batched)

    def _generator(self, rng: Rng | None) -> Rng:
        return self.rng if rng is None else check_rng("rng", rng)
