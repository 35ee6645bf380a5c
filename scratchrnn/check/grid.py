"""Which configurations `scratchrnn check` goes through, and how it runs one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn.check.against_torch import against_torch
from scratchrnn.check.report import CheckReport
from scratchrnn.interop.torch import require_torch, to_module
from scratchrnn.layers import LSTM, RNN

# pairwise different and above 1: a transposed or a swapped axis must show
STEPS, BATCH, INPUT, HIDDEN, PROJECTION = 7, 3, 5, 4, 2
LENGTHS = (4, STEPS, 1)  # unsorted, with the longest and the shortest there can be
KINDS = ("RNN tanh", "RNN relu", "LSTM", "LSTM projected")
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Check:
    """One configuration, compared."""

    kind: str  # one of KINDS, or a file
    layers: int
    directions: int
    lengths: bool  # whether the sequences differ in length
    report: CheckReport

    @property
    def title(self) -> str:
        """The configuration in words."""
        layers = f"{self.layers} layer{'s' if self.layers > 1 else ''}"
        directions = ", bidirectional" if self.directions > 1 else ""
        lengths = "different" if self.lengths else "equal"
        return f"{self.kind}, {layers}{directions}, {lengths} lengths, {self.report.dtype}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        lengths = "different" if self.lengths else "equal"
        head = {"kind": self.kind, "layers": self.layers, "directions": self.directions, "lengths": lengths}
        return head | self.report.to_dict()


def check_grid(dtypes: Sequence[str] = DTYPES, seed: int = 0, backend: str | None = None) -> Iterator[Check]:
    """Every cell, with 1 to 3 layers, one and two directions, equal and different lengths, in each dtype."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for layers in (1, 2, 3):
            for directions in (1, 2):
                layer = _layer(kind, layers, directions, backend, rng)
                yield from _compare(kind, layer, dtypes, rng)


def check_layer(name: str, layer: RNN | LSTM, dtypes: Sequence[str] | None = None, seed: int = 0) -> Iterator[Check]:
    """A layer with weights of its own, with equal and different lengths.

    Parameters
    ----------
    name : str
        What to call it.
    layer : RNN or LSTM
    dtypes : sequence of str, optional
        When absent, float64, whatever the layer's dtype, since a float32 weight is a float64 number as well; and
        float32 if that is the layer's.
    seed : int

    Raises
    ------
    ValueError
        A weight is not finite: what both would compute from it says nothing.
    """
    for parameter, array in layer.parameters.items():
        if not np.isfinite(array).all():
            at = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
            raise ValueError(f"{name}: {parameter}: expected finite numbers, to compare; got {array[at]} at {at}")
    if dtypes is None:
        dtypes = ("float64",) if layer.dtype == np.float64 else DTYPES
    yield from _compare(name, layer, dtypes, np.random.default_rng(seed))


def _layer(kind: str, layers: int, directions: int, backend: str | None, rng: np.random.Generator) -> RNN | LSTM:
    options: dict[str, Any] = {
        "num_layers": layers, "bidirectional": directions == 2, "dtype": np.float32, "backend": backend, "rng": rng,
    }  # fmt: skip
    if kind.startswith("RNN"):
        return RNN(INPUT, HIDDEN, nonlinearity=kind.split()[1], **options)
    return LSTM(INPUT, HIDDEN, proj_size=PROJECTION if kind == "LSTM projected" else 0, **options)


def _compare(kind: str, layer: RNN | LSTM, dtypes: Sequence[str], rng: np.random.Generator) -> Iterator[Check]:
    torch = require_torch()
    shape = (BATCH, STEPS, layer.input_size) if layer.batch_first else (STEPS, BATCH, layer.input_size)
    ends = layer.num_layers * layer.num_directions
    sizes = (layer.output_size, layer.hidden_size)[: 2 if isinstance(layer, LSTM) else 1]
    for lengths in (None, LENGTHS):
        # drawn in float32, so that both dtypes get the same numbers
        x = rng.standard_normal(shape, np.float32)
        state = tuple(rng.standard_normal((ends, BATCH, size), np.float32) for size in sizes)
        for dtype in dtypes:
            m = to_module(layer).to(getattr(torch, dtype))
            wide = tuple(s.astype(dtype) for s in state)
            given = wide if len(wide) > 1 else wide[0]
            report = against_torch(m, x.astype(dtype), given, lengths, rng=rng, backend=layer.backend)
            yield Check(kind, layer.num_layers, layer.num_directions, lengths is not None, report)
