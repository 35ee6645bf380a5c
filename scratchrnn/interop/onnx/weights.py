"""The weights of one layer, between ONNX's layout and torch's.

    torch   weight_ih (G·H, I)   weight_hh (G·H, H)   bias_ih, bias_hh (G·H,)    gates i f g o, each direction its own
    ONNX    W      (D, G·H, I)   R      (D, G·H, H)   B (D, 2·G·H) = [Wb, Rb]    gates i o f c

    G gates (4 of an LSTM, 1 of an RNN)   H hidden   I input   D directions;  ONNX's c is torch's g

References
----------
ONNX operators RNN and LSTM, https://onnx.ai/onnx/operators/onnx__LSTM.html, versions 7, 14 and 22.
"""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.layers import LSTM, RNN

SUFFIXES = ("", "_reverse")
TO_ONNX = {4: [0, 3, 1, 2], 1: [0]}  # by number of gates: which of ours stands at each place of ONNX's
FROM_ONNX = {4: [0, 2, 3, 1], 1: [0]}


def reorder(rows: FloatArray, order: list[int]) -> FloatArray:  # (G·H, ...), G places
    """Blocks of rows, one per gate, in another order; a copy."""
    blocks: FloatArray = rows.reshape(len(order), -1, *rows.shape[1:])[order]
    return blocks.reshape(rows.shape)


def to_onnx(layer: RNN | LSTM, number: int) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """W, R and, of a layer with biases, B of the layer's layer `number`; copies."""
    order = TO_ONNX[4 if layer.cell.has_c else 1]

    def side_by_side(name: str) -> list[FloatArray]:
        names = [f"{name}_l{number}{suffix}" for suffix in SUFFIXES[: layer.num_directions]]
        return [reorder(layer.parameters[each], order) for each in names]

    w, r = np.stack(side_by_side("weight_ih")), np.stack(side_by_side("weight_hh"))
    if not layer.bias:
        return w, r, None
    return (
        w,
        r,
        np.stack([np.concatenate(b) for b in zip(side_by_side("bias_ih"), side_by_side("bias_hh"), strict=True)]),
    )


def from_onnx(
    w: FloatArray,  # (D, G·H, I)
    r: FloatArray,  # (D, G·H, H)
    b: FloatArray | None,  # (D, 2·G·H)
) -> dict[str, FloatArray]:
    """Parameters of a layer of ours, by name; copies."""
    order = FROM_ONNX[r.shape[1] // r.shape[2]]
    named = {}
    for d in range(len(w)):
        named[f"weight_ih_l0{SUFFIXES[d]}"] = reorder(w[d], order)
        named[f"weight_hh_l0{SUFFIXES[d]}"] = reorder(r[d], order)
        if b is not None:
            bias_ih, bias_hh = np.split(b[d], 2)
            named[f"bias_ih_l0{SUFFIXES[d]}"] = reorder(bias_ih, order)
            named[f"bias_hh_l0{SUFFIXES[d]}"] = reorder(bias_hh, order)
    return named
