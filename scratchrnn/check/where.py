"""From an index into a compared array to words: time step, gate, unit, sample."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import BoolArray, IntArray

PER_STEP = re.compile(r"d?(?P<name>[hcifgoa])_l\d+(?P<side>_reverse)?")
PARAMETER = re.compile(r"d(?P<name>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l\d+(?:_reverse)?")


def split(quantity: str) -> tuple[str, str]:
    """The quantity without its layer and direction, and these: dc_l1_reverse is (dc, l1_reverse), h_n is (h_n, "")."""
    m = re.fullmatch(r"(?P<kind>.+?)(?:_(?P<place>l\d+(?:_reverse)?))?", quantity)
    return (m["kind"], m["place"] or "") if m else (quantity, "")


@dataclass(frozen=True, eq=False)
class Geometry:
    """What an index means: the sizes and the layout of one comparison."""

    kind: str  # "rnn" or "lstm"
    hidden_size: int
    output_size: int  # of h in one direction: P
    directions: int
    batch_first: bool
    batched: bool
    lengths: IntArray  # (B,)

    def where(self, quantity: str, index: tuple[int, ...]) -> str:
        """Name the place: "t=3 f[2] sample 1" is gate f of unit 2 at the step that reads x[3], in sample 1.

        "start" is the initial state; "f[2] h[0]" is the weight from h[0] to gate f of unit 2; "m" is what a projection
        reads.
        """
        if not index:
            return ""
        if m := PARAMETER.fullmatch(quantity):
            return self._in_parameter(m["name"], index)
        if m := PER_STEP.fullmatch(quantity):
            t, b, u = index
            unit = self._row(u) if m["name"] == "a" else f"{m['name']}[{u}]"
            step = t - (m["name"] in "hc")
            if step < 0:
                return f"start {unit}{self._sample(b)}"
            if m["side"]:
                step = int(self.lengths[b]) - 1 - step if step < self.lengths[b] else step
            return f"t={step} {unit}{self._sample(b)}"
        if quantity in {"output", "dx"}:
            t, b = (index[0], 0) if not self.batched else (index[1], index[0]) if self.batch_first else index[:2]
            u = index[-1]
            name = "x" if quantity == "dx" else "h"
            if quantity == "output" and u >= self.output_size:
                return f"t={t} reverse h[{u - self.output_size}]{self._sample(b)}"
            return f"t={t} {name}[{u}]{self._sample(b)}"
        layer, d = divmod(index[0], self.directions)
        b = index[1] if self.batched else 0
        return f"l{layer}{'_reverse' if d else ''} {quantity.lstrip('d')[0]}[{index[-1]}]{self._sample(b)}"

    def _in_parameter(self, name: str, index: tuple[int, ...]) -> str:
        if name == "weight_hr":
            return f"h[{index[0]}] m[{index[1]}]"
        columns = {"weight_ih": "in", "weight_hh": "h"}
        column = f" {columns[name]}[{index[1]}]" if name in columns else ""
        return f"{self._row(index[0])}{column}"

    def _row(self, row: int) -> str:
        """A row of the weights: which gate, which unit."""
        gate, unit = divmod(row, self.hidden_size)
        return f"{'ifgo'[gate] if self.kind == 'lstm' else 'a'}[{unit}]"

    def _sample(self, b: int) -> str:
        return f" sample {b}" if self.batched else ""

    def padding(self, quantity: str, shape: tuple[int, ...]) -> BoolArray | None:
        """Where `quantity` lies beyond a sequence's end, of its shape; None where it has no time or no padding."""
        if m := PER_STEP.fullmatch(quantity):
            states = int(m["name"] in "hc")  # slot 0 comes before the first step
            beyond = np.arange(shape[0])[:, None] >= self.lengths + states  # (T or T+1, B)
        elif quantity in {"output", "dx"} and self.batched:
            steps = shape[1 if self.batch_first else 0]
            beyond = np.arange(steps)[:, None] >= self.lengths
            beyond = beyond.T if self.batch_first else beyond
        else:
            return None
        return np.broadcast_to(beyond[:, :, None], shape) if beyond.any() else None
