"""What the walk over layers and directions has to know of a recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass

from scratchrnn._typing import DType, FloatArray
from scratchrnn.layers.direction import Cell, Weights
from scratchrnn.trace import DIRECTIONS, Key


@dataclass(eq=False, repr=False)
class Plan:
    """Cell, sizes and parameters of a stack. RNN and LSTM are such plans; one by itself is over the caller's arrays."""

    cell: Cell
    hidden_size: int
    num_layers: int
    bidirectional: bool
    proj_size: int  # 0 without a projection
    dtype: DType
    parameters: dict[str, FloatArray]

    @property
    def num_directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Size of h, in one direction: proj_size if there is a projection, else hidden_size."""
        return self.proj_size or self.hidden_size

    @property
    def _keys(self) -> list[Key]:
        """Every layer and direction, in the order in which they are walked, and of the rows of a state."""
        return [(n, d) for n in range(self.num_layers) for d in DIRECTIONS[: self.num_directions]]

    @staticmethod
    def _suffix(key: Key) -> str:
        layer, side = key
        return f"_l{layer}" + ("_reverse" if side == "reverse" else "")

    def _named(self, dw: Weights, key: Key) -> dict[str, FloatArray]:
        """Gradients of one direction's parameters, by their names."""
        named = {name + self._suffix(key): array for name, array in zip(dw._fields, dw, strict=True)}
        return {name: array for name, array in named.items() if name in self.parameters and array is not None}
