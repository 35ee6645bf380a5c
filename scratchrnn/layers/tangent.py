"""The walk over layers and directions for tangents: how results and gradients move along one direction u.

forward:    the tangents of x, h_0, c_0 and the weights  ──►  those of output, h_n, c_n: the Jacobian times u
backward:   these, and those of the cotangents  ──►  those of dx, dh_0, dc_0 and the weights' gradients

    B batch   T time   I input   H hidden   P projection (P = H without one)   L layers   D directions
    z_dot is the tangent of z

What stands between two layers is linear: side by side, dropout's masks, a sum over directions. A tangent goes through
it as its value did, and on the way back through `walk.backward` itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scratchrnn._typing import FloatArray
from scratchrnn.backends import Kernels
from scratchrnn.layers import direction, walk
from scratchrnn.layers.direction import Cell, Weights
from scratchrnn.layers.plan import Plan
from scratchrnn.layers.walk import Kept, Parameters, Returned
from scratchrnn.trace import DIRECTIONS, Key, LayerGradients, LayerTangent, LayerTrace


class Moved(NamedTuple):
    """The tangent of the result, and of everything on the way."""

    output: FloatArray  # (T, B, D·P)
    h_n: FloatArray  # (L·D, B, P)
    c_n: FloatArray | None  # (L·D, B, H) of an LSTM
    layers: dict[Key, LayerTangent]


@dataclass(frozen=True)
class _Point:
    """All that the way back through one direction of one layer needs."""

    trace: LayerTrace
    gradients: LayerGradients
    tangent: LayerTangent
    w_dot: Weights


@dataclass(frozen=True)
class _Points:
    """A `walk.Kept` of these."""

    layers: dict[Key, _Point]
    parameters: Parameters
    dropout_masks: Sequence[FloatArray | None]


def forward(
    layer: Plan,
    kernels: Kernels,
    trace: Kept,
    x_dot: FloatArray,  # (T, B, I) zero beyond a sequence's end
    h_0_dot: FloatArray | None,  # (L·D, B, P); None: zero
    c_0_dot: FloatArray | None,  # (L·D, B, H)
    parameters_dot: Parameters,  # of every parameter
) -> Moved:
    """The tangent of everything that `walk.forward` computed."""
    arrays, below = kernels.arrays, x_dot
    layers: dict[Key, LayerTangent] = {}
    for n, key in enumerate(layer._keys):
        w, w_dot = (Weights.of(p, layer._suffix(key), arrays) for p in (trace.parameters, parameters_dot))
        h_start, c_start = (None if s is None else s[n] for s in (h_0_dot, c_0_dot))
        layers[key] = forward_direction(kernels, layer.cell, trace.layers[key], below, h_start, c_start, w, w_dot)
        if key[1] == DIRECTIONS[layer.num_directions - 1]:
            sides = [(key[0], d) for d in DIRECTIONS[: layer.num_directions]]
            below = arrays.side_by_side([trace.layers[side].by_time(layers[side].h[1:]) for side in sides])
            mask = trace.dropout_masks[key[0]] if key[0] < layer.num_layers - 1 else None
            below = below if mask is None else arrays.multiply(below, mask)
    ends = [(layers[key], trace.layers[key].lengths) for key in layer._keys]
    h_n = arrays.stack([arrays.states_at(tangent.h, lengths) for tangent, lengths in ends])
    c_n = (
        arrays.stack([arrays.states_at(tangent.c, lengths) for tangent, lengths in ends]) if layer.cell.has_c else None
    )
    output = below if layer.bidirectional else arrays.copy(below)  # one direction's is a view of its h
    return Moved(output, h_n, c_n, layers)


def forward_direction(
    kernels: Kernels,
    cell: Cell,
    trace: LayerTrace,
    input_dot: FloatArray,  # (T, B, I) in the input's order of time
    h_0_dot: FloatArray | None,  # (B, P); None: zero
    c_0_dot: FloatArray | None,  # (B, H)
    w: Weights,
    w_dot: Weights,
) -> LayerTangent:
    """The tangent of everything that `direction.forward` computed."""
    arrays, lengths = kernels.arrays, trace.lengths
    x, x_dot = trace.by_time(trace.input), trace.by_time(input_dot)  # turning round is its own inverse
    a_dot = arrays.empty((*trace.input.shape[:2], w.weight_ih.shape[0]), trace.h.dtype)
    h_dot = _start(arrays, trace.h, h_0_dot)
    biases_dot = (w_dot.bias_ih, w_dot.bias_hh)
    if not cell.has_c:
        kernels.tangent.rnn.forward(
            x, x_dot, w.weight_ih, w.weight_hh, w_dot.weight_ih, w_dot.weight_hh, *biases_dot, cell.nonlinearity,
            lengths, trace.h, h_dot, a_dot,
        )  # fmt: skip
        return LayerTangent(h_dot, a_dot, input_dot, None)
    c_dot = _start(arrays, trace.c, c_0_dot)
    kernels.tangent.lstm.forward(
        x, x_dot, w.weight_ih, w.weight_hh, w.weight_hr, w_dot.weight_ih, w_dot.weight_hh, *biases_dot, w_dot.weight_hr,
        lengths, trace.h, trace.c, trace.gates, h_dot, c_dot, a_dot,
    )  # fmt: skip
    return LayerTangent(h_dot, a_dot, input_dot, c_dot)


def _start(arrays: Any, states: FloatArray, initial_dot: FloatArray | None) -> FloatArray:  # (T+1, B, ·), (B, ·)
    """Room for the tangents of states, that of the initial one in place."""
    states_dot: FloatArray = arrays.empty(states.shape, states.dtype)
    if initial_dot is None:
        arrays.clear(states_dot[0])
    else:
        arrays.put(states_dot[0], initial_dot)
    return states_dot


def backward(
    layer: Plan,
    kernels: Kernels,
    trace: Kept,
    gradients: Mapping[Key, LayerGradients],  # as `walk.backward` left them, without clip, cut and detach_h
    tangents: Mapping[Key, LayerTangent],  # as `forward` left them
    parameters_dot: Parameters,  # as given to `forward`
    d_output_dot: FloatArray | None,  # (T, B, D·P); None: zero
    d_h_n_dot: FloatArray | None,  # (L·D, B, P)
    d_c_n_dot: FloatArray | None,  # (L·D, B, H)
) -> Returned:
    """The tangent of everything that `walk.backward` computed."""
    points = {
        key: _Point(
            trace.layers[key],
            gradients[key],
            tangents[key],
            Weights.of(parameters_dot, layer._suffix(key), kernels.arrays),
        )
        for key in layer._keys
    }
    kept = _Points(points, trace.parameters, trace.dropout_masks)
    return walk.backward(
        layer, kernels, kept, d_output_dot, d_h_n_dot, d_c_n_dot, math.inf, None, None, backward_direction
    )


def backward_direction(
    kernels: Kernels,
    cell: Cell,
    point: _Point,
    w: Weights,
    d_output_dot: FloatArray | None,  # (T, B, P) in the input's order of time; None: zero
    d_h_n_dot: FloatArray | None,  # (B, P)
    d_c_n_dot: FloatArray | None,  # (B, H)
    **_: Any,  # clip, cut and detach_h of `direction.backward`, which have no tangents
) -> tuple[FloatArray, LayerGradients, Weights]:  # dx_dot (T, B, I) in the input's order; per step; per parameter
    """The tangent of everything that `direction.backward` computed."""
    arrays, trace, gradients, tangent, w_dot = kernels.arrays, point.trace, point.gradients, point.tangent, point.w_dot
    x, x_dot = trace.by_time(trace.input), trace.by_time(tangent.input)
    above = None if d_output_dot is None else trace.by_time(d_output_dot)
    dh_dot, dc_dot = direction.cotangents(trace, above, d_h_n_dot, d_c_n_dot, trace.lengths, arrays)
    da_dot = arrays.empty(tangent.a.shape, tangent.a.dtype)
    dx_dot, dw_dot = arrays.empty(x.shape, x.dtype), w.zeros(arrays)
    sums = (dw_dot.weight_ih, dw_dot.weight_hh, dw_dot.bias_ih, dw_dot.bias_hh)
    if dc_dot is None:
        kernels.tangent.rnn.backward(
            x, x_dot, w.weight_ih, w.weight_hh, w_dot.weight_ih, w_dot.weight_hh, cell.nonlinearity, trace.lengths,
            trace.h, tangent.h, tangent.a, gradients.h, gradients.a, dh_dot, da_dot, dx_dot, *sums,
        )  # fmt: skip
    else:
        kernels.tangent.lstm.backward(
            x, x_dot, w.weight_ih, w.weight_hh, w.weight_hr, w_dot.weight_ih, w_dot.weight_hh, w_dot.weight_hr,
            trace.lengths, trace.h, tangent.h, trace.c, tangent.c, trace.gates, tangent.a, gradients.h, gradients.c,
            gradients.a, dh_dot, dc_dot, da_dot, dx_dot, *sums, dw_dot.weight_hr,
        )  # fmt: skip
    return trace.by_time(dx_dot), LayerGradients(dh_dot, da_dot, dc_dot), dw_dot
