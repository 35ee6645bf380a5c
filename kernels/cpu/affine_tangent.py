"""Tangents of equation (1), which both cells share: outside the time loop, and W_hh packed for what is in it.

    a_t'  = W_ih x_t' + W_ih' x_t + b_ih' + b_hh' + W_hh' h_{t-1} + W_hh h_{t-1}'     (1')

    B batch   T time   I input   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM
    z' is the tangent of z; in code z_dot

Only W_hh h_{t-1}' has to wait for the step before, and on the way back only W_hhᵀ da_t'. The rest are products of
`affine.py` over all steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine
from .affine import flat
from .gemm import pack_rows, packed_size, room
from .jit import Call, Kernel
from .machine import UNIT
from .plan import Part

Array = NDArray[np.floating[Any]]
Lengths = NDArray[np.integer[Any]]


@Kernel
def pack_gates(weight_hh, size, groups, hidden, unit, units, lanes, packed):
    """Pack W_hh for the pre-activations of units unit..unit+units, one packing for each of the groups of rows."""
    each = packed.size // groups
    for group in range(groups):
        at = (group * hidden + unit) * size
        pack_rows(weight_hh, at, size, units, 0, units, size, lanes, packed[group * each : (group + 1) * each])


class Recurrent:
    """W_hh packed for what a part does at each step: once for all parts that have every unit, else for each its own."""

    def __init__(self, weight_hh: Array, hidden: int, backward: bool) -> None:
        self._weight, self._hidden, self._backward = weight_hh, hidden, backward
        self._whole: Array | None = None

    def of(self, part: Part) -> tuple[Array, tuple[Call, ...]]:
        """Room for the packed weight, and the calls that fill it, if it is not filled."""
        if part.units < self._hidden:
            packed, call = self._packing(part.unit, part.units)
            return packed, (call,)
        if self._whole is None:
            self._whole, (kernel, arguments) = self._packing(0, self._hidden)
            kernel(*arguments)
        return self._whole, ()

    def _packing(self, unit: int, units: int) -> tuple[Array, Call]:
        weight, hidden = self._weight, self._hidden
        if self._backward:
            return affine.transposed(weight, unit, weight.shape[1] if units == hidden else units)
        (rows, size), dtype = weight.shape, weight.dtype
        groups, columns = (1, rows) if units == hidden else (rows // hidden, units)
        packed = room(groups * packed_size(columns, size, dtype), dtype)
        arguments = flat(weight), size, groups, hidden, unit, columns, UNIT.lanes(dtype.itemsize), packed
        return packed, (pack_gates.ready(dtype, *arguments), arguments)


def forward(
    x: Array,  # (T, B, I)
    x_dot: Array,  # (T, B, I)
    weight_ih: Array,  # (R, I)
    weight_ih_dot: Array,  # (R, I)
    weight_hh_dot: Array,  # (R, P)
    bias_ih_dot: Array,  # (R,)
    bias_hh_dot: Array,  # (R,)
    lengths: Lengths,  # (B,)
    h: Array,  # (T+1, B, P)
    a_dot: Array,  # (T, B, R) out: (1') without W_hh h_{t-1}'; zero beyond a sequence's end
) -> None:
    """All of (1') that needs no step before."""
    affine.preactivations(x_dot, weight_ih, weight_hh_dot, bias_ih_dot, bias_hh_dot, lengths, h, a_dot)
    affine.add_products(x, affine.packed_rows(weight_ih_dot), lengths, a_dot)


def carried(
    da: Array,  # (T, B, R)
    weight_hh_dot: Array,  # (R, P)
    lengths: Lengths,  # (B,)
    dh_dot: Array,  # (T+1, B, P) added to, in slots 0 to T-1
) -> None:
    """dh_{t-1}' receives W_hh'ᵀ da_t, the part of W_hhᵀ da_t's tangent that needs no step after."""
    affine.add_products(da, affine.packed_transposed(weight_hh_dot), lengths, dh_dot[:-1])


def backward(
    da: Array,  # (T, B, R)
    da_dot: Array,  # (T, B, R)
    x: Array,  # (T, B, I)
    x_dot: Array,  # (T, B, I)
    h: Array,  # (T+1, B, P)
    h_dot: Array,  # (T+1, B, P)
    weight_ih: Array,  # (R, I)
    weight_ih_dot: Array,  # (R, I)
    lengths: Lengths,  # (B,)
    dx_dot: Array,  # (T, B, I) out
    dweight_ih_dot: Array,  # (R, I) added to
    dweight_hh_dot: Array,  # (R, P) added to
    dbias_ih_dot: Array,  # (R,) added to
    dbias_hh_dot: Array,  # (R,) added to
) -> None:
    """Tangents of what undoes (1) in everything but h_{t-1}: each is a product da ⊗ z, so da' ⊗ z + da ⊗ z'."""
    dweights, nowhere = (dweight_ih_dot, dweight_hh_dot), np.zeros(da.shape[2], da.dtype)
    affine.backward(da_dot, x, h, weight_ih, lengths, dx_dot, *dweights, dbias_ih_dot, dbias_hh_dot)
    affine.backward(da, x_dot, h_dot, weight_ih_dot, lengths, dx_dot, *dweights, nowhere, nowhere, dx_anew=False)
